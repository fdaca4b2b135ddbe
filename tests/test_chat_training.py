"""What a model learns from conversations: the assistant's tokens, and to stop."""

import doctest
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("jinja2")

from minillm import chat, data, models
from minillm.autograd.targets import IGNORE
from minillm.chat import dataset, messages, sft, show
from minillm.chat.dataset import ChatDataset, chat_batch
from minillm.chat.encode import Encoded, prompt_each
from minillm.cli import main
from minillm.generation import GenerationConfig, generate_batch
from minillm.tokenizer import BPETokenizer, CharTokenizer, load
from minillm.tokenizer.chat_format import ChatFormat
from minillm.training.config import TrainConfig
from minillm.training.evaluate import evaluate, next_token_loss
from minillm.training.run import load_run
from minillm.training.trainer import Trainer
from tests.interrupted import ctrl_c, interrupted

SHORT = (
    "{% for m in messages %}<|im_start|>{{ m.role[0] + m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>a{% endif %}"
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def asked(letter):
    return [{"role": "user", "content": letter}]


def answered(letter):
    """The two letters that follow."""
    i = LETTERS.index(letter)
    return [*asked(letter), {"role": "assistant", "content": (LETTERS * 2)[i + 1 : i + 3]}]


def small_model(vocab_size, dtype=np.float32, context=32):
    config = models.LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.1, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return models.Llama(config, rng=1).astype(dtype)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = CharTokenizer.train([LETTERS], ["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_format = ChatFormat(SHORT)
    return tokenizer


def test_docstring_examples():
    assert doctest.testmod(dataset).failed == doctest.testmod(messages).failed == 0


@pytest.mark.parametrize("ends_are_learned", [True, False])
def test_a_model_stops_because_the_end_of_turn_is_in_the_loss(tokenizer, ends_are_learned):
    encoded = [chat.encode(answered(letter), tokenizer) for letter in LETTERS]
    if not ends_are_learned:
        end = tokenizer.special_tokens["<|im_end|>"]
        encoded = [Encoded(ids, [m and id != end for id, m in zip(ids, mask, strict=True)]) for ids, mask in encoded]
    model = small_model(tokenizer.vocab_size)
    data = ChatDataset(encoded, encoded, context=32)
    Trainer(model, data, TrainConfig(steps=150, batch_size=26, learning_rate=0.01), quiet=True).run()
    prompts = [chat.prompt(asked(letter), tokenizer) for letter in LETTERS]
    config = GenerationConfig(temperature=0, max_new_tokens=12)
    answers = generate_batch(model.eval(), tokenizer, prompts, config)
    assert all(answer.text[:2] == answered(x)[1]["content"] for x, answer in zip(LETTERS, answers, strict=True))
    stopped = sum(answer.finish_reason == "end_of_turn" for answer in answers) / len(answers)
    assert stopped > 0.99 if ends_are_learned else stopped < 0.05


# ---- the loss is a mean over targets ---------------------------------------------------------------------------------


def uneven(count=12):
    """Rows of very different lengths and numbers of targets."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        length = int(rng.integers(4, 30))
        mask = [False] * (length - 1 - i % 3) + [True] * (1 + i % 3)
        rows.append(Encoded(rng.integers(0, 20, length).tolist(), mask if i % 4 else [True] * length))
    return rows


def test_only_what_the_mask_says_is_asked():
    x, y = chat_batch([Encoded([5, 6, 7, 8], [False, True, False, True]), Encoded([1, 2], [True, True])])
    assert x.tolist() == [[5, 6, 7], [1, 0, 0]]
    assert y.tolist() == [[6, IGNORE, 8], [2, IGNORE, IGNORE]]


def test_the_loss_is_the_mean_of_all_targets_however_they_are_cut_and_padded():
    model, rows = small_model(20, np.float64).eval(), uneven()
    nats = targets = 0.0
    for row in rows:
        x, y = chat_batch([row])
        n = np.count_nonzero(y != IGNORE)
        nats, targets = nats + next_token_loss(model, (x, y)).item() * n, targets + n
    whole = next_token_loss(model, chat_batch(rows)).item()
    assert whole == pytest.approx(nats / targets, abs=1e-12)
    for rows_a_batch in (1, 5, 12):
        found = evaluate(model, ChatDataset(rows, rows, 32).validation(rows_a_batch))
        assert found.loss == pytest.approx(whole, abs=1e-12) and found.tokens == targets


def test_accumulation_is_the_whole_batch():
    """A mean of the parts' means would weigh a row with one target as much as one with thirty."""
    states = []
    for accumulate in (1, 3, 12):
        model = small_model(20, np.float64)
        config = TrainConfig(steps=2, batch_size=12, accumulate=accumulate, learning_rate=0.01, clip=None)
        trainer = Trainer(model, ChatDataset(uneven(), uneven(), 32), config, quiet=True)
        losses = [trainer.train_step()[0] for _ in range(2)]
        states.append((losses, model.state_dict()))
    for losses, state in states[1:]:
        assert losses == pytest.approx(states[0][0], abs=1e-12)
        for name, array in state.items():
            np.testing.assert_allclose(array, states[0][1][name], rtol=0, atol=1e-9)


def test_batches_are_a_function_of_seed_and_step_and_see_every_row():
    rows = [Encoded([i, i + 1, i + 2][: 2 + i % 2], [True] * (2 + i % 2)) for i in range(32)]
    data = ChatDataset(rows, [], 32)
    seen = sorted(row[0] for step in range(16) for row in data.batch(step, 2, 7)[0].tolist())
    assert seen == list(range(32))
    again = ChatDataset(rows, [], 32)
    for ours, theirs in zip(data.batch(5, 2, 7), again.batch(5, 2, 7), strict=True):
        assert np.array_equal(ours, theirs)
    assert data.tokens_per_epoch == sum(1 + i % 2 for i in range(32)) and list(data.validation(4)) == []


def test_what_does_not_fit_is_left_out_and_counted():
    rows = [Encoded([1, 2, 3], [False, True, True]), Encoded([1] * 9, [True] * 9), Encoded([1, 2], [True, False])]
    assert ChatDataset(rows, rows[:1], 4).left_out == 2
    with pytest.raises(ValueError, match="no conversation has an answer to learn and fits 4 tokens; got 2"):
        ChatDataset(rows[1:], [], 4)
    with pytest.raises(ValueError, match="ChatDataset holds nothing to evaluate on .* hold out"):
        Trainer(None, ChatDataset(rows, [], 4), TrainConfig(steps=1))


# ---- what fine-tuning prepares ---------------------------------------------------------------------------------------


def test_a_tokenizer_learns_the_marks_of_turns(tmp_path):
    plain = BPETokenizer.train(["Who has the ball?"], 280)
    marked = sft.with_marks(plain)
    V = plain.vocab_size
    assert marked.special_tokens == {"<|endoftext|>": 0, "<|im_start|>": V, "<|im_end|>": V + 1}
    assert marked.encode("Who has <|im_end|>?") == plain.encode("Who has <|im_end|>?")
    assert sft.with_marks(marked) is marked and plain.chat_format is None
    marked.save(tmp_path)
    messages = [{"role": "user", "content": "Who?"}]
    assert chat.prompt(messages, load(tmp_path)) == chat.prompt(messages, marked)
    assert load(tmp_path).chat_format.template == chat.CHATML


def test_what_conversations_often_say_becomes_a_token():
    plain = BPETokenizer.train(["Who has the ball?"] * 3, 264)
    said = [{"role": "user", "content": "Combien ?"}, {"role": "assistant", "content": "[7]"}]
    marked = sft.with_marks(plain, [said] * sft.OFTEN)
    for word in ("Combien", "user", "assistant"):
        assert len(marked.encode(word)) == 1 < len(plain.encode(word))
    assert marked.encode("Who has the ball?") == plain.encode("Who has the ball?")
    assert sft.with_marks(plain, [said] * (sft.OFTEN - 1)).vocab_size == plain.vocab_size + 2
    ids, mask = chat.encode(said, marked)
    assert marked.decode([id for id, learned in zip(ids, mask, strict=True) if learned]) == "[7]<|im_end|>"


@pytest.mark.parametrize("kind", ["llama", "untied", "gpt2", "rnn"])
def test_a_model_grows_rows_for_new_tokens(kind):
    if kind == "gpt2":
        model = models.GPT2(models.GPT2Config(vocab_size=20, n_positions=32, n_embd=16, n_layer=1, n_head=2), rng=1)
    elif kind == "rnn":
        config = models.RecurrentLMConfig(vocab_size=20, hidden_size=16, num_layers=1, window=8)
        model = models.RecurrentLM(config, rng=1)
    else:
        model = models.Llama(replace(small_model(20).config, tie_word_embeddings=kind == "llama"), rng=1)
    model.eval()
    larger = CharTokenizer.train([LETTERS[:20]], ["<|im_start|>", "<|im_end|>", "<x>"])
    grown = sft.with_rows(model, larger).eval()
    ids = np.arange(12).reshape(2, 6)
    before, after = model(ids).data, grown(ids).data
    assert after.shape == (2, 6, 23)
    np.testing.assert_allclose(after[..., :20], before, atol=1e-6)
    assert abs(after[..., 20:].mean() - before.mean()) < 2 * before.std()  # neither likely nor impossible
    assert np.abs(after[..., 20] - after[..., 21]).min() > 1e-4
    assert sft.with_rows(grown, larger) is grown


def test_tokens_that_the_model_never_met_begin_anew():
    """What never comes is pushed down, always in the same direction: that is seen in the rows."""
    plain = BPETokenizer.train(["Who has the ball?"] * 3, 264)
    model = small_model(plain.vocab_size)
    ids = np.array([plain.encode("Who has the ball?", add_special_tokens=False)])
    never = set(range(264)) - set(ids.ravel().tolist())
    rows = model.model.embed_tokens.weight.data
    rows[sorted(never)] = 0.5 * rows[sorted(never)] + np.linspace(-0.3, 0.5, 32)  # cosines near 0.98
    assert sft.unmet(rows, plain) == never
    seven, eight = plain.encode("78", add_special_tokens=False)
    grown = sft.with_rows(model, sft.with_marks(plain), used={seven, eight, *ids[0].tolist()}).state_dict()
    new = grown["model.embed_tokens.weight"]
    same = np.all(new[:264] == rows, axis=1)
    assert set(np.flatnonzero(~same)) == {seven, eight}
    cosine = new[seven] @ new[eight] / np.linalg.norm(new[seven]) / np.linalg.norm(new[eight])
    assert abs(cosine) < 0.7 and np.linalg.norm(new[seven]) < 2 * np.linalg.norm(rows[ids[0]], axis=1).max()
    assert sft.unmet(small_model(264).model.embed_tokens.weight.data, plain) == set()


def test_conversations_are_read_from_jsonl(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"messages": answered("a"), "id": 3}) + "\n\n" + json.dumps({"messages": answered("b")}))
    assert sft.read_conversations(file) == [answered("a"), answered("b")]
    said = [{"role": "user", "content": "a\u2028b\x85c\u2029d"}]  # ends of lines to Unicode, not to JSON
    file.write_bytes(f"\ufeff{json.dumps({'messages': said}, ensure_ascii=False)}\r\n".encode() * 2)
    with pytest.raises(ValueError, match="line 2: not valid JSON: Unexpected UTF-8 BOM"):
        sft.read_conversations(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert sft.read_conversations(file) == [said]
    for text, complaint in (
        ("", "holds no conversation"),
        ("{}", "line 1: expected a table with a list of messages"),
        ('{"messages": []}\n[1]', "line 2: expected a JSON object"),
        ('{"messages": [', "line 1: not valid JSON"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=complaint):
            sft.read_conversations(file)


def test_an_error_names_the_conversation(tokenizer):
    with pytest.raises(ValueError, match=r"x.jsonl, conversation 2: messages\[0\]: it has no content"):
        sft.encode_all([answered("a"), [{"role": "user"}]], tokenizer, "x.jsonl")


def test_what_is_learned_is_shown(tokenizer):
    encoded = chat.encode([*answered("a"), *asked("z")], tokenizer)
    assert show.show_mask(tokenizer, encoded) == (
        "<|im_start|>|u|a|<|im_end|>|<|im_start|>|a⟦b|c|<|im_end|>⟧<|im_start|>|u|z|<|im_end|>\n\n"
        "13 tokens, 3 of them learned"
    )
    assert "\x1b[30;48;5;157mb|c|<|im_end|>\x1b[0m" in show.show_mask(tokenizer, encoded, color=True)


# ---- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "run"
    small_model(264).save_pretrained(folder, tokenizer=BPETokenizer.train(["Who has the ball?"] * 3, 264))
    return folder


@pytest.fixture
def lines(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": answered(letter)}) + "\n" for letter in "abcdefgh"))
    return file


def test_sft_teaches_a_base_model_the_marks(base, lines, tmp_path, capsys):
    with lines.open("a") as file:
        file.write(json.dumps({"messages": [*asked((LETTERS * 2)[:40]), answered("a")[1]]}))
    out = tmp_path / "out"
    assert main(["sft", str(base), "--data", str(lines), "--out", str(out), "--batch-size", "4", "--steps", "2"]) == 0
    assert "left out: 1 conversation without" in capsys.readouterr().err
    loaded = load_run(out)
    assert loaded.model.config.vocab_size == loaded.tokenizer.vocab_size == 266
    assert loaded.tokenizer.chat_format == ChatFormat(chat.CHATML, tokens={"eos_token": "<|endoftext|>"})
    assert not loaded.tokenizer.begins_prompts  # with <|im_start|>: the template writes it
    assert loaded.tokenizer.encode("Who") == load(base).encode("Who")
    lines.write_text(json.dumps({"messages": [*asked((LETTERS * 2)[:40]), answered("a")[1]]}))
    assert main(["sft", str(base), "--data", str(lines), "--out", str(tmp_path / "none")]) == 2
    assert "no conversation has an answer to learn and fits 32 tokens; got 1" in capsys.readouterr().err
    with lines.open("a") as file:
        file.write("\n" + json.dumps({"messages": answered("a")}))
    assert main(["sft", str(base), "--data", str(lines), "--out", str(tmp_path / "none")]) == 2
    assert "its first 1 conversations are held out to measure on, and none of them" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_made_up_conversations_are_seen_twice(tmp_path, monkeypatch, capsys):
    """What comes often is learned by heart; the folder says what was done, whatever is usual later."""
    base, tokenizer = tmp_path / "base", BPETokenizer.train(["Who has the ball?"] * 3, 264)
    small_model(264, context=400).save_pretrained(base, tokenizer=tokenizer)
    monkeypatch.setattr("minillm.cli.sft.EXAMINED", 4)
    out = tmp_path / "new"
    assert main(["sft", str(base), "--steps", "6", "--batch-size", "5", "--out", str(out)]) == 0
    content = json.loads((out / "training.json").read_text())
    assert content["about"].startswith("15 conversations made up by minillm")
    shown = capsys.readouterr()
    assert "it knows small questions: " in shown.err
    assert main(["eval", str(out)]) == 0  # what was measured after
    now = [line.split() for line in capsys.readouterr().out.split("\n")[1:]]
    both = [line.split() for line in shown.out[shown.out.index("stops by") :].split("\n")]
    assert [line[-1:] for line in now if line] == [line[-1:] for line in both if line]
    done = {name: content["settings"][name] for name in ("steps", "learning_rate", "optimizer")}
    assert done == {"steps": 6, "learning_rate": 2e-3, "optimizer": "muon"}
    for name in ("RATE", "STEPS"):
        monkeypatch.setattr(f"minillm.cli.sft.{name}", 0)
    monkeypatch.setattr("minillm.cli.sft.TWICE", 6)
    drawn, chats = [], data.chats
    monkeypatch.setattr(data, "chats", lambda count, *more: drawn.append(count) or chats(count, *more))
    assert main(["sft", str(out), "--resume"]) == 0
    assert "finished 6 steps" in capsys.readouterr().err and drawn == [15, 4]
    (out / "training.json").write_text(json.dumps(content | {"about": "some conversations"}))
    assert main(["sft", str(out), "--resume"]) == 2
    assert "'about' must begin with a number of conversations" in capsys.readouterr().err
    for most, steps, expected in ((7, "60", "7"), (1000, "1", "5")):
        monkeypatch.setattr("minillm.cli.sft.MOST", most)
        few = tmp_path / f"few{most}"
        assert main(["sft", str(base), "--steps", steps, "--batch-size", "5", "--out", str(few)]) == 0
        assert json.loads((few / "training.json").read_text())["about"].startswith(f"{expected} conversations")


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_a_model_that_answers_each_question_by_itself_is_no_base(tmp_path, capsys, command):
    tokenizer = CharTokenizer.train([LETTERS], ["<pad>", "</s>"])
    config = models.T5Config(vocab_size=tokenizer.vocab_size, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    models.T5(config, rng=0).save_pretrained(tmp_path / "t5", tokenizer=tokenizer)
    assert main([command, str(tmp_path / "t5")]) == 2
    assert f"learns from pairs: minillm train --from {tmp_path / 't5'} --data PAIRS" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["t5"]


def test_sft_from_end_to_end(lines, tmp_path, capsys):
    """On the tokenizer's own template, with a model that is just large enough."""
    tokenizer = CharTokenizer.train([LETTERS], ["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_format = ChatFormat(SHORT)
    small_model(tokenizer.vocab_size).save_pretrained(tmp_path / "base", tokenizer=tokenizer)
    assert main(["sft", str(tmp_path / "base"), "--data", str(lines), "--batch-size", "4", "--learning-rate", "0.01",
                 "--steps", "60"]) == 0  # fmt: skip
    assert "a chat model; talk with it: minillm chat " in capsys.readouterr().err
    loaded = load_run(tmp_path / "base-chat")
    assert loaded.tokenizer.chat_format.template == SHORT
    prompt = chat.prompt(asked("e"), loaded.tokenizer)
    answer = generate_batch(loaded.model, loaded.tokenizer, [prompt], loaded.generation)[0]
    assert answer.finish_reason == "end_of_turn" and answer.text == "fg"
    ends = json.loads((tmp_path / "base-chat/generation_config.json").read_text())["eos_token_id"]
    assert loaded.tokenizer.special_tokens["<|im_end|>"] in ends


def test_what_was_interrupted_goes_on(base, lines, tmp_path, monkeypatch, capsys):
    """Ctrl-C, and one that comes before the first checkpoint; the weights are those of a run at one go."""
    typed = ["sft", str(base), "--data", str(lines), "--batch-size", "4", "--steps", "4", "--seed", "3", "--out"]
    assert main([*typed, str(tmp_path / "whole")]) == 0
    out = str(tmp_path / "parts")
    interrupted(monkeypatch, 2, *typed, out, by=ctrl_c)
    assert f"minillm sft {out} --resume" in capsys.readouterr().err
    assert main(["sft", out, "--resume"]) == 0
    whole, parts = (load_run(tmp_path / name).model.state_dict() for name in ("whole", "parts"))
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    assert json.loads((tmp_path / "parts/training.json").read_text())["settings"]["seed"] == 3
    capsys.readouterr()
    for arguments, complaint in (
        (["sft", out, "--resume", "--steps", "9"], "--resume goes on in RUN with the run's own settings; leave --st"),
        (["dpo", out, "--resume"], f"was not made by minillm dpo; go on with: minillm sft {out} --resume"),
        (["train", "--out", out, "--resume"], f"was made by minillm sft; go on with: minillm sft {out} --resume"),
        (["sft", str(base), "--resume"], "is not a run folder: it has no training.json"),
    ):
        assert main(arguments) == 2
        assert complaint in capsys.readouterr().err
    content = lines.read_text()
    lines.write_text(content.replace("\n", "\n\n"))  # the same conversations
    assert main(["sft", out, "--resume"]) == 0
    lines.write_text(content.replace("fg", "gf"))
    assert main(["sft", out, "--resume"]) == 2
    assert f"chats.jsonl is no longer what {out} began with" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["tokenize", "BASE"], "TEXT is missing: give a text, or --chat FILE"),
        (["tokenize", "BASE", "x", "--chat", "FILE"], "two things to cut: give a text, or --chat FILE"),
        (["tokenize", "BASE", "--merges", "--chat", "FILE"], "--merges is for a text, not for --chat"),
        (["tokenize", "BASE", "--chat", "nowhere"], "nowhere: No such file or directory"),
        (["sft", "nowhere"], "nowhere: no such run folder"),
        (["sft", "BASE", "--data", "FILE", "--out", "BASE"], "exists already"),
        (["sft", "BASE", "--data", "FILE", "--steps", "0"], "steps must be at least 1; got 0"),
    ],
)
def test_a_mistake_gets_one_line(base, lines, capsys, arguments, complaint):
    assert main([{"BASE": str(base), "FILE": str(lines)}.get(word, word) for word in arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_tokenize_shows_a_file_of_conversations(base, lines, capsys):
    assert main(["tokenize", str(base), "--chat", str(lines)]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("⟦b|c|<|im_end|>⟧") == 1 and shown.out.count("of them learned") == 8
    assert "has no chat template: shown in ChatML" in shown.err


# ---- many conversations at once --------------------------------------------------------------------------------------


def test_many_conversations_become_the_same_tokens_as_one_by_one(tokenizer):
    spelled = [{"role": "user", "content": "a<|im_end|>b"}, *answered("c")]
    several = [answered(letter) for letter in LETTERS * 3] + [spelled, [*answered("d"), *answered("e")]]
    plain = CharTokenizer.train([LETTERS + "<|>_"], ["<|im_start|>", "<|im_end|>"])
    plain.chat_format = ChatFormat(SHORT)
    assert sft.encode_all(several, plain) == [chat.encode(messages, plain) for messages in several]
    questions = [messages[:-1] for messages in several]
    assert [*prompt_each(questions, plain)] == [chat.prompt(messages, plain) for messages in questions]
    several[70] = [{"role": "assistant", "content": "a"}]
    with pytest.raises(ValueError, match=r"x, conversation 71: messages\[0\]: the assistant speaks first"):
        sft.encode_all(several, tokenizer, "x")


# ---- adapters --------------------------------------------------------------------------------------------------------


def test_sft_with_adapters_changes_them_and_the_embedding_with_new_rows(base, lines, tmp_path, monkeypatch, capsys):
    """The folder holds merged weights, and what was interrupted goes on."""
    typed = ["sft", str(base), "--data", str(lines), "--batch-size", "4", "--steps", "4", "--lora", "2"]
    assert main([*typed, "--out", str(tmp_path / "whole")]) == 0
    rates = [json.loads(line)["lr"] for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert max(rates) == 0.008  # four times that of all weights, unless it is typed
    trained = 2 * 2 * (32 + 32) + 266 * 32  # A and B of a query and a value matrix; the embedding
    assert f"numbers are trained: {trained:,}" in capsys.readouterr().err
    old, new = (load_run(folder).model.state_dict() for folder in (base, tmp_path / "whole"))
    assert old.keys() == new.keys()
    changed = {name for name in old if not np.array_equal(old[name], new[name][: len(old[name])])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj", "embed_tokens"}
    interrupted(monkeypatch, 2, *typed, "--out", str(tmp_path / "parts"))
    assert main(["sft", str(tmp_path / "parts"), "--resume"]) == 0
    parts = load_run(tmp_path / "parts").model.state_dict()
    assert all(np.array_equal(new[name], parts[name]) for name in new)


def test_a_run_from_before_there_were_adapters_and_muon_goes_on(base, lines, tmp_path):
    out = tmp_path / "old"
    typed = ["--data", str(lines), "--batch-size", "4", "--steps", "2", "--optimizer", "adamw", "--out", str(out)]
    assert main(["sft", str(base), *typed]) == 0
    content = json.loads((out / "training.json").read_text())
    del content["settings"]["lora"], content["settings"]["optimizer"]
    (out / "training.json").write_text(json.dumps(content))
    assert main(["sft", str(out), "--resume"]) == 0
