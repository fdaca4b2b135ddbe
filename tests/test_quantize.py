"""int8 weights: the rounding and its error as documented, models, folders, the command."""

import json

import numpy as np
import pytest

from minillm import models
from minillm.cli import main
from minillm.models import from_pretrained
from minillm.models.fast.int8 import dequantize_rows, quantize_rows
from minillm.tensor import no_grad
from minillm.tokenizer import BPETokenizer
from tests.test_kernels_decode import MODELS, V

NAMES = ["gpt2 untied, exact gelu", "llama tied, biases", "gpt2", "llama"]


# ---- rounding --------------------------------------------------------------------------------------------------------


def test_rounding_is_to_the_nearest_of_255_steps_a_row():
    w = np.random.default_rng(0).standard_normal((5, 2000)).astype(np.float32)
    w[1] *= 1000
    w[2] = 0
    codes, scale = quantize_rows(w)
    assert codes.dtype == np.int8 and scale.dtype == np.float32
    np.testing.assert_allclose(scale, np.abs(w).max(axis=1) / 127, rtol=1e-6)
    assert (np.abs(codes) <= 127).all() and np.abs(codes[[0, 1, 3, 4]]).max(axis=1).tolist() == [127] * 4
    error = (codes * scale[:, None] - w) / np.where(scale, scale, 1)[:, None]
    assert np.abs(error).max() <= 0.5 + 1e-4
    assert error[[0, 1, 3, 4]].std() == pytest.approx(1 / np.sqrt(12), rel=0.02)  # even between the steps
    assert not codes[2].any() and scale[2] == 0


def test_the_error_of_a_sum_is_the_documented_one():
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((2000, 1024)).astype(np.float32), rng.standard_normal(1024).astype(np.float32)
    codes, scale = quantize_rows(w)
    error = (codes * scale[:, None] - w) @ x
    expected = np.linalg.norm(x) * scale / np.sqrt(12)
    assert (error / expected).std() == pytest.approx(1, rel=0.06)


def test_codes_times_scales():
    codes = np.array([[127, -50, 0], [1, 2, -127]], np.int8)
    w = dequantize_rows(codes, np.array([0.01, 2], np.float32))
    assert w.dtype == np.float32
    np.testing.assert_allclose(w, [[1.27, -0.5, 0], [2, 4, -254]], rtol=1e-6)


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_quantized_model_is_the_model_with_rounded_weights(name):
    model, ids = MODELS[name](), np.random.default_rng(4).integers(0, V, (3, 9))
    small = models.quantize(model)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    state = small.state_dict()
    rounded = {}
    for key, array in model.state_dict().items():
        assert np.array_equal(array, before[key])  # the model itself stays as it is
        if f"{key}_scale" in state:
            w = state[key] * state[f"{key}_scale"][:, None]
            by_columns = name.startswith("gpt2") and ("attn" in key or "mlp" in key)
            rounded[key] = w.T if by_columns else w
        else:
            rounded[key] = state[key]
    model.load_state_dict(rounded)
    with no_grad():
        np.testing.assert_allclose(small(ids).data, model(ids).data, atol=3e-4)
    assert small.num_parameters() == model.num_parameters() and small.parameters() == []
    with pytest.raises(ValueError, match="int8 weights cannot be trained"):
        small.train()
    assert small.eval() is small


def test_hooks_see_a_quantized_model_write():
    small, seen = models.quantize(MODELS["gpt2"]()), []
    remove = small.register_forward_hook(lambda m, inputs, y: seen.append(y.shape))
    cache = small.new_cache(1, 8)
    first = small.next_logits(np.arange(4)[None], cache)
    small.next_logits(np.arange(1)[None], cache)
    assert seen == [(1, 1, V), (1, 1, V)]
    remove()
    np.testing.assert_allclose(small.next_logits(np.arange(4)[None], small.new_cache(1, 8)), first, atol=1e-5)
    assert len(seen) == 2


def others():
    """Models that no loop for int8 knows; a T5 has a part named decoder."""
    yield models.RecurrentLM(models.RecurrentLMConfig(vocab_size=300, hidden_size=8), rng=0)
    yield models.T5(models.T5Config(vocab_size=300, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2), rng=0)


def test_other_architectures_are_refused():
    class Own(models.GPT2):
        """Whatever it does otherwise is not in the list of arrays."""

    own = Own(models.GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2), rng=0)
    for model in (*others(), own, models.quantize(MODELS["gpt2"]())):
        with pytest.raises(ValueError, match=f"GPT2 and Llama can be quantized; got {type(model).__name__}$"):
            models.quantize(model)


@pytest.mark.parametrize("model", list(others()), ids=lambda model: type(model).__name__)
def test_the_commands_say_so_in_one_line(model, tmp_path, capsys):
    BPETokenizer.train(["abc"], 260).save(tmp_path / "run")
    model.save_pretrained(tmp_path / "run")
    for command in (["quantize", str(tmp_path / "run")], ["generate", str(tmp_path / "run"), "abc", "--int8"]):
        assert main(command) == 2
        printed = capsys.readouterr().err
        assert f"GPT2 and Llama can be quantized; got {type(model).__name__}" in printed and printed.count("\n") == 1
        assert ("; leave --int8 out" in printed) == ("--int8" in command)
    assert not (tmp_path / "run-int8").exists()


def test_a_folder_of_int8_weights_for_another_architecture(tmp_path):
    for i, model in enumerate(others()):
        model.save_pretrained(tmp_path / str(i))
        fields = json.loads((tmp_path / str(i) / "config.json").read_text())
        own = {"quant_method": "minillm-int8", "model_type": fields["model_type"]}
        fields |= {"model_type": "minillm_int8", "quantization_config": own}
        (tmp_path / str(i) / "config.json").write_text(json.dumps(fields))
        with pytest.raises(ValueError, match=f"a {type(model).__name__} cannot have int8 weights; GPT2 and Llama can"):
            from_pretrained(tmp_path / str(i))


# ---- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name, tmp_path):
    small = models.quantize(MODELS[name]())
    small.save_pretrained(tmp_path / "small")
    again = from_pretrained(tmp_path / "small")
    assert isinstance(again, models.QuantizedModel) and again.context == small.context
    for key, array in small.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[key], array, err_msg=key)
    ids = np.arange(8)[None]
    np.testing.assert_array_equal(again(ids).data, small(ids).data)
    with pytest.raises(ValueError, match="dtype must be float32"):
        from_pretrained(tmp_path / "small", dtype=np.float64)


def test_damaged_folders_are_refused(tmp_path):
    from minillm import files

    small = models.quantize(MODELS["llama"]())
    small.save_pretrained(tmp_path / "small")
    weights = tmp_path / "small" / "model.safetensors"
    state = small.state_dict()
    norm, codes = "model.norm.weight", "model.layers.0.mlp.up_proj.weight"
    for change, message in (
        ({norm: None}, "missing model.norm.weight"),
        ({f"{codes}_scale": None}, f"missing {codes}_scale"),
        ({codes: state[codes].astype(np.float32)}, f"{codes} is F32"),
        ({codes: state[codes][:, :-1]}, f"{codes} is I8"),
        ({"more": state[norm]}, "unexpected more"),
    ):
        changed = {name: array for name, array in (state | change).items() if array is not None}
        files.write_safetensors(weights, changed)
        with pytest.raises(ValueError, match=message):
            from_pretrained(tmp_path / "small")
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "small" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="quantization_config must have the quant_method minillm-int8; got .*gptq"):
        from_pretrained(tmp_path / "small")


def test_transformers_refuses_what_it_cannot_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    models.quantize(MODELS["llama"]()).save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="minillm_int8"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small")


# ---- the command -----------------------------------------------------------------------------------------------------

TINY = "--tokenizer char --layers 2 --heads 2 --width 32 --context 16 --batch-size 4 --steps 20".split()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_command(kind, tmp_path, capsys):
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("the cat sat on the mat and the dog sat on the log. " * 40)
    assert main(["train", "--data", str(text), "--model", kind, "--out", str(run), *TINY]) == 0
    capsys.readouterr()
    assert main(["quantize", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "perplexity on" in printed and "error of the weights" in printed and "run-int8" in printed
    small = tmp_path / "run-int8"
    names = {path.name for path in small.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= names
    texts = []
    greedy = ["--max-new-tokens", "8", "--temperature", "0"]
    for arguments in (
        [str(small), "the ", *greedy],
        [str(run), "--int8", "the ", *greedy],  # options and prompt in any order
        ["--int8", *greedy, str(small), "the "],
    ):
        assert main(["generate", *arguments]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2] and texts[0].startswith("the ")
    assert main(["eval", str(small), "--data", str(text)]) == 0
    assert "perplexity" in capsys.readouterr().out
    assert main(["info", str(small)]) == 0
    printed = capsys.readouterr().out
    assert "QuantizedModel" in printed and "MB in int8" in printed
    for wrong, message in (
        ([str(run)], "exists already"),
        ([str(small), "--out", str(tmp_path / "x")], "in int8 already"),
    ):
        assert main(["quantize", *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_folder_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    from minillm.training import quantize_run as quantize

    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("the cat sat on the mat and the dog sat on the log. " * 40)
    assert main(["train", "--data", str(text), "--out", str(run), *TINY]) == 0

    def full(*_, **__):
        raise OSError("no space left on device")

    before = set(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(models.QuantizedModel, "save_pretrained", full)
        with pytest.raises(OSError, match="no space"):
            quantize.quantize_folder(run)
    assert set(tmp_path.iterdir()) == before
    monkeypatch.setattr(quantize, "plot_errors", full)
    with pytest.warns(UserWarning, match="picture of the errors failed, and the run goes on: no space"):
        report = quantize.quantize_folder(run)
    assert models.from_pretrained(report.path)


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    from minillm.training.quantize_run import plot_errors, weight_errors

    model = MODELS["gpt2"]()
    errors = weight_errors(model, models.quantize(model))
    assert len(errors) == 9 and all(0.001 < error < 0.02 for error in errors.values())
    plot_errors(errors, tmp_path / "errors.png", title="tiny")
    assert (tmp_path / "errors.png").read_bytes()[:4] == b"\x89PNG"
