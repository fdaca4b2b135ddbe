"""The words of the command line: every option is checked before any work, complaints are in the words of the command,
and guesses are made only where they are near."""

import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from minillm import Recipe, files, load_run, models, tokenizer
from minillm.cli import _parser, main
from minillm.cli.values import Number
from minillm.tokenizer import CharTokenizer
from minillm.training import corpus, memory
from minillm.training.build import build_model
from tests.test_cli import complaint

ACTIONS = [
    (command, action)
    for command, parser in _parser()._subparsers._group_actions[0].choices.items()
    for action in parser._actions
]
NUMBERS = [pytest.param(c, a, id=f"{c}{a.option_strings[0]}") for c, a in ACTIONS if isinstance(a.type, Number)]
PLACES = {"train": [], "encode": ["nowhere", "out"], "tokenize": ["nowhere", "x"]}  # what a command needs besides


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that nobody trained."""
    path = tmp_path_factory.mktemp("model") / "model"
    words = CharTokenizer.train(["abc \n"], special_tokens=("<|endoftext|>",))
    config = models.LlamaConfig(words.vocab_size, 8, 8, 1, 2, 2, max_position_embeddings=16)
    models.Llama(config, rng=0).save_pretrained(path, tokenizer=words)
    (path.parent / "text.txt").write_text("abc cab " * 30)
    return path


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_every_number_of_every_command_has_bounds():
    free = [f"{c} {a.option_strings[0]}" for c, a in ACTIONS if a.type in (int, float)]
    assert free == [] and len(NUMBERS) > 30
    assert {a.type.most for _, a in ACTIONS if a.dest == "seed"} == {2**63 - 1}


@pytest.mark.parametrize("command, action", NUMBERS)
def test_a_number_out_of_bounds_is_refused_before_any_work(command, action, capsys):
    """The folder and the text are not even looked for."""
    flag, low, high = action.option_strings[0], action.type.least, action.type.most
    for text, what in (
        (f"{low - 1}", f"must be at least {low:,}; got {low - 1}"),
        (f"{high * 2 + 1}", f"must be at most {high:,}; got "),
        ("many", "got 'many'"), ("", "got ''"), ("nan", "got 'nan'"),
    ):  # fmt: skip
        told = complaint(capsys, command, *PLACES.get(command, ["nowhere"]), f"{flag}={text}")
        assert told.startswith(f"minillm: {flag} must be ") and what in told, told


def test_names_must_not_be_empty(folder, capsys):
    for arguments in (["train", "--data", ""], ["train", "--out", ""], ["eval", str(folder), "--data", ""],
                      ["quantize", str(folder), "--out", ""], ["encode", "", "out"], ["generate", "x", "--file", ""],
                      ["encode", "x", ""], ["encode", "x", "out", "--tokenizer", ""]):  # fmt: skip
        assert "must name a file or a folder; got ''" in complaint(capsys, *arguments)


def test_what_depends_on_the_model_is_in_the_words_of_the_command(folder, capsys):
    text = str(folder.parent / "text.txt")
    for command in ("eval", "quantize"):
        told = complaint(capsys, command, str(folder), "--data", text, "--context", "17")
        assert told == "minillm: --context must be at most 16, which is all that the model sees; got 17"
    assert not folder.with_name("model-int8").exists()
    told = complaint(capsys, "eval", str(folder), "--data", text, "--threads", "4096")
    assert told.startswith("minillm: --threads must be an integer from 1 to ")
    told = complaint(capsys, "generate", str(folder), "--min-new-tokens", "9", "--max-new-tokens", "3")
    assert told == "minillm: --min-new-tokens must be at most --max-new-tokens = 3; got 9"
    told = complaint(capsys, "generate", str(folder), "--beams", "2", "--n", "3")
    assert told == "minillm: --n must be at most --beams = 2; got 3"
    told = complaint(capsys, "generate", str(folder), "--beams", "2", "--top-k", "3")
    assert told.startswith("minillm: --top-k must be 0 with --beams above 1")
    told = complaint(capsys, "train", "--width", "100", "--heads", "3")
    assert told == "minillm: --width must be divisible by heads; got width 100, heads 3"
    assert complaint(capsys, "train", "--data", "nowhere.txt").startswith("minillm: no such file or folder")


def test_a_file_without_text_is_named(capsys, tmp_path):
    (tmp_path / "empty.txt").touch()
    told = complaint(capsys, "train", "--data", str(tmp_path / "empty.txt"), "--out", str(tmp_path / "run"))
    assert told.endswith("empty.txt holds no text, only white space or nothing at all")


def test_an_unknown_option_is_named_before_its_value(capsys):
    assert complaint(capsys, "warmup", "--threads", "4").startswith("minillm: unknown option --threads")
    assert complaint(capsys, "warmup", "lama").endswith("got 'lama'; did you mean llama? (see: minillm warmup --help)")


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "rnn"])
def test_parameters_are_counted_without_building(kind):
    recipe = Recipe(model=kind, layers=3, width=32, context=64)
    built = build_model(recipe, 300)
    assert memory.count_parameters(recipe, 300) == built.num_parameters()


def test_memory_is_told_before_anything_is_built(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 24 * 2**30)
    monkeypatch.setattr(corpus.data, "train_and_validation", lambda *a: pytest.fail("stories were written"))
    text = ["--data", str(folder.parent / "text.txt")]
    layers = complaint(capsys, "train", "--width", "100000")
    assert main(["train", "--width", "1000000"]) == 2
    assert capsys.readouterr().err.startswith("minillm: this needs at least")  # and nothing before it
    P = 1024 * 10**5 + 2 * (4 * 10**10 + 3 * 10**5 * 266688 + 2 * 10**5) + 10**5
    needed = 16 * P + 8 * 256 * 4 * (22 * 2 * 10**5 + 2048) + 8904 * memory.PER_STORY
    assert f"needs at least {needed / 2**30:,.0f} GiB of memory, and 24 are free; choose fewer layers or a" in layers
    for options in (["--layers", "100000000"], ["--batch-size", "100000000000"], ["--steps", "1000000000"],
                    ["--context", "2000000000"], [*text, "--batch-size", "100000000000"]):  # fmt: skip
        assert "GiB of memory, and 24 are free" in complaint(capsys, "train", *options)
    assert complaint(capsys, "train", "--layers", "100000000").endswith("a smaller context or fewer layers")
    for options in (["--context", "9"], ["--batch-size", "100000000"]):  # of a short text: it is no longer than itself
        assert main(["eval", str(folder), *text, *options]) == 0
    monkeypatch.setattr(memory, "available", lambda: 240 * 9 * 2)
    assert "choose a smaller batch" in complaint(capsys, "eval", str(folder), *text, "--batch-size", "100000000")
    assert not list(tmp_path.iterdir())


def test_what_fits_is_not_refused():
    """The estimate of the default run is below what it was measured to take, and not far below."""
    found = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_check", found.append)
        memory.check_recipe(Recipe())
    weights, batch, text = found[0].values()
    assert weights == 16 * 1_082_304 and text == corpus.stories_for(Recipe()) * memory.PER_STORY
    assert 0.8 * 107e6 < weights + batch < 107e6  # 94 MB at the peak of a step, beside weights and AdamW's means


# ---- guesses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, told",
    [
        ("train --lr 0.1", "unknown option --lr; did you mean --learning-rate?"),
        ("train --learning_rate 0.1", "did you mean --learning-rate?"),
        ("train --epochs 3", "did you mean --steps?"),
        ("train --block-size=9", "did you mean --context?"),
        ("train --n_embd 9", "did you mean --width?"),
        ("train --laers 9", "did you mean --layers?"),
        ("train nothing.txt", "unexpected nothing.txt; did you mean --data nothing.txt?"),
        ("train 'my text.txt'", "did you mean --data 'my text.txt'?"),
        ("train gpt2", "did you mean --model gpt2?"),
        ("train char", "did you mean --tokenizer char?"),
        ("generate run --top_p 1", "did you mean --top-p?"),
        ("generate run --num-beams 1", "did you mean --beams?"),
        ("generate run --prompt hi", "unknown option --prompt; it has no name: minillm generate RUN PROMPT"),
        ("generate run Once upon a time", "a text of several words stands in quotes: 'Once upon a time'"),
        ("tokenize run it is", "a text of several words stands in quotes: 'it is'"),
        ("sample run", "did you mean generate?"),
        ("evall run", "did you mean eval?"),
        ("train --model RNN", "did you mean rnn?"),
        ("help train", "did you mean --help?"),
        ("generate run -x", "a text that begins with a dash stands at the end, after --: -- -x"),
        ("generate run -n 3", "did you mean --n?"),
        ("generate run -- -x --seed", "it stands after --, where all is text"),
        ("generate run --stop ''", "--stop must be strings of 1 to 1000 characters; got ''"),
        ("tokenize run", "TEXT is missing"),
        ("generate", "RUN is missing"),
        ("train --steps", "--steps needs a value"),
    ],
)
def test_guesses(arguments, told, capsys):
    assert told in complaint(capsys, *shlex.split(arguments))


@pytest.mark.parametrize("arguments", ["generate run --lr 3", "train --foo", "train nothing", "info --steps 3", "bake"])
def test_no_guess_where_nothing_is_near(arguments, capsys):
    told = complaint(capsys, *shlex.split(arguments))
    assert "did you mean" not in told and "--help)" in told


def test_a_run_that_stands_alone_is_to_be_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.makedirs("runs/a b")
    (tmp_path / "runs" / "a b" / "training.json").write_text("{}")
    assert "did you mean --out 'runs/a b' --resume?" in complaint(capsys, "train", "runs/a b")
    assert "did you mean 'runs/a b'?" in complaint(capsys, "generate", "a b", "x")


@pytest.mark.parametrize(
    "arguments, told",
    [
        ("eval my.txt", "RUN must be the folder of a model; my.txt is a text, which is given so: minillm eval"),
        ("eval texts", "texts is a text, which is given so: minillm eval RUN --data texts"),
        ("eval my.txt model", "minillm eval RUN --data my.txt"),
        ("generate my.txt", "minillm generate RUN --file my.txt"),
        ("generate texts x", "RUN must be the folder of a model; texts is a text"),
        ("quantize my.txt", "minillm quantize RUN --data my.txt"),
        ("sft 'a chat.jsonl'", "minillm sft RUN --data 'a chat.jsonl'"),
        ("train --from my.txt", "--from must be the folder of a model; my.txt is a text, which"),
        ("train --from my.txt", "given so: minillm train --from FOLDER --data my.txt"),
        ("info my.txt", "RUN must be the folder of a model; my.txt is a text"),
        ("tokenize my.txt x", "RUN_OR_FILE must be the folder of a model; my.txt is a text"),
        ("convert my.txt out.gguf", "FROM must be the folder of a model; my.txt is a text"),
        ("eval model/config.json", "RUN must be the folder of a model, not one of its files: did you mean model?"),
        ("eval model", "model_type must be one of"),  # which holds a text too
    ],
)  # fmt: skip
def test_a_text_in_the_place_of_a_model(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("texts", "model"):
        os.mkdir(folder)
        (tmp_path / folder / "a.txt").write_text("a text")
    (tmp_path / "model" / "config.json").write_text("{}")
    for name in ("my.txt", "a chat.jsonl"):
        (tmp_path / name).write_text("a text")
    assert told in complaint(capsys, *shlex.split(arguments))


# ---- what people have elsewhere --------------------------------------------------------------------------------------


def test_names_of_the_hub(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, short in (("gpt2", "gpt2"), ("owner/some-model", "some-model")):
        fetch = f"Nothing is downloaded here: a model of the Hugging Face hub is fetched with `hf download {name} " \
                f"--local-dir {short}`"  # fmt: skip
        assert fetch in complaint(capsys, "generate", name, "hello")
        assert fetch in complaint(capsys, "tokenize", name, "hello")
        for load in (models.from_pretrained, load_run, tokenizer.load):
            with pytest.raises(FileNotFoundError, match=re.escape(fetch)):
                load(name)
    (tmp_path / "here").mkdir()
    for name in ("./gpt2", "runs/gpt2", "here/gpt2", "/a/b", "a/b/c", "model.safetensors", "my model"):
        assert files.about_the_hub(name) == "", name


def test_pickles_say_why_and_how_to_convert(folder, tmp_path, capsys):
    for name in ("pytorch_model.bin", "model.pt", "last.ckpt", "a.pth"):
        lone, whole = tmp_path / name, tmp_path / f"folder-{name}"
        lone.write_bytes(b"\x80\x04")
        whole.mkdir()
        (whole / name).write_bytes(b"\x80\x04")
        for config in (False, True):  # a folder with a config.json, and one without
            if config:
                (whole / "config.json").write_bytes((folder / "config.json").read_bytes())
            told = complaint(capsys, "generate", str(whole), "x")
            assert f"{name} is a pickle, which can run any program when it is opened" in told
            assert f"from_pretrained('{whole}').save_pretrained('converted')" in told
        told = complaint(capsys, "generate", str(lone), "x")
        assert "is a pickle" in told and f"torch.load('{lone}', weights_only=True)" in told
        with pytest.raises(ValueError, match="is a pickle"):
            models.from_pretrained(lone)
        with pytest.raises(FileNotFoundError, match="is a pickle"):
            models.from_pretrained(whole)


def test_hidden_files_are_no_documents(tmp_path, capsys):
    for name in (".hidden.txt", ".git/a.txt", "sub/.x/b.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("hidden")
    assert "no .txt file" in complaint(capsys, "train", "--data", str(tmp_path))
    for name in ("a.txt", "sub/b.TXT"):
        (tmp_path / name).write_text("a text")
    from minillm.data import text_files

    assert text_files(tmp_path) == [tmp_path / "a.txt", tmp_path / "sub/b.TXT"]
    assert text_files(tmp_path / ".hidden.txt") == [tmp_path / ".hidden.txt"]


# ---- the process -----------------------------------------------------------------------------------------------------

INTERRUPTED = """
import builtins, os, runpy, signal, sys
real = builtins.__import__
def interrupt(name, globals=None, locals=None, fromlist=(), level=0):
    if {where!r} == name or {where!r} in (fromlist or ()):
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = interrupt
sys.argv = ["minillm", *{arguments!r}]
runpy.run_module("minillm", run_name="__main__")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("where", ["argparse", "encode", "numpy", "tqdm"])
def test_an_interrupt_while_things_are_imported_is_one_line(where, folder):
    arguments = ["eval", str(folder), "--data", str(folder.parent / "text.txt")]
    code = INTERRUPTED.format(where=where, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "minillm: interrupted\n") and "loss" not in done.stdout


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "minillm", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and re.fullmatch(r"minillm \d+\.\d+\.\d+\n", done.stdout)


def test_wrong_threads_are_not_blamed_on_a_file(folder):
    for command in (["tokenize", str(folder), "abc"], ["generate", str(folder), "abc"]):
        done = subprocess.run([sys.executable, "-m", "minillm", *command], capture_output=True, text=True,
                              env=os.environ | {"MINILLM_THREADS": "abc"})  # fmt: skip
        told = "minillm: MINILLM_THREADS must be a positive integer; got 'abc'\n"
        assert (done.returncode, done.stderr, done.stdout) == (2, told, "")


def test_trainings_without_a_name_get_folders_of_their_own(tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    from minillm.cli.train import _new_folder

    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: str(_new_folder("x")), range(16)))
    assert sorted(made) == sorted(["runs/x", *(f"runs/x-{i}" for i in range(2, 17))])


def test_pictures_of_runs_with_any_name(tmp_path, recwarn):
    pytest.importorskip("matplotlib")
    from minillm.training.plot import plot_loss
    from minillm.training.quantize_run import plot_errors

    records = [{"step": i, "loss": 2.0 / i, "val_loss": None, "floor": None} for i in range(1, 9)]
    plot_loss(records, tmp_path / "loss.png", title="日本 🐈 run")
    plot_errors({"h.0.mlp.weight": 0.1, "wte.weight": 0.2}, tmp_path / "errors.png", title="日本 🐈 run")
    assert not [str(w.message) for w in recwarn if "lyph" in str(w.message)]


@pytest.mark.parametrize("layers", [1, 2, 40])
def test_layers_of_a_picture_are_whole_numbers(layers, tmp_path):
    figure = pytest.importorskip("matplotlib.figure")
    from minillm.training.quantize_run import plot_errors

    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure.Figure, "savefig", lambda self, *a, **k: shown.append(self))
        plot_errors({f"h.{i}.mlp.weight": 0.1 + i / 100 for i in range(layers)}, tmp_path / "x.png")
    ticks = shown[0].axes[0].get_xticks()
    assert np.array_equal(ticks, ticks.astype(int)) and ticks[0] == 0 and len(ticks) <= 20
    assert ticks[-1] > layers - 4
