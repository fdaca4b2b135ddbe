"""Modules: parts and parameters at any depth, their names, modes, random numbers; first values that are skipped."""

import threading

import numpy as np
import pytest

from minillm import Tensor, models, nn
from minillm.nn import init


def scale(value=1.0):
    return Tensor([value], requires_grad=True)


class Parts(nn.Module):
    def __init__(self, parts):
        self.parts = parts

    def forward(self, x):
        return x


def names(module):
    return sorted(name for name, _ in module.named_parameters())


def test_parameters_in_lists_and_dictionaries_are_found():
    assert names(Parts([scale(), scale()])) == ["parts.0", "parts.1"]
    assert names(Parts({"a": nn.Linear(1, 1, rng=0), "s": scale()})) == ["parts.a.bias", "parts.a.weight", "parts.s"]


@pytest.mark.parametrize(
    ("nest", "path"),
    [
        (lambda part: [[part]], "parts.0.0"),
        (lambda part: {"x": [part]}, "parts.x.0"),
        (lambda part: ({"a": ({"b": [None, part]},)},), "parts.0.a.0.b.1"),
        (lambda part: [[[[[3, "word", part]]]]], "parts.0.0.0.0.2"),
    ],
)
def test_parts_are_found_at_any_depth(nest, path):
    layer = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 3, rng=0))
    model = Parts(nest(layer))
    assert names(model) == [f"{path}.1.bias", f"{path}.1.weight"]
    assert [name for name, _ in model.named_modules()] == ["", path, f"{path}.0", f"{path}.1"]
    assert [name for name, _ in model.children()] == [path]
    assert f"({path}): Sequential(" in repr(model) and "2 -> 3" in repr(model)
    model.eval()
    assert not any(module.training for module in (model, layer, *layer))
    model.load_state_dict({name: array + 1 for name, array in model.state_dict().items()})
    before = nn.Linear(2, 3, rng=0).weight.data
    np.testing.assert_array_equal(layer[1].weight.data, before + 1)
    assert names(Parts(nest(scale()))) == [path]


def test_what_stands_in_two_places_is_found_once_and_circles_end():
    shared = nn.Linear(2, 2, rng=0)
    model = Parts([shared, {"again": shared}])
    assert names(model) == ["parts.0.bias", "parts.0.weight"] and len(list(model.modules())) == 2
    model.parts.append(model.parts)  # a list in itself
    shared.owner = model  # a part that knows the whole
    assert names(model) == ["parts.0.bias", "parts.0.weight"] and len(list(model.modules())) == 2


def test_a_sequence_may_have_other_parts_too():
    model = nn.Sequential(nn.Linear(2, 2, rng=0))
    model.extra = nn.Linear(2, 1, rng=1)
    assert names(model) == ["0.bias", "0.weight", "extra.bias", "extra.weight"]
    assert [name for name, _ in model.children()] == ["0", "extra"] and len(list(model.modules())) == 3


def test_a_hook_that_is_a_module_is_no_part():
    model = Parts([scale()])
    watcher = Parts([scale()])
    watcher.forward = lambda m, inputs, y: None
    model.register_forward_hook(watcher)
    assert names(model) == ["parts.0"] and len(list(model.modules())) == 1
    model(Tensor([1.0]))


def test_a_step_is_repeated_with_the_same_random_numbers():
    class Noise(nn.Module):  # a layer of somebody's own, that draws
        def __init__(self):
            self.numbers = np.random.default_rng(0)

        def draw_from(self, rng):
            self.numbers = rng

        def forward(self, x):
            return x + Tensor(self.numbers.standard_normal(x.shape).astype(np.float32))

    class Untouched(nn.Module):
        def __init__(self):
            self.rng = "of another kind"

    model = Parts([[nn.Dropout(0.5)], {"noise": Noise()}, Untouched()])
    x, results = Tensor(np.ones(100, np.float32)), []
    for seed in (1, 1, 2):
        model.set_rng(np.random.default_rng(seed))
        results.append(model.parts[1]["noise"](model.parts[0][0](x)).data)
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert model.parts[2].rng == "of another kind"


# ---- first values that are skipped -----------------------------------------------------------------------------------


def test_first_values_are_skipped_in_one_thread_alone():
    inside, outside = threading.Event(), threading.Event()
    drawn = {}

    def opens_a_file():
        with init.skipped():
            inside.set()
            assert outside.wait(10)
            drawn["there"] = nn.Linear(30, 30, rng=0).weight.data
        drawn["there afterwards"] = nn.Linear(30, 30, rng=0).weight.data

    thread = threading.Thread(target=opens_a_file)
    thread.start()
    assert inside.wait(10)
    drawn["here"] = nn.Linear(30, 30, rng=0).weight.data
    with init.skipped():  # overlaps with the other's block, and ends after it
        outside.set()
        thread.join()
        drawn["here, skipped"] = nn.Linear(30, 30, rng=0).weight.data
    drawn["here afterwards"] = nn.Linear(30, 30, rng=0).weight.data
    assert {name for name, w in drawn.items() if not w.any()} == {"there", "here, skipped"}
    np.testing.assert_array_equal(drawn["here"], drawn["there afterwards"])
    np.testing.assert_array_equal(drawn["here"], drawn["here afterwards"])


def test_skipping_ends_when_opening_fails(tmp_path):
    models.GPT2(models.GPT2Config(9, 8, 8, 1, 2), rng=0).save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"n_embd": 8', '"n_embd": 16'))
    with pytest.raises(ValueError, match="has shape"):
        models.from_pretrained(tmp_path / "model")
    with pytest.raises(RuntimeError), init.skipped():
        with init.skipped():
            pass
        assert not nn.Linear(3, 3, rng=0).weight.data.any()
        raise RuntimeError
    assert nn.Linear(3, 3, rng=0).weight.data.all()


def test_apply_reaches_every_part_and_the_module_last():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 2), nn.ReLU()))
    seen = []

    def ones(module):
        seen.append(type(module).__name__)
        if isinstance(module, nn.Linear):
            module.weight.data[...] = 1

    assert model.apply(ones) is model
    assert seen[-1] == "Sequential" and sorted(seen[:-1]) == ["Linear", "Linear", "ReLU", "Sequential"]
    assert model(Tensor(np.ones((1, 2)))).data.shape == (1, 2) and (model[1][0].weight.data == 1).all()


def test_parameters_are_counted_once():
    layer = nn.Linear(3, 4)
    assert nn.Sequential(layer, layer).num_parameters() == layer.num_parameters() == 16


def test_a_hook_before_the_forward_sees_and_replaces_the_inputs():
    layer, seen = nn.Linear(2, 2, bias=False, rng=0), []
    x = Tensor(np.array([[1.0, 2.0]], np.float32))
    plain = layer(x).data
    stop = layer.register_forward_pre_hook(lambda module, inputs: seen.append((module, inputs)))
    assert layer.is_watched and (layer(x).data == plain).all() and seen == [(layer, (x,))]
    double = layer.register_forward_pre_hook(lambda module, inputs: inputs[0] * 2)
    again = layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0,))
    assert (layer(x).data == 2 * plain).all()
    for remove in (stop, double, again):
        remove()
    assert not layer.is_watched and (layer(x).data == plain).all()
    with pytest.raises(TypeError, match="it is never called"):
        nn.Module().register_forward_pre_hook(print)


def test_a_notebook_shows_modules_and_tensors():
    class Script(nn.Module):
        def __init__(self):
            self.parts = {"<b>": nn.Linear(2, 3)}

        def extra_repr(self):
            return "<script>alert(1)</script>"

    html = Script()._repr_html_()
    assert "<td>parts.&lt;b&gt;</td><td>Linear</td>" in html and "<script>" not in html and "9 parameters" in html
    assert "; 61 more modules are not shown" in nn.Sequential(*[nn.ReLU() for _ in range(100)])._repr_html_()
    x = Tensor(np.arange(2000.0).reshape(20, 100), requires_grad=True)
    html = x._repr_html_()
    assert html.count("<tr>") == 9 and html.count("<td>") == 81 and "<td>1999</td>" in html
    assert "Tensor, shape=(20, 100), float64, requires_grad=True" in html
    assert "<td>…</td><td>96</td><td>97</td><td>98</td><td>99</td></tr>" in html
    assert Tensor([True, False])._repr_html_().count("<td>") == 2
    assert "<pre>Tensor(2." in (Tensor(1.0) * 2)._repr_html_() and "<pre>" in Tensor(np.ones((2, 2, 2)))._repr_html_()
