"""minillm train: starting from a folder, questions and answers, what is chosen about the learning, and --best; each of
them goes on after an interruption bit for bit."""

import json
import shutil

import numpy as np
import pytest

from minillm import files, load_run
from minillm.cli import main
from minillm.data import load_pairs, split_pairs
from minillm.training import trainer
from minillm.training.best import best_of
from minillm.training.callbacks import Callback
from minillm.training.evaluation_data import evaluation_data
from tests.interrupted import interrupted
from tests.test_cli import complaint

TINY = "--tokenizer char --layers 1 --width 16 --context 16 --batch-size 4 --steps 12 --quiet".split()
WORDS = [a + b + c for a in "abc" for b in "abc" for c in "abc"]


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Of forty runs they would take too long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "LossPlot", Callback)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a text, pairs, and a small model."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text("the cat sat on the mat.\nthe dog sat on the log.\n" * 30)
    (folder / "other.txt").write_text("the mat sat on the cat.\nthe log sat on the dog.\n" * 30)
    (folder / "pairs.tsv").write_text("".join(f"{word}\t{word[::-1]}\n" for word in WORDS))
    options = ["--model", "gpt2", "--heads", "2", "--dropout", "0.1"]
    assert main(["train", "--data", str(folder / "text.txt"), "--out", str(folder / "base"), *TINY, *options]) == 0
    return folder


def settings(folder):
    return json.loads((folder / "training.json").read_text())["settings"]


def logged(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ---- --from ----------------------------------------------------------------------------------------------------------


def test_a_training_starts_from_a_folder(home, tmp_path, capsys, monkeypatch):
    """Weights, sizes and tokenizer are the folder's, dropout too; it needs the folder only to begin."""
    base, whole, cut = tmp_path / "base", tmp_path / "whole", tmp_path / "cut"
    shutil.copytree(home / "base", base)
    drawn = {"do_sample": True, "temperature": 0.3, "top_k": 7, "eos_token_id": [3]}
    files.write_json(base / "generation_config.json", drawn)
    tune = ["train", "--from", str(base), "--data", str(home / "other.txt"), "--steps", "6", "--batch-size", "4"]
    assert main([*tune, "--out", str(tmp_path / "still"), "--learning-rate", "0", "--quiet"]) == 0
    before, same = (load_run(path).model.state_dict() for path in (base, tmp_path / "still"))
    assert all(np.array_equal(before[name], same[name]) for name in before)
    assert main([*tune, "--out", str(whole), "--context", "8"]) == 0
    told = capsys.readouterr().err
    assert "(gpt2); run folder" in told and "more: minillm generate" in told
    tuned = load_run(whole)
    assert tuned.model.config == load_run(base).model.config and tuned.model.config.attn_pdrop == 0.1
    assert (tuned.model.context, settings(whole)["context"]) == (16, 8)
    generation, eos = tuned.generation, tuned.tokenizer.eos_id
    assert (generation.temperature, generation.top_k, generation.eos_token_id) == (0.3, 7, (eos, 3))
    assert tuned.tokenizer.fingerprint() == load_run(base).tokenizer.fingerprint()
    assert not np.array_equal(before["transformer.wte.weight"], tuned.model.state_dict()["transformer.wte.weight"])
    assert settings(whole)["start"] == str(base) and settings(whole)["layers"] == 1

    interrupted(monkeypatch, 3, *tune, "--out", str(cut), "--context", "8", "--quiet")
    shutil.rmtree(base)
    assert main(["train", "--out", str(cut), "--resume", "--quiet"]) == 0
    for name in ("generation_config.json", "model.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert main(["eval", str(cut)]) == 0
    again = ["--from", str(whole), "--dropout", "0.4", "--out", str(tmp_path / "twice"), "--quiet"]
    assert main(["train", *tune[3:], *again]) == 0
    assert load_run(tmp_path / "twice").model.config.resid_pdrop == 0.4


def test_what_a_folder_decides_cannot_be_chosen(home, tmp_path, capsys):
    base, start = home / "base", ["train", "--from", str(home / "base"), "--data", str(home / "text.txt")]
    for option in ("--layers 2", "--heads 2", "--width 8", "--vocab-size 300", "--model gpt2", "--tokenizer char",
                   "--kv-heads 1", "--attention dot"):  # fmt: skip
        told = complaint(capsys, *start, *option.split())
        assert told == (
            f"minillm: {option.split()[0]} must be left out: it is as {base} has it, whose weights training "
            "starts from"
        )
    told = complaint(capsys, *start, "--context", "17")
    assert told == "minillm: --context must be at most 16, all that the model sees; got 17"
    assert "no such run folder" in complaint(capsys, "train", "--from", str(tmp_path / "none"))
    assert "Nothing is downloaded here" in complaint(capsys, "train", "--from", "gpt2")
    assert "must name a file or a folder" in complaint(capsys, "train", "--from", "")
    assert main(["quantize", str(base), "--out", str(tmp_path / "int8")]) == 0
    capsys.readouterr()
    assert "weights in int8 cannot learn" in complaint(capsys, "train", "--from", str(tmp_path / "int8"), *start[3:])
    larger = shutil.copytree(base, tmp_path / "larger")
    words = files.read_json(larger / "tokenizer.json")
    words["added_tokens"].append({"id": len(words["model"]["vocab"]), "content": "<|new|>", "special": True})
    (larger / "tokenizer.json").write_text(json.dumps(words))
    assert main(["train", "--from", str(larger), *start[3:]]) == 2
    assert "the tokenizer has tokens that the model does not know" in capsys.readouterr().err
    assert "leave --from out" in complaint(capsys, "train", "--resume", "--out", str(base), "--from", str(base))


# ---- questions and answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["char", "bpe", "unigram"])
def test_questions_and_answers(tokenizer, home, tmp_path, capsys, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train = ["train", "--model", "t5", "--data", str(home / "pairs.tsv"), *TINY, "--heads", "2", "--dropout", "0.2"]
    train += ["--tokenizer", tokenizer, "--vocab-size", "300"]
    assert main([option for option in [*train, "--out", str(whole)] if option != "--quiet"]) == 0
    captured = capsys.readouterr()
    question = split_pairs(load_pairs(home / "pairs.tsv"))[1][0].question
    assert f"and now it answers: {question}\n" in captured.err and "27 questions with answers" in captured.err
    assert captured.err.splitlines()[-1] == f"more: minillm generate {whole} {question}"
    assert f"> {question}" in (whole / "README.md").read_text()
    assert f"minillm generate {whole} {question}\n" in (whole / "README.md").read_text()
    assert main(["generate", str(whole), question, "--max-new-tokens", "3"]) == 0
    assert main(["eval", str(whole)]) == 0
    figures = dict(line.split() for line in capsys.readouterr().out.splitlines()[-4:])
    last = logged(whole)[-1]
    assert float(figures["perplexity"]) == pytest.approx(np.exp(last["val_loss"]), abs=0.01)
    model, words, _ = load_run(whole)
    batches, _ = evaluation_data(whole, None, words, None, 4)
    ids, decoder_ids, targets = next(batches)
    pairs = split_pairs(load_pairs(home / "pairs.tsv"))[1]
    assert ids[0].tolist() == words.encode(pairs[0].question) and decoder_ids[:, 0].tolist() == [0] * len(pairs)
    for row, pair in zip(targets, pairs, strict=True):
        row = row[row >= 0].tolist()
        assert row[-1] == words.eos_id == 1 and words.decode(row[:-1]).strip() == pair.answer
    assert (model.config.eos_token_id, model.config.pad_token_id) == (1, 0)

    interrupted(monkeypatch, 5, *train, "--out", str(cut))
    assert main(["train", "--out", str(cut), "--resume", "--quiet"]) == 0
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_what_may_have_been_meant_otherwise_is_remarked(home, tmp_path, capsys):
    train = ["train", "--data", str(home / "pairs.tsv"), "--vocab-size", "300", *TINY, "--steps", "1", "--out"]
    loud = [option for option in train if option != "--quiet"]
    assert main([*loud, str(tmp_path / "loud")]) == 0
    told = capsys.readouterr().err
    assert "pairs.tsv is learned as plain text; to learn to answer its questions: --model t5\n" in told
    assert "--vocab-size changes nothing with --tokenizer char" in told
    assert main([*train, str(tmp_path / "quiet")]) == 0
    assert "plain text" not in capsys.readouterr().err


def test_a_t5_goes_on_from_a_folder(home, tmp_path):
    train = ["train", "--data", str(home / "pairs.tsv"), "--quiet", "--out"]
    assert main([*train, str(tmp_path / "one"), "--model", "t5", *TINY, "--heads", "2"]) == 0
    assert main([*train, str(tmp_path / "two"), "--from", str(tmp_path / "one"), "--steps", "2"]) == 0
    assert settings(tmp_path / "two")["model"] == "t5"


def test_pairs_that_cannot_be_read(home, tmp_path, capsys):
    def refused(name, content, *options):
        (tmp_path / name).write_text(content)
        return complaint(capsys, "train", "--model", "t5", "--data", str(tmp_path / name), *TINY, *options)

    assert 'line 2: expected {"question": text, "answer": text}' in refused(
        "a.jsonl", '{"question": "a", "answer": "b"}\n{"question": 3}\n'
    )
    told = refused("a.tsv", "a\tb\tc\n")
    assert "line 1: expected one tab, between question and answer; got 2 in 'a\\tb\\tc'" in told
    assert "line 3: a question and an answer must not be empty" in refused("a.tsv", "a\tb\n\na\t \n")
    assert "holds no pair" in refused("a.tsv", "\n")
    assert "at least two different questions" in refused("a.tsv", "a\tb\na\tc\n")
    told = refused("a.tsv", "aaaa\tb\nb\ta\n", "--context", "2")
    assert "1 of 2 pairs are longer than the context of 2 tokens" in told
    assert "is a folder; give a .jsonl" in complaint(capsys, "train", "--model", "t5", "--data", str(home))
    assert "no such file" in complaint(capsys, "train", "--model", "t5", "--data", str(tmp_path / "none.tsv"))
    told = complaint(capsys, "train", "--model", "t5")
    assert told == "minillm: a t5 learns from questions and answers: --data must be a .jsonl or .tsv file of them"


def test_no_question_is_learned_and_held_out(tmp_path):
    (tmp_path / "a.jsonl").write_text("\ufeff" + "".join(
        json.dumps({"question": f"{i % 15}", "answer": f"{i}"}) + "\r\n" for i in range(30)))  # fmt: skip
    pairs = load_pairs(tmp_path / "a.jsonl")
    assert len(pairs) == 30 and pairs[17] == ("2", "17")
    train, held_out = split_pairs(pairs, seed=3)
    assert (len(train), len(held_out)) == (28, 2) and not {p.question for p in train} & {p.question for p in held_out}
    assert split_pairs(pairs, seed=3) == (train, held_out) != split_pairs(pairs, seed=4)


# ---- how it learns ---------------------------------------------------------------------------------------------------


LEARNING = "--warmup 4 --schedule constant --weight-decay 0 --eval-every 3 --save-every 5".split()


@pytest.mark.parametrize("model", [["gru", "--attention", "additive"], ["lstm", "--attention", "none"],
                                   ["llama", "--heads", "4", "--kv-heads", "2", "--best"]])  # fmt: skip
def test_what_is_chosen_is_done_and_goes_on(model, home, tmp_path, capsys, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train = ["train", "--data", str(home / "text.txt"), *TINY, *LEARNING, "--model", *model]
    assert main([*train, "--out", str(whole)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "sample" not in captured.err, "--quiet"
    assert captured.err.startswith("finished 12 steps in") and f"\nrun folder {whole}\n" in captured.err
    log = logged(whole)
    assert [line["step"] for line in log if line["val_loss"] is not None] == [3, 6, 9, 12]
    assert {line["step"]: line["lr"] for line in log}[1] == pytest.approx(2e-3 / 5)
    assert log[-1]["lr"] == pytest.approx(2e-3)
    assert sorted(path.name for path in (whole / "checkpoints").iterdir() if path.is_dir()) == [
        "step-00000010", "step-00000012"]  # fmt: skip
    interrupted(monkeypatch, 7, *train, "--out", str(cut))
    assert main(["train", "--out", str(cut), "--resume", "--quiet"]) == 0
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert ("--best" in model) == (cut / "checkpoints" / "best.safetensors").exists()


def test_the_best_weights_are_kept(home, tmp_path, capsys, monkeypatch):
    """A learning rate that is far too high: the loss falls, then rises. The checkpoints hold the last weights."""
    folder, last, cut = tmp_path / "best", tmp_path / "last", tmp_path / "cut"
    train = ["train", "--data", str(home / "text.txt"), *TINY, "--heads", "2", "--eval-every", "2", "--warmup", "8"]
    train += ["--schedule", "constant", "--learning-rate", "1"]
    assert main([*train, "--best", "--out", str(folder)]) == 0
    told = capsys.readouterr().err
    losses = {line["step"]: line["val_loss"] for line in logged(folder) if line["val_loss"] is not None}
    step = min(losses, key=losses.get)
    assert 2 <= step < 12 and best_of(folder) == (step, losses[step])
    assert f"the folder holds the weights of the lowest validation loss: {losses[step]:.4f} after step {step}" in told
    card = (folder / "README.md").read_text()
    assert f"lowest validation loss: {losses[step]:.4f} after step {step}." in card
    assert f"| validation loss | {losses[step]:.4f} |" in card and f"validation loss {losses[step]:.4f} nats" in told
    assert main(["eval", str(folder)]) == 0
    assert f"loss           {losses[step]:.4f}" in capsys.readouterr().out
    assert main([*train, "--out", str(last)]) == 0
    ours, theirs = (path / "checkpoints" / "step-00000012" / "tensors.safetensors" for path in (folder, last))
    assert ours.read_bytes() == theirs.read_bytes()
    for stop in (step, step + 1):
        interrupted(monkeypatch, stop, *train, "--best", "--out", str(cut))
        assert main(["train", "--out", str(cut), "--resume", "--quiet"]) == 0
        assert (cut / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
        shutil.rmtree(cut)


def test_learning_that_makes_no_sense(capsys, home):
    for options, told in (
        ("--warmup 13 --steps 12", "--warmup must be from 0 to --steps = 12; got 13"),
        ("--model rnn --heads 2", "--heads must be left out: a model of the kind rnn has no such setting"),
        ("--model gpt2 --kv-heads 2", "--kv-heads must be left out: a model of the kind gpt2 has no such setting"),
        ("--dropout 0.1", "--dropout must be left out: a model of the kind llama has no such setting"),
        ("--attention dot", "--attention must be left out: a model of the kind llama has no such setting"),
        ("--heads 4 --kv-heads 3", "--kv-heads must be a divisor of --heads = 4; got 3"),
        ("--schedule linear", "--schedule must be one of cosine, wsd, constant; got 'linear'"),
        ("--finetune x", "unknown option --finetune; did you mean --from?"),
        ("--eval-interval 3", "unknown option --eval-interval; did you mean --eval-every?"),
    ):
        assert complaint(capsys, "train", *options.split()).startswith(f"minillm: {told}")
