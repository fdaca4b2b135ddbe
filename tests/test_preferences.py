"""Learning from preferences: the losses, their batches, the command."""

import copy
import json
import math

import numpy as np
import pytest

pytest.importorskip("jinja2")

from minillm import Tensor, chat, gradcheck, models
from minillm.autograd.targets import IGNORE
from minillm.cli import main
from minillm.data.chat_preferences import preferences
from minillm.finetune.pairs import encode_pairs, prompt_ids, read_preferences
from minillm.finetune.preference_report import PreferenceReport, table
from minillm.finetune.preferences import (
    PreferenceDataset,
    dpo_loss,
    kl_divergence,
    log_probabilities,
    margins,
    orpo_loss,
    preference_loss,
)
from minillm.generation import GenerationConfig, generate_batch
from minillm.tokenizer import CharTokenizer
from minillm.tokenizer.chat_format import ChatFormat
from minillm.training.config import TrainConfig
from minillm.training.run import load_run
from minillm.training.trainer import Trainer
from tests.interrupted import interrupted

SHORT = (
    "{% for m in messages %}<|im_start|>{{ m.role[0] + m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>a{% endif %}"
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def message(role, content):
    return [{"role": role, "content": content}]


def tables():
    """To be asked a letter: two x are preferred to one z, or to three."""
    return [
        {"prompt": message("user", a), "chosen": message("assistant", "xx"), "rejected": message("assistant", other)}
        for a in LETTERS
        for other in ("z", "zzz")
    ]


def small_model(vocab_size, dtype=np.float32):
    config = models.LlamaConfig(
        vocab_size=vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.1, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return models.Llama(config, rng=1).astype(dtype).eval()


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = CharTokenizer.train([LETTERS], ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.chat_format = ChatFormat(SHORT)
    return tokenizer


# ---- the losses ------------------------------------------------------------------------------------------------------


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def test_dpo_is_the_cross_entropy_of_the_rewards():
    log_p, reference = np.array([[-3.0, -9.0], [-2.0, -1.0]]), np.array([[-4.0, -6.0], [-2.0, -3.0]])
    expected = -(math.log(sigmoid(0.5 * (1 + 3))) + math.log(sigmoid(0.5 * (0 - 2)))) / 2
    assert dpo_loss(Tensor(log_p), reference, 0.5).item() == pytest.approx(expected, abs=1e-12)
    assert dpo_loss(Tensor(reference), reference, 0.5).item() == pytest.approx(math.log(2))
    assert gradcheck(lambda x: dpo_loss(x, reference, 0.5), Tensor(log_p, requires_grad=True))


def test_orpo_compares_odds_and_learns_the_preferred_answer():
    p = np.array([[0.8, 0.5], [0.2, 0.5]])  # odds 4 : 1 and 1/4 : 1
    expected = np.mean([-math.log(0.8) - 0.3 * math.log(4 / 5), -math.log(0.2) - 0.3 * math.log(1 / 5)])
    assert orpo_loss(Tensor(np.log(p)), 0.3).item() == pytest.approx(expected, abs=1e-12)
    assert gradcheck(lambda x: orpo_loss(x, 0.3), Tensor(np.log(p), requires_grad=True))
    certain = Tensor(np.array([[0.0, -1.0]], np.float32), requires_grad=True)
    orpo_loss(certain, 0.3).backward()
    assert np.isfinite(certain.grad.data).all()


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of dpo, orpo; got 'ppo'"):
        preference_loss("ppo")
    with pytest.raises(ValueError, match="chosen_weight must be at least 0; got -1"):
        preference_loss("dpo", chosen_weight=-1)


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_only_the_answer_counts_and_not_what_was_said_before(tokenizer):
    before = [*message("user", "a"), *message("assistant", "bc"), *message("user", "d")]
    pair = {"prompt": before, "chosen": message("assistant", "ef"), "rejected": message("assistant", "g")}
    chosen, rejected = encode_pairs([pair], tokenizer)[0]
    read = len(chat.prompt(before, tokenizer))
    assert tokenizer.decode(chosen.ids[read:], skip_special_tokens=False) == "ef<|im_end|>"
    assert chosen.mask == [False] * read + [True] * 3 and rejected.mask == [False] * read + [True] * 2
    assert prompt_ids(pair, tokenizer) == chosen.ids[:read] == rejected.ids[:read]


def test_plain_texts_go_on_where_the_prompt_ends(tokenizer):
    pair = {"prompt": "ab", "chosen": "cd", "rejected": "e"}
    chosen, _ = encode_pairs([pair], tokenizer)[0]
    assert tokenizer.decode(chosen.ids, skip_special_tokens=False) == "abcd<|endoftext|>"
    assert chosen.mask == [False] * 2 + [True] * 3
    tokenizer = copy.copy(tokenizer)
    tokenizer.set_beginning(tokenizer.eos_id, True)
    assert encode_pairs([pair], tokenizer)[0].chosen.ids == [tokenizer.eos_id, *chosen.ids]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("\n", "holds no pair of answers"),
        ('{"prompt": "a", "chosen": "b"}', "line 1: expected a table with prompt, chosen and rejected"),
        ('{"prompt": "a", "chosen": "b", "rejected": [1]}', "line 1: expected a table with prompt, chosen and"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}\n[]', "line 2: expected a JSON object"),
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}', "line 1: chosen and rejected are the same"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, complaint):
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_preferences(file)


def test_an_error_names_the_pair(tokenizer):
    good = {"prompt": message("user", "a"), "chosen": message("assistant", "b"), "rejected": message("assistant", "c")}
    for wrong, complaint in (({"chosen": []}, "at least one message"), ({"prompt": [{}]}, r"messages\[0\]: role must")):
        with pytest.raises(ValueError, match=f"x.jsonl, pair 2: .*{complaint}"):
            encode_pairs([good, good | wrong], tokenizer, "x.jsonl")


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tokenizer):
    pairs = encode_pairs(tables(), tokenizer)
    return PreferenceDataset(pairs[4:], pairs[:8], small_model(tokenizer.vocab_size, np.float64), context=32)


def test_the_reference_is_the_sum_over_the_answer_whatever_the_padding(tokenizer, dataset):
    model = small_model(tokenizer.vocab_size, np.float64)
    x, y, reference, better = dataset.batch(0, 8, seed=3)
    assert x.shape == y.shape == (8, 2, x.shape[-1]) and better.tolist() == [0] * 8
    for i in range(8):
        for j in range(2):
            length = 1 + np.flatnonzero(y[i, j] != IGNORE)[-1]
            alone = log_probabilities(model, x[i, j, :length], y[i, j, :length]).item()
            assert reference[i, j] == pytest.approx(alone, abs=1e-12)
    assert margins(model, dataset) == pytest.approx(np.zeros(8), abs=1e-12)


def test_the_preferred_answer_is_held_by_its_own_loss(tokenizer, dataset):
    model = small_model(tokenizer.vocab_size, np.float64)
    batch = dataset.batch(0, 8, seed=3)
    alone, held = (preference_loss("dpo", 0.1, weight)(model, batch).item() for weight in (0.0, 2.5))
    x, y = batch[0][:, 0], batch[1][:, 0]  # the preferred answers
    surprises = [-log_probabilities(model, x[i], y[i]).item() / np.sum(y[i] != IGNORE) for i in range(8)]
    assert alone == pytest.approx(math.log(2)) and held == pytest.approx(alone + 2.5 * np.mean(surprises), abs=1e-12)


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_each_pair_has_the_same_weight_however_a_batch_is_cut(tokenizer, dataset, method):
    states = []
    for accumulate in (1, 3, 8):
        model = small_model(tokenizer.vocab_size, np.float64)
        config = TrainConfig(steps=2, batch_size=8, accumulate=accumulate, learning_rate=0.01, clip=None)
        trainer = Trainer(model, dataset, config, quiet=True, loss=preference_loss(method, chosen_weight=0.5))
        losses = [trainer.train_step()[0] for _ in range(2)]
        states.append((losses, model.state_dict()))
    for losses, state in states[1:]:
        assert losses == pytest.approx(states[0][0], abs=1e-12)
        for name, array in state.items():
            np.testing.assert_allclose(array, states[0][1][name], rtol=0, atol=1e-9)


def test_what_does_not_fit_is_left_out_and_counted(tokenizer):
    pairs, model = encode_pairs(tables()[:4], tokenizer), small_model(tokenizer.vocab_size)
    longest = max(len(pair.rejected.ids) for pair in pairs)
    assert PreferenceDataset(pairs, pairs, model, longest - 2).left_out == 4
    with pytest.raises(ValueError, match="no pair in train fits 3 tokens; got 4"):
        PreferenceDataset(pairs, pairs, model, 3)


# ---- learning --------------------------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_whole_answers(tokenizer):
    """Against the mean of log p - log p_ref over many samples, which has the same expectation."""
    model, other = small_model(tokenizer.vocab_size), small_model(tokenizer.vocab_size)
    other.model.embed_tokens.weight.data[tokenizer.special_tokens["<|im_end|>"]] *= 10
    prompts = [chat.prompt(message("user", "a"), tokenizer)] * 60
    assert kl_divergence(model, model, tokenizer, prompts[:2]) == 0
    found = kl_divergence(model, other, tokenizer, prompts)
    config = GenerationConfig(temperature=1, max_new_tokens=48, seed=5)
    ratios = []
    for answer in generate_batch(model, tokenizer, prompts, config):
        ids = np.array([*prompts[0], *answer.ids])
        y = np.where(np.arange(1, len(ids)) >= len(prompts[0]), ids[1:], IGNORE)
        ratios.append(log_probabilities(model, ids[:-1], y).item() - log_probabilities(other, ids[:-1], y).item())
    error = np.std(ratios) / math.sqrt(len(ratios))
    assert abs(found - np.mean(ratios)) < 2 * error and found > 5 * error


def test_the_command_from_end_to_end(tokenizer, tmp_path, capsys):
    base, file = tmp_path / "base", tmp_path / "pairs.jsonl"
    small_model(tokenizer.vocab_size).save_pretrained(base, tokenizer=tokenizer)
    file.write_text("".join(json.dumps(pair) + "\n" for pair in tables()))
    arguments = ["dpo", str(base), "--data", str(file), "--learning-rate", "0.02", "--steps", "40"]
    for method, most_kl in (("dpo", 30), ("orpo", 60)):
        assert main([*arguments, "--method", method]) == 0
        out = capsys.readouterr().out
        preferred, _, kl = ([float(word.rstrip("%")) for word in line.split()[-2:]] for line in out.splitlines()[1:])
        assert preferred[0] == 0 and preferred[1] >= 95 and kl[0] == 0 and 0 < kl[1] < most_kl
    loaded = load_run(tmp_path / "base-orpo")
    prompt = chat.prompt(message("user", "q"), loaded.tokenizer)
    answer = generate_batch(loaded.model, loaded.tokenizer, [prompt], loaded.generation.replace(temperature=0))[0]
    assert answer.text == "xx" and answer.finish_reason == "end_of_turn"


def test_what_was_interrupted_goes_on(tokenizer, tmp_path, monkeypatch, capsys):
    base, file = tmp_path / "base", tmp_path / "pairs.jsonl"
    small_model(tokenizer.vocab_size).save_pretrained(base, tokenizer=tokenizer)
    file.write_text("".join(json.dumps(pair) + "\n" for pair in tables()))
    typed = ["dpo", str(base), "--data", str(file), "--steps", "4", "--batch-size", "4", "--out"]
    assert main([*typed, str(tmp_path / "whole")]) == 0
    interrupted(monkeypatch, 2, *typed, str(tmp_path / "parts"))
    assert main(["dpo", str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = (load_run(tmp_path / name).model.state_dict() for name in ("whole", "parts"))
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    file.write_text("".join(json.dumps(pair) + "\n" for pair in tables()[1:]))
    assert main(["dpo", str(tmp_path / "parts"), "--resume"]) == 2
    assert f"pairs.jsonl is no longer what {tmp_path / 'parts'} began with" in capsys.readouterr().err


def test_an_error_names_the_pair_by_its_place_in_the_file(tokenizer, tmp_path, capsys):
    base, file = tmp_path / "base", tmp_path / "pairs.jsonl"
    small_model(tokenizer.vocab_size).save_pretrained(base, tokenizer=tokenizer)
    pairs = [*tables()[:20], {"prompt": message("user", "a"), "chosen": [], "rejected": message("assistant", "b")}]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert main(["dpo", str(base), "--data", str(file)]) == 2
    assert f"{file}, pair 21: an answer must hold at least one message" in capsys.readouterr().err


def test_a_mistake_gets_one_line(tokenizer, tmp_path, capsys):
    plain = CharTokenizer.train([LETTERS], ["<|endoftext|>"])
    base = tmp_path / "base"
    small_model(plain.vocab_size).save_pretrained(base, tokenizer=plain)
    for arguments, complaint in (
        ([str(base)], f"has no chat template: teach it to answer first, with: minillm sft {base}"),
        (["nowhere"], "nowhere: no such run folder"),
        ([str(base), "--method", "ppo"], "--method must be one of dpo, orpo"),
        ([str(base), "--beta", "-1"], "--beta must be at least 0; got -1"),
        ([str(base), "--data", "nowhere"], "nowhere: No such file or directory"),
        ([str(base), "--out", str(base)], "exists already"),
    ):
        assert main(["dpo", *arguments]) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "base-dpo").exists()


# ---- the embedded pairs ----------------------------------------------------------------------------------------------


def test_the_short_answer_is_preferred_and_both_are_right():
    train, test = preferences(60, seed=4), preferences(30, seed=4, part="test")
    assert train[:10] == preferences(10, seed=4)
    for pair in [*train, *test]:
        assert pair.chosen[0]["role"] == pair.rejected[0]["role"] == "assistant" and pair.prompt[-1]["role"] == "user"
        short, whole = pair.chosen[0]["content"], pair.rejected[0]["content"]
        assert pair.is_right(short) and pair.is_right(whole) and not pair.is_right(whole + " x")
        assert pair.is_short(short) and not pair.is_short(whole)
    assert not {str(pair.prompt) for pair in train} & {str(pair.prompt) for pair in test}
    with pytest.raises(ValueError, match="part must be train or test; got 'dev'"):
        preferences(1, part="dev")


def test_the_table_shows_what_was_measured():
    before, after = PreferenceReport(0.0, 0.0, 0.0, 0.1, 0.9), PreferenceReport(0.98, 3.5, 1.25, 0.97, 0.9)
    lines = table(before, after).splitlines()
    assert lines[1].split()[-2:] == ["0.0%", "98.0%"] and lines[3].split()[-2:] == ["0.00", "1.25"]
    assert lines[4].split() == ["short", "answers", "10.0%", "97.0%"] and len(lines) == 6
    assert len(table(PreferenceReport(0, 0, 0), PreferenceReport(1, 1, 1)).splitlines()) == 4
