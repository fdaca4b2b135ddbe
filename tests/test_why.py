"""Why a text stops: the probabilities, the bars, the picture, ``minillm why``."""

import numpy as np
import pytest

pytest.importorskip("jinja2")

from minillm import GenerationConfig, chat, generate, models
from minillm.chat.sft import with_marks, with_rows
from minillm.cli import main
from minillm.cli.probabilities import stop_chart
from minillm.generation.stop_curves import stop_curves, stopping_ids
from minillm.tokenizer import BPETokenizer
from minillm.training.convert import to_file

TEXT = ["hello there a ball a bat a hat the end of it all why"] * 3
CONFIG = GenerationConfig(temperature=0, max_new_tokens=8)


def scaled(model):
    for parameter in model.parameters():
        parameter.data = parameter.data * np.float32(3)  # so that its answers are not all alike
    return model.eval()


def llama(V):
    config = models.LlamaConfig(V, 16, 24, 1, 2, 1, max_position_embeddings=128, bos_token_id=None, eos_token_id=None)
    return scaled(models.Llama(config, rng=3))


@pytest.fixture(scope="module")
def base():
    """A tokenizer without marks of turns, and a model."""
    tokenizer = BPETokenizer.train(TEXT, 290, ("<|endoftext|>",))
    return llama(tokenizer.vocab_size), tokenizer


@pytest.fixture(scope="module")
def tuned(base):
    """A chat model with the tokens of `base` and two more, which ends its turn at its third token."""
    tokenizer = with_marks(base[1])
    model = llama(tokenizer.vocab_size)
    end = tokenizer.special_tokens["<|im_end|>"]
    written = generate(model, tokenizer, chat.prompt([{"role": "user", "content": "why?"}], tokenizer), CONFIG).ids
    rows = model.lm_head.weight.data
    rows[[end, written[2]]] = rows[[written[2], end]]
    return model, tokenizer


@pytest.fixture(scope="module")
def folders(base, tuned, tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for name, (model, tokenizer) in {"base": base, "tuned": tuned}.items():
        model.save_pretrained(path / name, tokenizer=tokenizer, generation_config=CONFIG)
    return path


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "rnn", "t5"])
def test_curves_are_the_softmax_at_the_ids_that_stop(kind, base):
    V = base[1].vocab_size
    model = {
        "llama": lambda: llama(V),
        "gpt2": lambda: scaled(models.GPT2(models.GPT2Config(V, n_positions=64, n_embd=16, n_layer=1, n_head=2), 3)),
        "rnn": lambda: scaled(models.RecurrentLM(models.RecurrentLMConfig(V, 16), 3)),
        "t5": lambda: scaled(models.T5(models.T5Config(
            V, 16, 8, 24, 1, num_heads=2, decoder_start_token_id=0, eos_token_id=None, pad_token_id=1), 3)),
    }[kind]()  # fmt: skip
    prompt, ids, groups = base[1].encode("a ball"), base[1].encode(" and a bat"), {"a": [7], "b": [0, 9, V + 5]}
    curves = stop_curves(model, base[1], prompt, ids, groups, CONFIG)
    if kind == "t5":
        logits = model(np.array([prompt]), np.array([[0, *ids[:-1]]])).data[0]
    else:
        logits = model(np.array([[*prompt, *ids[:-1]]])).data[0, len(prompt) - 1 :]
    probabilities = softmax(logits.astype(np.float64))  # (N, V)
    assert curves["a"].shape == (len(ids),)
    np.testing.assert_allclose(curves["a"], probabilities[:, 7], rtol=2e-4)
    np.testing.assert_allclose(curves["b"], probabilities[:, [0, 9]].sum(axis=1), rtol=2e-4)


def test_curves_are_what_generation_notes_whatever_the_parameters(tuned):
    model, tokenizer = tuned
    config = GenerationConfig(temperature=1.7, top_k=5, seed=3, max_new_tokens=20, logit_bias={5: 4.0})
    text = generate(model, tokenizer, "a ball", config)
    groups = stopping_ids(tokenizer, config)
    assert groups == {"eos": [tokenizer.eos_id], "end_of_turn": [tokenizer.special_tokens["<|im_end|>"]]}
    curves = stop_curves(model, tokenizer, "a ball", text.ids, groups, config)
    np.testing.assert_allclose(sum(curves.values()), text.stop_probs, rtol=1e-4)
    assert stopping_ids(tokenizer, config.replace(eos_token_id=(), end_of_turn_token_id=(4, 6))) == {
        "end_of_turn": [4, 6]
    }


def test_bars(monkeypatch, tuned):
    monkeypatch.setenv("COLUMNS", "100")
    end = tuned[1].special_tokens["<|im_end|>"]
    probabilities, (letter, *_) = [0.0, 1e-4, 1e-3, 0.5, 1.0, 0.01], tuned[1].encode("c")
    assert stop_chart(probabilities, [letter] * 5 + [end], tuned[1]).splitlines() == [
        "    100 % |   ▆█", "     10 % |   ██", "      1 % |   ███", "    0.1 % |  ████", "          token 1 to 6", "",
        "   0.10 %  token 3: 'c'", "  50.00 %  token 4: 'c'", " 100.00 %  token 5: 'c'",
        "   1.00 %  token 6: <|im_end|>",
    ]  # fmt: skip
    many = stop_chart([0.0] * 199 + [1.0], [letter] * 199 + [end], tuned[1]).splitlines()
    assert many[0] == "    100 % |" + " " * 66 + "█" and many[4].strip() == "token 1 to 200, 3 to a bar"


def test_the_command(folders, tuned, base, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("COLUMNS", "100")
    out = tmp_path / "why.png"
    tuned_folder, base_folder = str(folders / "tuned"), str(folders / "base")
    assert main(["why", tuned_folder, "why?", "--before", base_folder, "--out", str(out)]) == 0
    told = capsys.readouterr()
    model, tokenizer = tuned
    prompt = chat.prompt([{"role": "user", "content": "why?"}], tokenizer)
    text = generate(model, tokenizer, prompt, CONFIG)
    assert text.finish_reason == "end_of_turn" and len(text.ids) == 3
    assert told.out.startswith(f"{text.text}\n\nend_of_turn: the model ended its turn, after 3 tokens\n")
    groups = stopping_ids(tokenizer, CONFIG)
    grown = with_rows(base[0], tokenizer)
    for where, writer in (("", model), (f", before, in {base_folder}", grown)):
        curves = stop_curves(writer, tokenizer, prompt, text.ids, groups)
        for title, group in (("eos (<|endoftext|>)", "eos"), ("end_of_turn (<|im_end|>)", "end_of_turn")):
            assert f"\n{title}{where}:\n{stop_chart(curves[group], text.ids, tokenizer)}\n" in told.out
    assert told.err == f"[a picture: {out}]\n" and out.read_bytes().startswith(b"\x89PNG") and out.stat().st_size > 9000

    assert main(["why", tuned_folder, "why?", "--raw", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(generate(model, tokenizer, "why?", CONFIG).text + "\n\nlength: --max-")
    monkeypatch.chdir(tmp_path)
    out.unlink()
    assert main(["why", base_folder, "a ball"]) == 0
    assert (folders / "base/why.png").is_file() and not out.exists(), "like the picture of plot: with the run"
    (folders / "base/why.png").unlink()
    assert "\neos (<|endoftext|>):\n" in capsys.readouterr().out
    to_file(folders / "tuned", tmp_path / "model.gguf", "f32")
    assert main(["why", "model.gguf", "why?"]) == 0
    assert out.is_file(), "a file has no folder of its own"


def test_what_the_picture_shows(tuned):
    pytest.importorskip("matplotlib")
    from minillm import plot

    tokens = [*"abc", "<|im_end|>"]
    figure = plot.stopping({"eos": [0.5, 0, 0.1, 0.2], "turn": [0.01, 0.1, 0.2, 0.75]}, tokens,
                           {"turn": [1e-9, 0, 0, 0.125]}, "why")  # fmt: skip
    (axes,) = figure.axes
    labels = [line.get_label() for line in axes.lines]
    assert labels == [
        "eos, after: 20.00 % at the last token", "turn, after: 75.00 % at the last token",
        "turn, before: 12.50 % at the last token",
    ]  # fmt: skip
    assert axes.lines[0].get_ydata().tolist() == [0.5, 1e-6, 0.1, 0.2] and axes.get_yscale() == "log"
    assert axes.lines[0].get_color() != axes.lines[1].get_color()
    assert axes.lines[2].get_linestyle() == "--"
    assert [label.get_text() for label in axes.get_xticklabels()] == tokens
    assert "probability" in axes.get_ylabel() and "token" in figure._supxlabel.get_text()
    long = plot.stopping({"eos": np.linspace(0, 1, 700)}, ["x"] * 700)
    assert len(long.axes) == 10 and long.axes[0].lines[0].get_xdata()[0] == 100
    with pytest.raises(ValueError, match="'eos' must be one probability for each of 2 tokens; got \\(3,\\)"):
        plot.stopping({"eos": [0, 0, 1]}, ["a", "b"])


def test_without_matplotlib_there_are_the_bars(folders, capsys, monkeypatch, tmp_path):
    from minillm.cli import why

    monkeypatch.setattr(why.importlib.util, "find_spec", lambda name: None)
    assert main(["why", str(folders / "tuned"), "why?", "--out", str(tmp_path / "why.png")]) == 0
    told = capsys.readouterr()
    assert "token 1 to 3" in told.out and "pip install matplotlib" in told.err and not list(tmp_path.iterdir())


def test_mistakes_are_one_line(folders, capsys, tmp_path):
    def complaint(*arguments):
        assert main(["why", *arguments]) == 2
        told = capsys.readouterr()
        assert told.out == "" and told.err.count("\n") == 1
        return told.err

    tuned_folder, base_folder = str(folders / "tuned"), str(folders / "base")
    assert "--out must end in one of .png, .svg, .pdf; got '.jpg'" in complaint(tuned_folder, "x", "--out", "why.jpg")
    assert "no such folder" in complaint(tuned_folder, "x", "--out", str(tmp_path / "none" / "why.png"))
    assert "prompt is missing" in complaint(tuned_folder)
    assert "no such run folder" in complaint(str(tmp_path / "none"), "x")
    assert f"{tuned_folder} has other tokens than {base_folder}" in complaint(
        base_folder, "x", "--before", tuned_folder
    )
    assert "unknown option --n" in complaint(tuned_folder, "x", "--n", "3"), "and not --no-repeat-ngram-size"
    assert "--max-new-tokens must be at least 1" in complaint(tuned_folder, "x", "--max-new-tokens", "0")
    assert "the prompt has" in complaint(tuned_folder, "hello there " * 90)
