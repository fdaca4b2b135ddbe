"""The gradient check, the NaN detective, and hooks: the tools that learners point at their own code."""

import numpy as np
import pytest

import minillm.functional as F
from minillm import Tensor, detect_anomaly, gradcheck, models, nn, no_grad


def test_right_gradients_pass_and_inputs_are_left_alone():
    x = Tensor([1.0, -2.0])
    assert gradcheck(F.tanh, x)
    assert gradcheck(lambda a, b: a @ b, [np.ones((2, 2)) @ Tensor(np.eye(2)), Tensor(np.ones((2, 1)))])
    assert x.dtype == np.float32 and x.grad is None


def test_the_worst_entry_is_named():
    def wrong(x):
        a = x.data
        factor = np.where(np.arange(a.size) == 2, 3.0, 2.0)
        return Tensor.from_op(a * a, (x,), lambda dy: (dy * factor * a,))

    with pytest.raises(
        AssertionError, match=r"input 0, entry \(2,\): backward says .*, a small change says .* \(1 of 4"
    ):
        gradcheck(wrong, Tensor([1.0, 2.0, 3.0, 4.0]))


def test_nan_and_missing_gradients_are_wrong():
    with pytest.raises(AssertionError, match="backward says nan"):
        gradcheck(lambda x: Tensor.from_op(x.data * 1, (x,), lambda dy: (dy * np.nan,)), Tensor([1.0]))
    with pytest.raises(AssertionError, match="backward says 0"):
        gradcheck(lambda x: Tensor.from_op(x.data * 3, (x,), lambda dy: (None,)), Tensor([1.0]))


def test_a_module_is_checked_with_its_parameters_and_restored():
    layer = nn.Linear(3, 2, rng=0)
    before = layer.weight.data
    assert gradcheck(layer, Tensor(np.ones((4, 3))))
    assert layer.weight.data is before and layer.weight.grad is None and before.dtype == np.float32

    class Forgetful(nn.Module):
        def __init__(self):
            self.scale = Tensor([2.0], requires_grad=True)

        def forward(self, x):
            return x * self.scale.detach()

    with pytest.raises(AssertionError, match="parameter scale"):
        gradcheck(Forgetful(), Tensor([1.0, 2.0]))


def test_nothing_to_check():
    with pytest.raises(ValueError, match="at least one Tensor of floats"):
        gradcheck(lambda ids: F.one_hot(ids, 3), Tensor([1, 2]))


def test_what_cannot_be_checked_gets_a_sentence():
    x = Tensor(np.ones(64))  # two random masks of 64 entries are not the same
    for kind, words, fn in (
        (TypeError, "returns one Tensor; got tuple", lambda a: (a, a)),
        (TypeError, "returns one Tensor; got float", lambda a: a.sum().item()),
        (ValueError, "two calls gave two results", lambda a: F.dropout(a, 0.5)),
        (ValueError, "the result is float32", lambda a: a.astype(np.float32) * 3),
    ):
        with pytest.raises(kind, match=words):
            gradcheck(fn, x)
    with pytest.raises(ValueError, match="two calls gave two results"):
        gradcheck(nn.Sequential(nn.Linear(64, 64, rng=0), nn.Dropout(0.5)), x)
    assert gradcheck(nn.Sequential(nn.Linear(64, 2, rng=0), nn.Dropout(0.5)).eval(), x)


# ---- the NaN detective -----------------------------------------------------------------------------------------------


def test_forward_anomaly_names_operation_value_and_line():
    x = Tensor([1.0, -4.0], requires_grad=True)
    with pytest.raises(FloatingPointError) as caught, detect_anomaly():
        F.sqrt(x * 1.0)  # the guilty line
    message = str(caught.value)
    assert "forward of 'sqrt' gave nan at (1,), from input 0 = -4.0 there" in message
    assert "test_gradcheck.py" in message and "F.sqrt(x * 1.0)  # the guilty line" in message


def test_backward_anomaly_names_operation_value_and_line():
    x = Tensor([0.0, 1.0], requires_grad=True)
    with pytest.raises(FloatingPointError) as caught, detect_anomaly():
        y = F.sqrt(x)  # fine forward, infinite slope at 0
        y.sum().backward()
    message = str(caught.value)
    assert "backward of 'sqrt' gave a gradient of inf at (0,) for input 0 = 0.0 there" in message
    assert "fine forward, infinite slope at 0" in message


def test_the_line_is_right_inside_functions_comprehensions_and_long_expressions():
    def inner(t):
        return F.log(t)  # inside a function

    x, layer = Tensor([0.0], requires_grad=True), nn.Linear(1, 1, rng=0)
    layer.weight.data[:] = 9.0
    for words, call in (
        ("# inside a function", lambda: inner(x)),
        ("# inside a comprehension", lambda: [
            F.log(t)  # inside a comprehension
            for t in [x]
        ]),
        ("# the third line of one expression", lambda: (
            x * 2
            + F.log(x)  # the third line of one expression
            - x
        )),
        ("# below a layer", lambda: nn.Sequential(layer)(Tensor([3e38]))),  # below a layer
    ):  # fmt: skip
        with pytest.raises(FloatingPointError) as caught, np.errstate(over="ignore"), detect_anomaly():
            call()  # of the overflow in the layer the NumPy definitions warn
        assert words in str(caught.value)


def test_causes_of_empty_and_boolean_inputs_can_be_told():
    with np.errstate(all="ignore"), detect_anomaly():
        with pytest.raises(FloatingPointError, match="input 0 of shape .0,., which is empty"):
            Tensor(np.ones(0)).mean()
        with pytest.raises(FloatingPointError, match="from 1 to 1"):
            Tensor.from_op(np.array(np.nan), (Tensor([True, True]),), lambda dy: (dy,))


def test_infinities_that_were_given_are_no_anomaly():
    with detect_anomaly():
        x = Tensor(np.array([[0.0, -np.inf]]), requires_grad=True)
        F.softmax(x).sum().backward()
        assert F.log(Tensor([1.0])).item() == 0.0


def test_an_entry_changed_in_place_is_noticed():
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="backward of 'mul'.*changed in place.*called at"), detect_anomaly():
        y = (x * x).sum()
        x.data[0] = 5.0
        y.backward()


def test_the_detective_leaves_with_the_block():
    with detect_anomaly():
        pass
    with np.errstate(invalid="ignore"):
        assert np.isnan(F.sqrt(Tensor([-1.0])).item())


# ---- hooks on modules ------------------------------------------------------------------------------------------------


def test_module_hooks_see_every_value_and_gradient():
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 1, rng=1))
    values, gradients, removers = {}, {}, []
    for name, part in model.children():
        removers.append(part.register_forward_hook(lambda m, inputs, y, name=name: values.update({name: y.data})))
        removers.append(part.register_backward_hook(lambda m, dy, name=name: gradients.update({name: dy})))
    model(Tensor(np.ones((2, 3), np.float32))).sum().backward()
    assert {name: v.shape for name, v in values.items()} == {"0": (2, 4), "1": (2, 4), "2": (2, 1)}
    assert {name: g.shape for name, g in gradients.items()} == {"0": (2, 4), "1": (2, 4), "2": (2, 1)}
    assert gradients["2"].tolist() == [[1.0], [1.0]]
    for remove in removers:
        remove()
    values.clear()
    model(Tensor(np.ones((2, 3), np.float32)))
    assert values == {}


def test_hooks_can_replace():
    layer = nn.Linear(2, 2, rng=0)
    layer.register_forward_hook(lambda m, inputs, y: y * 0)
    assert layer(Tensor(np.ones((1, 2)))).data.tolist() == [[0.0, 0.0]]


def test_hooks_on_the_parts_of_a_block_see_what_each_adds():
    model = models.GPT2(models.GPT2Config(11, 8, 16, 2, 2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), rng=0)
    ids, seen = np.arange(6)[None] % 11, {}
    expected = model(ids).data
    for name, part in model.transformer.h[1].children():
        part.register_forward_hook(lambda m, inputs, y, name=name: seen.update({name: (inputs[0], y)}))
    model.transformer.h[1].register_forward_hook(lambda m, inputs, y: seen.update(block=(inputs[0], y)))
    np.testing.assert_allclose(model(ids).data, expected, atol=1e-6)
    begin, end = seen["block"]
    np.testing.assert_allclose((begin + seen["attn"][1] + seen["mlp"][1]).data, end.data, atol=1e-6)


def test_a_hook_inside_an_mlp_sees_the_wide_space_and_changes_no_gradient():
    config = models.GPT2Config(11, 8, 16, 1, 2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model, ids, seen, outcomes = models.GPT2(config, rng=0).astype(np.float64), np.arange(8)[None], [], []
    mlp = model.transformer.h[0].mlp
    for part in (None, mlp.c_fc, mlp.c_proj):
        remove = part.register_forward_hook(lambda m, inputs, y: seen.append(y.shape)) if part else lambda: None
        model.zero_grad()
        loss = F.cross_entropy(model(ids), ids)
        loss.backward()
        outcomes.append([loss.item(), *(p.grad for p in model.parameters())])
        remove()
    assert seen == [(1, 8, 64), (1, 8, 16)]
    for hooked in outcomes[1:]:
        for ours, theirs in zip(outcomes[0], hooked, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


class _Halved(nn.Module):
    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        return self.layer(x) * 0.5


def test_a_layer_in_the_place_of_another_is_called():
    model = models.GPT2(models.GPT2Config(11, 8, 16, 1, 2), rng=0).eval()
    block, x = model.transformer.h[0], Tensor(np.random.default_rng(0).standard_normal((1, 8, 16)), requires_grad=True)
    adds = [block.attn(x).data, block.mlp(x).data]
    block.attn.c_proj, block.mlp.c_proj = _Halved(block.attn.c_proj), _Halved(block.mlp.c_proj)
    np.testing.assert_allclose(block.attn(x).data, adds[0] / 2, atol=1e-6)
    np.testing.assert_allclose(block.mlp(x).data, adds[1] / 2, atol=1e-6)


def test_backward_hooks_of_layers_that_return_several_tensors():
    layer = nn.LSTM(2, 3, rng=0)
    seen = []
    layer.register_backward_hook(lambda module, dy: seen.append(dy.shape))
    layer(Tensor(np.ones((1, 4, 2), np.float32)))[0].sum().backward()
    assert seen == [(1, 4, 3)]


def test_backward_hooks_reach_tensors_in_tuples_of_tuples():
    layer, seen = nn.LSTM(2, 3, rng=0), []
    layer.register_backward_hook(lambda module, dy: seen.append(dy.shape))
    output, (h, c) = layer(Tensor(np.ones((1, 4, 2), np.float32)))
    (output.sum() + c.sum()).backward()
    assert sorted(seen) == [(1, 1, 3), (1, 4, 3)]


ARCHITECTURES = {
    "gpt2": lambda: models.GPT2(models.GPT2Config(11, 12, 16, 2, 2), rng=0),
    "gpt2 untied": lambda: models.GPT2(models.GPT2Config(11, 12, 16, 2, 2, tie_word_embeddings=False), rng=0),
    "llama": lambda: models.Llama(models.LlamaConfig(11, 16, 20, 2, 4, 2, tie_word_embeddings=True), rng=0),
    "llama untied": lambda: models.Llama(models.LlamaConfig(11, 16, 20, 2, 4, 2), rng=0),
    "rnn": lambda: models.RecurrentLM(models.RecurrentLMConfig(11, 16, 2, attention="additive"), rng=0),
    "rnn untied": lambda: models.RecurrentLM(models.RecurrentLMConfig(11, 16, tie_word_embeddings=False), rng=0),
    "t5": lambda: models.T5(models.T5Config(11, 16, 4, 20, 2, num_heads=4), rng=0),
    "t5 v1.1": lambda: models.T5(
        models.T5Config(11, 16, 4, 20, 2, num_heads=4, feed_forward_proj="gated-gelu", tie_word_embeddings=False), rng=0
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hooks_fire_in_training_evaluation_and_generation_for_every_module(name):
    """All that a model calls when it reads its prompt; what its cache keeps needs no second call."""
    model, called, asked = ARCHITECTURES[name](), set(), set()
    ids = np.arange(1, 9)[None]
    inputs = (ids, ids[:, :5]) if model.is_encoder_decoder else (ids,)
    expected = set()
    for path, module in model.named_modules():
        expected.add(path)
        module.register_forward_hook(lambda m, inputs, y, path=path: called.add(path))
        module.register_backward_hook(lambda m, dy, path=path: asked.add(path))
    model(*inputs).sum().backward()
    assert called == expected == asked

    model.eval()
    called.clear()
    with no_grad():
        logits = model(*inputs).data
    assert called == expected

    called.clear()
    options = {"encoder_ids": ids} if model.is_encoder_decoder else {}
    cache = model.new_cache(1, 12, **options)
    last = model.next_logits(inputs[-1], cache)
    np.testing.assert_allclose(last, logits[:, -1], atol=1e-5)
    assert called == expected
    called.clear()
    model.next_logits(inputs[-1][:, :1], cache)  # a single token, which compiled loops would read
    read_once = {path for path in expected if path.startswith("encoder") or "EncDecAttention.k" in path}
    read_once |= {path for path in expected if "EncDecAttention.v" in path}
    assert called == expected - read_once


def test_a_module_that_is_never_called_refuses_hooks():
    class Parts(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 2, rng=0)

    parts = Parts()
    for register in (parts.register_forward_hook, parts.register_backward_hook):
        with pytest.raises(TypeError, match="Parts has no forward.*never called.*register the hook on its parts"):
            register(print)
    parts.forward = lambda x: parts.layer(x)  # now it is called
    seen = []
    parts.register_forward_hook(lambda m, inputs, y: seen.append(y.shape))
    parts(Tensor(np.ones((1, 2), np.float32)))
    assert seen == [(1, 2)]
