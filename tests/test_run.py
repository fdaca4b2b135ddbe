"""The run folder: nothing is overwritten, nothing damaged is taken for good, the card says what was measured."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from minillm import files, models, nn
from minillm.cli import main
from minillm.data import StreamDataset
from minillm.generation import GenerationConfig
from minillm.tokenizer import BPETokenizer, CharTokenizer
from minillm.training.evaluate import Evaluation
from minillm.training.run import Run, load_run
from minillm.training.trainer import TrainConfig, Trainer, TrainResult
from tests.tiny_training import tiny_ids, tiny_model, tiny_trainer

TEXT = "a rose is a rose is a rose. " * 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, to be read only."""
    folder = tmp_path_factory.mktemp("runs") / "roses"
    tokenizer = CharTokenizer.train([TEXT])
    config = models.GPT2Config(vocab_size=tokenizer.vocab_size, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    run = Run.create(folder, settings={"data": "roses.txt"}, about="Roses, twenty times.")
    model = models.GPT2(config, rng=0)
    trainer = Trainer(
        model,
        np.array(tokenizer.encode(TEXT)),
        TrainConfig(steps=20, evaluate_every=10),
        tokenizer=tokenizer,
        run=run,
        floor=0.25,
        sample=lambda model: "a rose is\na rose",
        quiet=True,
    )
    return folder, trainer, trainer.run()


def test_a_finished_run_has_all_its_files_and_opens_again(finished):
    folder, trainer, result = finished
    names = {path.name for path in folder.iterdir()} - {"loss.png"}
    assert names == {
        "README.md", "checkpoints", "config.json", "generation_config.json", "log.jsonl", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json", "training.json",
    }  # fmt: skip
    model, tokenizer, generation = load_run(folder)
    x = np.array([tokenizer.encode("a rose")])
    assert np.array_equal(model(x).data, trainer.model.eval()(x).data)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    begin = {"bos_token_id": tokenizer.encode(".")[0], "add_bos": False}  # the text has no line break
    assert generation == GenerationConfig(eos_token_id=tokenizer.eos_id, **begin)
    run = Run.open(folder)
    assert run.settings == {"data": "roses.txt"} and run.about == "Roses, twenty times."
    assert run.records() == trainer.history


def test_the_model_card(finished):
    folder, trainer, result = finished
    card = (folder / "README.md").read_text()
    assert card.startswith("# roses\n\nA language model of ")
    assert f"{trainer.model.num_parameters():,} parameters (GPT2)" in card
    assert f"| validation loss | {result.val_loss:.4f} |" in card
    assert "| floor: the entropy of the text, no model can do better | 0.2500 |" in card
    assert f"| above the floor | {result.val_loss - 0.25:.4f} |" in card
    assert "> a rose is\n> a rose" in card
    assert "All 20 steps were done." in card and "Roses, twenty times." in card
    assert "| learning_rate | 0.001 |" in card and "| n_embd | 8 |" in card and "| warmup | automatic |" in card
    assert f"minillm generate {folder}" in card and "--resume" not in card
    assert (
        ("loss.png" in card) == (folder / "loss.png").exists() == (importlib.util.find_spec("matplotlib") is not None)
    )


def test_the_card_of_an_interrupted_run_without_figures(tmp_path, finished):
    run = Run.create(tmp_path / "my run", settings={"data": "roses.txt"})
    (run.path / "loss.png").touch()
    result = TrainResult(3, 10, "Ctrl-C", 2.5, None, 300, 4000.0, resume_command=run.resume_command)
    run.write_card(finished[1], result)
    card = (run.path / "README.md").read_text()
    assert "After step 3 of 10: Ctrl-C. It can go on, see below." in card and "1 h 6 min" in card
    assert f"\nminillm train --out '{run.path}' --resume\n" in card
    assert "![The loss while training](loss.png)" in card and "validation" not in card.split("## A sample")[0]
    result = TrainResult(10, 10, "finished", 2.5, Evaluation(1.0, 5, 1.0), 300, 61.0)
    run.write_card(finished[1], result)
    assert "1 min 1 s; perplexity 2.72." in (run.path / "README.md").read_text()


def test_a_folder_that_exists_is_never_overwritten(tmp_path):
    (tmp_path / "empty").mkdir()
    Run.create(tmp_path / "empty", settings={"data": "roses.txt"})
    with pytest.raises(
        FileExistsError, match="exists already, .* or go on with: minillm train --out .*empty --resume$"
    ):
        Run.create(tmp_path / "empty")
    Run.create(tmp_path / "by hand")
    with pytest.raises(FileExistsError, match=r"go on with: trainer = Trainer\(..., run=Run.open\('.*by hand'\)\)"):
        Run.create(tmp_path / "by hand")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        FileExistsError, match="file exists already, and nothing in it is overwritten: .* another name$"
    ):
        Run.create(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_user_s_generation_settings_stay(tmp_path, finished):
    run = Run.create(tmp_path / "run")
    GenerationConfig(temperature=0.5).save(run.path)
    run.save_model(finished[1].model, None)
    assert GenerationConfig.load(run.path).temperature == 0.5


def test_the_log_is_cut_where_the_run_goes_on(tmp_path):
    run = Run.create(tmp_path / "run")
    assert run.records() == [] and run.cut_log(0) == []
    for step in (1, 10, 20, 30):
        run.log({"step": step, "loss": 1.0 / 3.0})
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"step": 40, "lo')  # a crash in the middle of a line
    assert [record["step"] for record in run.records()] == [1, 10, 20, 30]
    assert [record["step"] for record in run.cut_log(20)] == [1, 10, 20]
    run.log({"step": 30, "loss": 0.1})
    lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 10, 20, 30] and lines[0]["loss"] == 1.0 / 3.0
    with pytest.raises(ValueError):
        run.log({"loss": float("nan")})
    (run.path / "log.jsonl").write_text('{"step": 1}\nbroken\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"log.jsonl, line 2: not valid JSON"):
        run.records()


def test_what_is_no_run_folder(tmp_path, finished):
    with pytest.raises(FileNotFoundError, match="nowhere: no such run folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere: no such run folder"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="photos is not a run folder: it has no training.json"):
        Run.open(tmp_path / "photos")
    with pytest.raises(ValueError, match=r"photos is not a run folder: it has no config.json \(the configuration\)"):
        load_run(tmp_path / "photos")
    (tmp_path / "photos" / "training.json").write_text('{"settings": [], "about": ""}')
    with pytest.raises(ValueError, match="expected the entries 'settings'.*train anew, in another folder$"):
        Run.open(tmp_path / "photos")
    (tmp_path / "photos" / "training.json").write_text('{"settings": {"da')  # half of it was written
    with pytest.raises(ValueError, match="training.json: .*; without it the training cannot .* in another folder$"):
        Run.open(tmp_path / "photos")
    (tmp_path / "photos" / "model.safetensors").touch()
    with pytest.raises(ValueError, match="the model that lies there can be used once training.json is deleted"):
        Run.open(tmp_path / "photos")
    with pytest.raises(ValueError, match="notes.txt is not a run folder: it is a file"):
        (tmp_path / "notes.txt").write_text("a text")
        load_run(tmp_path / "notes.txt")
    Run.create(tmp_path / "killed", settings={"data": "roses.txt"})
    with pytest.raises(ValueError, match="no config.json: the training ended before it was saved; go on with: minillm"):
        load_run(tmp_path / "killed")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"])
def test_a_damaged_file_is_named(tmp_path, finished, name):
    for source in finished[0].iterdir():
        if source.is_file():
            (tmp_path / source.name).write_bytes(source.read_bytes())
    whole = (tmp_path / name).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:-3] + b"\x00\xff}", b"\xff" + whole[1:]):
        (tmp_path / name).write_bytes(damaged)
        if damaged[:-3] == whole[:-3] and name == "model.safetensors":
            continue  # three other bytes of weights are weights too
        with pytest.raises(ValueError, match=name):
            load_run(tmp_path)


def test_a_tokenizer_of_another_model(tmp_path, finished):
    for source in finished[0].iterdir():
        if source.is_file():
            (tmp_path / source.name).write_bytes(source.read_bytes())
    CharTokenizer.train([TEXT + "and many other letters, xyz!"]).save(tmp_path)
    with pytest.warns(UserWarning, match=r"the tokenizer has \d+ tokens, the model only \d+: if they do not belong"):
        load_run(tmp_path)


def test_plain_dataset_sizes_stand_in_the_card(tmp_path):
    data = StreamDataset(np.arange(90) % 10, np.arange(20) % 10, context=8)
    model = models.GPT2(models.GPT2Config(vocab_size=10, n_positions=8, n_embd=8, n_layer=1, n_head=2), rng=0)
    Trainer(model, data, TrainConfig(steps=2), run=tmp_path / "run", quiet=True).run()
    assert "89 tokens to learn from, 19 held out." in (tmp_path / "run" / "README.md").read_text()


def test_the_two_files_of_gpt2_instead_of_tokenizer_json(tmp_path, capsys):
    """Every command reads them."""
    tokenizer = BPETokenizer.train([TEXT], 280)
    model = models.GPT2(models.GPT2Config(tokenizer.vocab_size, 16, 8, 1, 2, bos_token_id=None, eos_token_id=None), 0)
    model.save_pretrained(tmp_path / "gpt2")
    content = tokenizer.to_json()
    vocab = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    (tmp_path / "gpt2" / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(ValueError, match="gpt2 is not a run folder: .*merges.txt"):
        load_run(tmp_path / "gpt2")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    (tmp_path / "gpt2" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    loaded = load_run(tmp_path / "gpt2")
    assert loaded.tokenizer.encode(TEXT) == tokenizer.encode(TEXT)
    assert loaded.tokenizer.eos_id == tokenizer.eos_id is not None
    (tmp_path / "text.txt").write_text(TEXT * 9)
    assert_every_command_reads(tmp_path / "gpt2", tmp_path, capsys)
    assert {"vocab.json", "merges.txt"} <= {path.name for path in (tmp_path / "gpt2-int8").iterdir()}


@pytest.mark.parametrize(
    "says",
    [
        {"config.json": {"eos_token_id": 3}},
        {"config.json": {"eos_token_id": [3, 5]}},
        {"config.json": {}, "tokenizer_config.json": {"eos_token": "<end>"}},
        {"config.json": {}, "generation_config.json": {"eos_token_id": [3]}},
    ],
    ids=lambda says: " ".join(says),
)
def test_a_folder_that_alone_knows_the_end_of_a_text(tmp_path, capsys, says):
    tokenizer = CharTokenizer.train([TEXT], special_tokens=("<pad>", "<a>", "<b>", "<end>"))
    assert tokenizer.eos_id is None and tokenizer.special_tokens["<end>"] == 3
    model = models.GPT2(models.GPT2Config(tokenizer.vocab_size, 16, 8, 1, 2, bos_token_id=None, eos_token_id=None), 0)
    model.save_pretrained(tmp_path / "model", tokenizer=tokenizer)
    for name, fields in says.items():
        path = tmp_path / "model" / name
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | fields))
    assert load_run(tmp_path / "model").tokenizer.eos_id == 3
    (tmp_path / "text.txt").write_text(TEXT * 9)
    assert_every_command_reads(tmp_path / "model", tmp_path, capsys)


def assert_every_command_reads(folder, tmp_path, capsys):
    text = str(tmp_path / "text.txt")
    for command in (
        ["eval", str(folder), "--data", text],
        ["encode", text, str(tmp_path / "ids"), "--tokenizer", str(folder)],
        ["quantize", str(folder), "--data", text],
        ["generate", str(folder), "a rose", "--max-new-tokens", "3"],
        ["info", str(folder)],
    ):
        assert main(command) == 0, (command, capsys.readouterr().err)


# ---- one training at a time ------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from minillm.training.run import Run
with Run.open(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_two_processes_never_train_in_one_folder(tmp_path):
    run = Run.create(tmp_path / "run")
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout.readline() == "locked\n"
        message = f"run is being trained already, by process {other.pid}: wait until it has ended"
        for refused in (tiny_trainer(run, steps=2).run, tiny_trainer(run, steps=2).resume):
            with pytest.raises(BlockingIOError, match=message):
                refused()
        assert main(["train", "--out", str(run.path), "--resume"]) == 2
        other.kill()  # kill -9: the file stays, and means nothing
    assert (run.path / "training.lock").read_text() == f"{other.pid}\n"
    assert tiny_trainer(run, steps=2).run().stopped == "finished"
    assert not (run.path / "training.lock").exists()


def test_a_lock_is_one_per_run_and_let_go_of_after_a_failure(tmp_path):
    run = Run.create(tmp_path / "run")
    with run.lock(), run.lock():
        with pytest.raises(BlockingIOError, match=f"by process {os.getpid()}"):
            Run.open(run.path).lock().__enter__()
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    for leftover in ("", "999999999\n", f"{os.getpid()}\n", "not a number"):
        (run.path / "training.lock").write_text(leftover)
        with Run.open(run.path).lock():
            assert (run.path / "training.lock").read_text() == f"{os.getpid()}\n"
        assert not (run.path / "training.lock").exists()


def test_what_was_trained_is_not_begun_anew(tmp_path):
    folder = tmp_path / "run"
    tiny_trainer(folder, steps=4).run()
    weights = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"holds a model already, which would be overwritten: call trainer.resume\(\)"):
        tiny_trainer(Run.open(folder), steps=4).run()
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(FileNotFoundError, match="no checkpoint to go on from, though a model was saved"):
        tiny_trainer(Run.open(folder), steps=8).resume()
    assert (folder / "model.safetensors").read_bytes() == weights


def test_changed_data_is_told_by_the_trainer_too(tmp_path):
    tiny_trainer(tmp_path / "run", steps=4).run()
    ids = tiny_ids()
    ids[100] = (ids[100] + 1) % 17  # of the same length
    config = TrainConfig(steps=6, batch_size=4, learning_rate=0.02)
    with pytest.warns(UserWarning, match=r"steps was 4, now 6, so the learning rate goes .*data was [0-9a-f]{16}, now"):
        Trainer(tiny_model(), ids, config, run=Run.open(tmp_path / "run"), quiet=True).resume()


# ---- runs of a program -----------------------------------------------------------------------------------------------


class Own(nn.Module):
    """A model that a learner wrote."""

    def __init__(self, V):
        self.embedding, self.head = nn.Embedding(V, 8, rng=0), nn.Linear(8, V, rng=1)

    def forward(self, ids):
        return self.head(self.embedding(ids))


class Rows:
    """A dataset that a learner wrote: its rows begin with the end-of-text token."""

    tokens_per_epoch = validation_tokens = 100

    def __init__(self, ids, eos):
        self.ids, self.eos = np.asarray(ids), eos

    def batch(self, step, batch_size, seed):
        starts = np.random.default_rng((seed, step)).integers(0, len(self.ids) - 9, batch_size)
        y = self.ids[starts[:, None] + np.arange(8)]
        return np.concatenate([np.full((batch_size, 1), self.eos), y[:, :-1]], axis=1), y

    def validation(self, batch_size):
        yield self.batch(0, batch_size, 1)


def program(folder, kind, tokenizer, run=None):
    """The trainer of a program: of plain ids without and with a tokenizer, of a dataset or a model of its own."""
    V, ids = tokenizer.vocab_size, np.array(tokenizer.encode(TEXT))
    model = Own(V) if kind == "own model" else models.GPT2(models.GPT2Config(V, 16, 8, 1, 2), rng=0)
    data = Rows(ids, tokenizer.eos_id) if kind == "own dataset" else ids
    config = TrainConfig(steps=4, batch_size=4, context=8)
    return Trainer(model, data, config, run=run or folder, quiet=True, tokenizer=None if kind == "ids" else tokenizer)


BUILD = "holds the weights of .*Own, a class of your own that minillm cannot build: make one in Python, then model.load"
LACKS = {  # what each command says; None: it works
    "ids": dict(dict.fromkeys(["generate", "eval", "eval --data"], "no tokenizer.json: .*tokenizer.save"), info=None),
    "tokenizer": {"generate": None, "eval": "give a text with --data", "eval --data": None, "info": None},
    "own dataset": {"generate": None, "eval": "give a text with --data", "eval --data": None, "info": None},
    "own model": dict.fromkeys(["generate", "eval", "eval --data", "info", "quantize"], BUILD),
}


@pytest.mark.parametrize("kind", LACKS)
def test_every_command_on_the_run_of_a_program(kind, tmp_path, capsys):
    """It works, or says in one line what is missing and how to go on; the card offers what works; resume() resumes."""
    folder, tokenizer = tmp_path / "run", CharTokenizer.train([TEXT])
    trained = program(folder, kind, tokenizer)
    trained.run()
    (tmp_path / "text.txt").write_text(TEXT)
    commands = {
        "generate": ["generate", str(folder), "a rose", "--max-new-tokens", "2"],
        "eval": ["eval", str(folder)],
        "eval --data": ["eval", str(folder), "--data", str(tmp_path / "text.txt")],
        "info": ["info", str(folder)],
        "quantize": ["quantize", str(folder)],
        "resume": ["train", "--out", str(folder), "--resume"],
    }
    again = r"was trained by a Python program, .* trainer = Trainer\(\.\.\., run=Run.open\(.*trainer.resume\(\)"
    for name, says in ({"quantize": None} | LACKS[kind] | {"resume": again}).items():
        code, told = main(commands[name]), capsys.readouterr()
        assert (code, bool(says)) in ((0, False), (2, True)), (name, told.err)
        if says:
            (line,) = told.err.splitlines()
            assert re.search(says, line), line
    card = (folder / "README.md").read_text().split("## Going on")[1]
    for line in card.splitlines():
        if line.startswith("minillm "):
            words = shlex.split(line.replace("YOUR_TEXT.txt", str(tmp_path / "text.txt")))[1:]
            assert main(words) == 0, line
    assert ("minillm generate" in card) == (LACKS[kind]["generate"] is None)
    stored = files.read_safetensors(folder / "model.safetensors")
    for name, array in trained.model.state_dict().items():
        np.testing.assert_array_equal(stored[name], array)
    resumed = program(folder, kind, tokenizer, Run.open(folder))
    assert resumed.resume() == 4 and resumed.run().stopped == "finished"
    if kind == "own dataset":
        assert load_run(folder).tokenizer.encode("a")[0] == tokenizer.eos_id


@pytest.mark.parametrize("missing", ["validation", "tokens_per_epoch"])
def test_what_a_dataset_lacks_is_said_before_the_first_step(missing):
    lacking = type("Lacking", (), {name: value for name, value in vars(Rows).items() if name != missing})
    model = models.GPT2(models.GPT2Config(10, 16, 8, 1, 2), rng=0)
    with pytest.raises(ValueError, match=rf"^Trainer: dataset Lacking has no {missing}\b"):
        Trainer(model, lacking([1, 2, 3] * 9, 0), TrainConfig(steps=3))
