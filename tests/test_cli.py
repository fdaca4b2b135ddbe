"""The command line as a person types it: what works, and one clear line for each mistake."""

import importlib.util
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from minillm import models
from minillm.cli import main
from minillm.tokenizer import BPETokenizer, UnigramTokenizer

TINY = "--tokenizer char --layers 1 --heads 2 --width 16 --context 16 --batch-size 4 --steps 6".split()


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log. " * 40)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("the cat sat on the mat and the dog sat on the log. " * 40)
    assert main(["train", "--data", str(folder / "text.txt"), "--out", str(folder / "run"), *TINY]) == 0
    return folder / "run"


def complaint(capsys, *arguments: str) -> str:
    """The one line that a mistake gets."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("minillm: ") and "warning" not in line]
    assert len(lines) == 1 and "Traceback" not in captured.err
    return lines[0]


# ---- what works ------------------------------------------------------------------------------------------------------


def test_a_run_leaves_everything_behind(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "log.jsonl", "checkpoints",
            "README.md"} <= names  # fmt: skip
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert {"step", "loss", "val_loss", "floor", "tokens_per_s", "lr", "grad_norm"} <= last.keys()
    assert last["step"] == 6 and last["floor"] is None and last["val_loss"] > 0
    assert "6" in (run / "README.md").read_text()


@pytest.mark.parametrize(
    "kind, tokenizer",
    [("llama", "char"), ("gpt2", "bpe"), ("rnn", "char"), ("rnn", "bpe"), ("gru", "unigram"), ("lstm", "char")],
)
def test_every_model_and_tokenizer(kind, tokenizer, text, tmp_path, capsys):
    options = [*TINY, "--tokenizer", tokenizer, "--vocab-size", "270"]
    if kind in ("rnn", "gru", "lstm"):
        options = [option for option in options if option not in ("--heads", "2")]
    assert main(["train", "--data", str(text), "--model", kind, "--out", str(tmp_path / "run"), *options]) == 0
    assert main(["generate", str(tmp_path / "run"), "the ", "--max-new-tokens", "5", "--temperature", "0"]) == 0
    captured = capsys.readouterr()
    assert "the " in captured.out and "[length: --max-new-tokens was reached, after 5 tokens" in captured.err


def test_stories_with_their_floor(tmp_path, capsys):
    sizes = "--layers 1 --heads 2 --width 16 --context 64 --batch-size 4 --steps 4 --vocab-size 400".split()
    assert main(["train", "--out", str(tmp_path / "run"), *sizes]) == 0
    captured = capsys.readouterr()
    assert "above the floor of" in captured.err and captured.out.strip()
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert 0.3 < last["floor"] < last["val_loss"]
    assert main(["eval", str(tmp_path / "run")]) == 0
    figures = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(figures["loss"]) == pytest.approx(last["val_loss"], abs=1e-4)
    assert float(figures["above_floor"]) == pytest.approx(last["val_loss"] - last["floor"], abs=1e-3)


def test_the_same_seed_gives_the_same_text(run, capsys):
    texts = []
    for seed in ("1", "1", "2"):
        assert main(["generate", str(run), "the", "--seed", seed, "--max-new-tokens", "30"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_generation_options(run, capsys):
    options = "--temperature 0.5 --top-k 3 --top-p 0.9 --min-p 0.01 --repetition-penalty 1.1 --seed 3".split()
    stops = [option for letter in "theca sondmlg." for option in ("--stop", letter)]
    assert main(["generate", str(run), "the", "--max-new-tokens", "400", *stops, *options]) == 0
    captured = capsys.readouterr()
    assert "[stop: a stop string came up, after 1 tokens" in captured.err and captured.out == "the\n"


def test_eval_and_info(run, text, capsys):
    assert main(["eval", str(run), "--data", str(text)]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {
        "loss", "perplexity", "bits_per_byte", "tokens", "tokens_per_s"}  # fmt: skip
    assert main(["info", str(run)]) == 0
    told = capsys.readouterr().out
    rows = dict(re.split(r" {2,}", line, maxsplit=1) for line in told.splitlines() if not line.startswith("  "))
    model = models.from_pretrained(run)
    assert rows["architecture"].startswith("Llama") and rows["parameters"] == f"{model.num_parameters():,}"
    parts = re.findall(r"^  (\S+) +([\d,]+) +([\d.]+)%$", told, re.MULTILINE)
    assert [kind for kind, _, _ in parts] == ["embedding", "attention", "mlp", "norms"]
    assert sum(int(count.replace(",", "")) for _, count, _ in parts) == model.num_parameters()
    assert sum(float(share) for _, _, share in parts) == pytest.approx(100, abs=0.2)
    c = model.config
    each = 4 * 2 * c.num_hidden_layers * c.kv_heads * c.D
    assert rows["cache"] == f"{each:,} bytes for each token of a text, in float32"
    assert rows["special tokens"] == "<|endoftext|> = 0" and rows["stops at"] == "<|endoftext|> (0)"
    assert main(["info"]) == 0
    assert "numba" in capsys.readouterr().out


def test_tokenize_a_run_or_a_file(run, tmp_path, capsys, monkeypatch):
    def shown(*options: str) -> str:
        assert main(["tokenize", *options]) == 0
        captured = capsys.readouterr()
        assert not captured.err
        return captured.out

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown(str(run), "the cat").startswith("t|h|e| |c|a|t\n")
    assert "has no merges" in shown(str(run), "the cat", "--merges")
    bpe = str(BPETokenizer.train(["low low lower"], 260).save(tmp_path / "bpe.json"))
    piped = shown(bpe, "low lower")
    assert piped.startswith("low| low|e|r\n") and "   259      4  ' low'\n" in piped and "\x1b" not in piped
    assert piped.endswith("4 tokens, 9 bytes, 9 characters: 2.25 bytes per token\n")
    assert "  ␣ low    merge 1: lo + w\n  ␣low     merge 2: ␣ + low\n" in shown(bpe, "a low", "--merges")
    pieces = [("<unk>", 0.0), ("▁a", -2.0), ("b", -3.0), ("▁", -4.0), ("ab", -1.5), ("a", -4.0)]
    unigram = str(UnigramTokenizer(pieces, 0).save(tmp_path / "unigram"))
    assert shown(unigram, "ab").startswith(" a|b\n") and "best:" not in shown(unigram, "ab")
    lattice = shown(unigram, "ab", "--lattice")
    assert "'▁ab', best: ▁a b (log-probability -5.00)\n" in lattice and "\n  * ▁a     -2.00\n" in lattice
    assert lattice == shown(str(tmp_path / "unigram"), "ab", "--merges")  # one switch with two names
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    colored = shown(bpe, "low lower")
    assert "\x1b[30;48;5;" in colored and colored.split("\n\n")[1:] == piped.split("\n\n")[1:]
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(bpe, "low lower") == piped


def test_output_that_nobody_reads_ends_a_command_quietly(run, tmp_path):
    bpe = str(BPETokenizer.train(["low low lower"], 260).save(tmp_path / "bpe.json"))
    commands = (
        ["tokenize", bpe, "low lower "], ["tokenize", bpe, "low lower " * 5000], ["info"], ["info", str(run)],
        ["eval", str(run)], ["generate", str(run), "the"], ["--help"], ["train", "--help"],
    )  # fmt: skip
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    buffered["MINILLM_KERNELS"] = "numpy"  # they are loaded sooner
    for arguments in commands:
        child = subprocess.Popen(
            [sys.executable, "-m", "minillm.cli", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered,
        )  # fmt: skip
        child.stdout.close()  # before anything is written
        told = child.stderr.read()
        child.stderr.close()
        assert (child.wait(60), [line for line in told.splitlines() if not line.startswith("[")]) == (141, []), (
            arguments
        )


LETTERS = "the cat sat ▁ ünd 🐈 日本 on the mat. "


@pytest.fixture(scope="module")
def many_letters(tmp_path_factory):
    """A run whose text and whose samples have letters that few encodings have."""
    folder = tmp_path_factory.mktemp("letters")
    (folder / "text.txt").write_text(LETTERS * 40, encoding="utf-8")
    assert main(["train", "--data", str(folder / "text.txt"), "--out", str(folder / "run"), *TINY]) == 0
    return folder / "run"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_replaced_and_the_rest_is_there(many_letters, encoding, monkeypatch, capsys):
    """Each command writes as much as it would in UTF-8, and ends as well."""
    prompt = "日本 cat ▁ ünd"
    commands = (
        ["generate", str(many_letters), prompt, "--max-new-tokens", "2", "--seed", "1"],
        ["tokenize", str(many_letters), prompt],
        ["info", str(many_letters)],
        ["tokenize", str(many_letters), "☃"],  # a mistake, and its one line
        ["--help"],
    )
    for arguments in commands:
        codes, outputs = [], []
        for name in ("utf-8", encoding):
            streams = {which: io.TextIOWrapper(io.BytesIO(), name) for which in ("stdout", "stderr")}
            with monkeypatch.context() as patch:
                for which, stream in streams.items():
                    patch.setattr(sys, which, stream)
                try:
                    codes.append(main(arguments))
                except SystemExit as ended:
                    codes.append(ended.code)
            assert streams["stdout"].errors == "strict", "as it was before"
            outputs.append([stream.buffer.getvalue().decode(name) for stream in streams.values() if not stream.flush()])
        assert codes[0] == codes[1]
        for expected, shown in zip(*outputs, strict=True):
            timeless = [re.sub(r"at [\d,]+ a second", "", text) for text in (expected, shown)]
            assert timeless[0].encode(encoding, "replace").decode(encoding) == timeless[1]
        assert outputs[0] != ["", ""]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>&- | head -c 0"])
def test_a_training_succeeds_without_anybody_to_tell(text, tmp_path, closed):
    command = shlex.join([
        sys.executable, "-m", "minillm.cli", "train", "--data", str(text), "--out", str(tmp_path / "run"), *TINY
    ])  # fmt: skip
    shell = ["bash", "-c", f"{command} {closed}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(shell, env=os.environ | {"MINILLM_KERNELS": "numpy"}, timeout=300)
    assert done.returncode == (141 if "|" in closed else 0)
    assert (tmp_path / "run" / "README.md").exists() and models.from_pretrained(tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 6, "nothing else was written into the files"


@pytest.mark.parametrize("name", ["Ba$$in", "nan $_$", "caf\udce9", "🐈", "-x", "it's 100%", "two\nlines", "a_b^c{"])
def test_a_name_never_ends_a_run(text, tmp_path, name, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir(name)
    os.rename(text, os.path.join(name, "text.txt"))
    run = os.path.join(name, "run $x^ \udce9")
    assert main(["train", f"--data={os.path.join(name, 'text.txt')}", f"--out={run}", *TINY, "--tokenizer", "bpe"]) == 0
    err = capsys.readouterr().err
    assert "warning: LossPlot" not in err and "failed" not in err
    assert {"README.md", "training.json", "model.safetensors"} <= set(os.listdir(run))
    assert os.path.exists(os.path.join(run, "loss.png")) == (importlib.util.find_spec("matplotlib") is not None)
    again = next(line for line in err.splitlines() if line.startswith("more: minillm generate"))
    arguments = again.removeprefix("more: minillm generate ")
    shell = subprocess.run(["bash", "-c", f"printf '%s\\0' {arguments}"], capture_output=True, check=True)
    words = shell.stdout.split(b"\0")
    assert os.path.samefile(os.fsdecode(words[0]), run) and len(words) == 3
    assert main(["eval", os.path.join(".", run)]) == 0, "training.json holds the name of the text"
    assert main(["train", f"--out={run}", "--resume"]) == 0


def test_resume_is_the_same_run(text, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["train", "--data", str(text), "--out", str(whole), *TINY, "--steps", "30"]) == 0
    child = subprocess.Popen(
        [sys.executable, "-m", "minillm.cli", "train", "--data", str(text), "--out", str(cut), *TINY, "--steps", "30"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MINILLM_THREADS": "1"},
    )
    log, deadline = cut / "log.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.stat().st_size):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=120)
    if child.returncode:  # it was quick enough to be interrupted
        assert child.returncode == 130 and f"minillm train --out {cut} --resume" in err
        assert main(["train", "--out", str(cut), "--resume"]) == 0
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_run_is_extended_moved_and_never_spoilt(text, tmp_path, capsys):
    """--steps and --data; another text, text that is gone and checkpoints that are gone are refused before any work."""
    folder, resume = tmp_path / "run", ["train", "--out", str(tmp_path / "run"), "--resume"]
    assert main(["train", "--data", str(text), "--out", str(folder), *TINY]) == 0
    card, weights = (folder / "README.md").read_text(), (folder / "model.safetensors").read_bytes()
    sample = card.split("## A sample")[1].split("##")[0]
    assert main(resume) == 0, "a finished run"
    assert (folder / "README.md").read_text().split("## A sample")[1].split("##")[0] == sample != "None was drawn."
    assert (folder / "model.safetensors").read_bytes() == weights

    capsys.readouterr()
    assert "has done 6 steps already; --steps must be above that; got 6" in complaint(capsys, *resume, "--steps", "6")
    assert main([*resume, "--steps", "9"]) == 0
    assert re.search(r"steps was 6, now 9, so the learning rate goes on at \S+, not \S+", capsys.readouterr().err)
    settings = json.loads((folder / "training.json").read_text())["settings"]
    assert settings["steps"] == 9 and (folder / "checkpoints" / "step-00000009").exists()

    moved, original = tmp_path / "elsewhere.txt", text.read_text()
    text.rename(moved)
    told = complaint(capsys, *resume)
    assert f"{text}, the text of the run, is not there" in told and f"--out {folder} --resume --data PATH" in told
    assert "is not there: give a text with --data" in complaint(capsys, "eval", str(folder))
    assert main([*resume, "--data", str(moved), "--steps", "10"]) == 0
    assert main(["eval", str(folder)]) == 0, "it knows where the text is now"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for changed in (original.replace("cat", "dog"), original + "the end. "):
        moved.write_text(changed)
        for command in (resume, [*resume, "--steps", "12"], [*resume, "--data", str(moved)], ["eval", str(folder)]):
            assert "the text is no longer the one that the run was trained on" in complaint(capsys, *command)
    moved.write_text(original)
    (folder / "checkpoints").rename(tmp_path / "checkpoints")
    assert "no checkpoint to go on from, though a model was saved" in complaint(capsys, *resume)
    (tmp_path / "checkpoints").rename(folder / "checkpoints")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_of_an_old_version_goes_on(text, tmp_path):
    """Its training.json has no hash of the text; the first resumption notes it."""
    folder = tmp_path / "run"
    assert main(["train", "--data", str(text), "--out", str(folder), *TINY]) == 0
    content = json.loads((folder / "training.json").read_text())
    sha256 = content.pop("sha256")
    (folder / "training.json").write_text(json.dumps(content))
    assert main(["train", "--out", str(folder), "--resume", "--steps", "8"]) == 0
    assert json.loads((folder / "training.json").read_text())["sha256"] == sha256


def test_encode_and_train_on_what_it_made(text, tmp_path, capsys):
    shards, tiny = tmp_path / "shards", [option for option in TINY if option not in ("--tokenizer", "char")]
    assert main(["encode", str(text), str(shards), "--vocab-size", "270"]) == 0
    told = capsys.readouterr()
    assert "learned 270 tokens" in told.err and f"minillm train --data {shards}" in told.err and not told.out
    assert {path.name for path in shards.iterdir()} == {
        "tokenizer.json", "tokenizer_config.json", "train-00000.tokens", "validation-00000.tokens"}  # fmt: skip
    assert main(["train", "--data", str(shards), "--out", str(tmp_path / "run"), *tiny]) == 0
    assert "shards: 2 documents, encoded; 270 tokens in the vocabulary" in capsys.readouterr().err
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == (shards / "tokenizer.json").read_bytes()
    losses = []
    for data in ([], ["--data", str(shards)]):
        assert main(["eval", str(tmp_path / "run"), *data]) == 0
        losses.append(capsys.readouterr().out.splitlines()[0])
    assert losses[0] == losses[1] and losses[0].startswith("loss")
    # the tokenizer of a run, again
    assert main(["encode", str(text), str(tmp_path / "again"), "--tokenizer", str(tmp_path / "run")]) == 0
    for name in ("train", "validation"):
        file = f"{name}-00000.tokens"
        assert (tmp_path / "again" / file).read_bytes() == (shards / file).read_bytes()


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_data_that_cannot_be_read(tmp_path, capsys):
    empty, latin, short = tmp_path / "empty.txt", tmp_path / "latin.txt", tmp_path / "short.txt"
    empty.write_text("")
    latin.write_bytes(b"abc\xe9def")
    short.write_text("too short")
    out = ["--out", str(tmp_path / "run"), *TINY]
    assert "no such file" in complaint(capsys, "train", "--data", str(tmp_path / "none.txt"), *out)
    assert "no text" in complaint(capsys, "train", "--data", str(empty), *out)
    assert "latin.txt is not UTF-8: byte 0xe9 at offset 3" in complaint(capsys, "train", "--data", str(latin), *out)
    assert "shorter than one context" in complaint(capsys, "train", "--data", str(short), *out)
    (tmp_path / "folder").mkdir()
    assert "no .txt file" in complaint(capsys, "train", "--data", str(tmp_path / "folder"), *out)
    assert not (tmp_path / "run").exists()


def test_settings_that_make_no_sense(text, tmp_path, capsys):
    def refused(*options: str) -> str:
        return complaint(capsys, "train", "--data", str(text), "--out", str(tmp_path / "run"), *options)

    assert "at least 257" in refused("--vocab-size", "200")
    assert "width must be divisible by heads; got width 100, heads 3" in refused("--width", "100", "--heads", "3")
    assert "steps must be at least 1; got 0" in refused("--steps", "0")
    assert "did you mean gpt2?" in refused("--model", "gpt")
    assert "did you mean --steps?" in refused("--step-s", "3")
    assert "--steps must be a whole number; got 'many'" in refused("--steps", "many")
    assert "--learning-rate must be a number; got 'nan'" in refused("--learning-rate", "nan")
    assert "threads" in refused("--threads", "0")


def test_run_folders_are_never_overwritten(run, text, tmp_path, capsys):
    before = (run / "model.safetensors").read_bytes()
    told = complaint(capsys, "train", "--data", str(text), "--out", str(run))
    assert "exists already" in told and "--resume" in told
    assert (run / "model.safetensors").read_bytes() == before
    assert "leave --width out" in complaint(capsys, "train", "--out", str(run), "--resume", "--width", "9")
    assert "needs --out" in complaint(capsys, "train", "--resume")
    assert "no such run" in complaint(capsys, "train", "--out", str(tmp_path / "none"), "--resume")


def test_folders_that_are_damaged_or_not_ours(run, tmp_path, capsys):
    assert "no such run folder" in complaint(capsys, "generate", str(tmp_path / "none"), "x")
    assert "not a run folder" in complaint(capsys, "generate", str(tmp_path), "x")
    for name, damage in (("config.json", b"{"), ("model.safetensors", b"\x08"), ("tokenizer.json", b"[]")):
        copy = tmp_path / name.replace(".", "-")
        copy.mkdir()
        for file in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
            (copy / file).write_bytes(damage if file == name else (run / file).read_bytes())
        assert name in complaint(capsys, "generate", str(copy), "x")


def test_prompts_and_parameters(run, capsys):
    told = complaint(capsys, "generate", str(run), "the cat " * 10)
    assert "16" in told and "80" in told  # the context, and the prompt with its beginning of text
    assert "--tmp" in complaint(capsys, "generate", str(run), "--tmp", "1", "the")
    assert "more" in complaint(capsys, "generate", str(run), "the", "--seed", "1", "more")
    assert "--top-p must be at most 1; got 7" in complaint(capsys, "generate", str(run), "the", "--top-p", "7")
    told = complaint(capsys, "generate", str(run), "the", "--temperature", "-1")
    assert "--temperature must be at least 0; got -1" in told
    assert "give a text with --data" not in complaint(capsys, "eval", str(run), "--data", "nowhere")


def test_tokenizers_that_are_not_there(run, tmp_path, capsys):
    assert "no tokenizer at" in complaint(capsys, "tokenize", str(tmp_path / "none"), "x")
    assert "no tokenizer at" in complaint(capsys, "tokenize", str(tmp_path), "x")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in complaint(capsys, "tokenize", str(tmp_path), "x")
    assert "got '#'" in complaint(capsys, "tokenize", str(run), "a # b")
    assert "did you mean --merges?" in complaint(capsys, "tokenize", str(run), "x", "--merge-s")


def test_mistakes_of_encode(run, text, tmp_path, capsys):
    def refused(*options: str) -> str:
        return complaint(capsys, "encode", *options)

    out = str(tmp_path / "shards")
    latin, odd = tmp_path / "latin.txt", tmp_path / "odd.txt"
    latin.write_bytes(b"abc abc abc\xe9def")
    odd.write_text("the cat # sat on the mat")
    assert "no such file" in refused(str(tmp_path / "none.txt"), out)
    assert "byte 0xe9 at offset 11" in refused(str(latin), out)
    assert "got '#'" in refused(str(odd), out, "--tokenizer", str(run))
    assert "no tokenizer at" in refused(str(text), out, "--tokenizer", str(tmp_path / "none"))
    assert "leave it out" in refused(str(text), out, "--tokenizer", str(run), "--vocab-size", "300")
    assert "at least 257" in refused(str(text), out, "--vocab-size", "0")
    assert "at most 0.5; got 0.9" in refused(str(text), out, "--validation", "0.9")
    assert not list(tmp_path.glob("shards*"))
    (tmp_path / "shards").mkdir()
    assert "exists already" in refused(str(text), out)


def test_shards_that_are_damaged_or_do_not_fit(text, tmp_path, capsys):
    shards, out = tmp_path / "shards", ["--out", str(tmp_path / "run"), "--steps", "1"]
    assert main(["encode", str(text), str(shards), "--vocab-size", "260"]) == 0
    assert "leave tokenizer and vocab_size out" in complaint(
        capsys, "train", "--data", str(shards), "--vocab-size", "300", *out
    )
    assert "longer than one context" in complaint(capsys, "train", "--data", str(shards), "--context", "9999", *out)
    words = (shards / "tokenizer.json").read_text()
    (shards / "tokenizer.json").write_text(words.replace("<|endoftext|>", "<|end|>"))
    assert "encoded by another tokenizer" in complaint(capsys, "train", "--data", str(shards), *out)
    (shards / "tokenizer.json").write_text(words)
    file = shards / "train-00000.tokens"
    file.write_bytes(file.read_bytes()[:-8])
    assert "train-00000.tokens must have" in complaint(capsys, "train", "--data", str(shards), *out)
    file.unlink()
    assert "no train-*.tokens" in complaint(capsys, "train", "--data", str(shards), *out)
    assert not (tmp_path / "run").exists()


def test_no_command_and_a_wrong_one(capsys):
    assert "did you mean train?" in complaint(capsys, "trian")
    for arguments, told in ([], "let a model continue a text"), (["train", "--help"], "made-up stories"):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        assert done.value.code == 0 and told in " ".join(capsys.readouterr().out.split())
