"""What a model learns from conversations: the assistant's tokens, and to stop."""

import doctest
import json

import numpy as np
import pytest

pytest.importorskip("jinja2")

from minillm import chat, models
from minillm.arrays.targets import IGNORE
from minillm.chat import dataset, sft
from minillm.chat.dataset import ChatDataset, chat_batch
from minillm.chat.encode import Encoded
from minillm.generation import GenerationConfig, generate, generate_batch
from minillm.tokenizer import BPETokenizer, CharTokenizer, load
from minillm.tokenizer.chat_format import ChatFormat
from minillm.training.config import TrainConfig
from minillm.training.evaluate import evaluate, next_token_loss
from minillm.training.trainer import Trainer

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


def small_model(vocab_size, dtype=np.float32):
    config = models.LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.1, tie_word_embeddings=True,
    )  # fmt: skip
    return models.Llama(config, rng=1).astype(dtype)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = CharTokenizer.train([LETTERS], ["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_format = ChatFormat(SHORT)
    return tokenizer


def test_docstring_examples():
    assert doctest.testmod(dataset).failed == 0


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


# ---- what fine-tuning prepares ---------------------------------------------------------------------------------------


def test_a_tokenizer_learns_the_marks_of_turns(tmp_path):
    plain = BPETokenizer.train(["Who has the ball?"], 280)
    marked = sft.with_marks(plain)
    assert marked.special_tokens == {"<|endoftext|>": 0, "<|im_start|>": plain.vocab_size, "<|im_end|>": plain.vocab_size + 1}
    assert marked.encode("Who has <|im_end|>?") == plain.encode("Who has <|im_end|>?")
    assert sft.with_marks(marked) is marked and plain.chat_format is None
    marked.save(tmp_path)
    messages = [{"role": "user", "content": "Who?"}]
    assert chat.prompt(messages, load(tmp_path)) == chat.prompt(messages, marked)
    assert load(tmp_path).chat_format.template == chat.CHATML


@pytest.mark.parametrize("kind", ["llama", "untied", "gpt2", "rnn"])
def test_a_model_grows_rows_for_new_tokens(kind):
    if kind == "gpt2":
        model = models.GPT2(models.GPT2Config(vocab_size=20, n_positions=32, n_embd=16, n_layer=1, n_head=2), rng=1)
    elif kind == "rnn":
        model = models.RecurrentLM(models.RecurrentLMConfig(vocab_size=20, hidden_size=16, num_layers=1, window=8), rng=1)
    else:
        config = small_model(20).config.__class__(**{**small_model(20).config.__dict__, "tie_word_embeddings": kind == "llama"})
        model = models.Llama(config, rng=1)
    model.eval()
    grown = sft.with_rows(model, 23).eval()
    ids = np.arange(12).reshape(2, 6)
    before, after = model(ids).data, grown(ids).data
    assert after.shape == (2, 6, 23)
    np.testing.assert_allclose(after[..., :20], before, atol=1e-6)
    np.testing.assert_allclose(after[..., 20], before.mean(axis=-1), atol=1e-5)
    assert sft.with_rows(model, 20) is model


def test_conversations_are_read_from_jsonl(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"messages": answered("a"), "id": 3}) + "\n\n" + json.dumps({"messages": answered("b")}))
    assert sft.read_conversations(file) == [answered("a"), answered("b")]
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
