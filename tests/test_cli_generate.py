"""``minillm generate``: where the prompt comes from, how several texts and probabilities are shown."""

import io
import re
import sys

import numpy as np
import pytest

from minillm import GenerationConfig, generate, generate_batch, models
from minillm.cli import main
from minillm.tokenizer import BPETokenizer, CharTokenizer

TOKENIZER = CharTokenizer.train(["abcdef \n"], special_tokens=("<|endoftext|>",))
V = TOKENIZER.vocab_size


@pytest.fixture(scope="module")
def model():
    config = models.LlamaConfig(V, 16, 16, 1, 2, 2, max_position_embeddings=16, bos_token_id=0, eos_token_id=0)
    made = models.Llama(config, rng=0).eval()
    for parameter in made.parameters():
        parameter.data = parameter.data * np.float32(3)  # so that its texts are not all alike
    return made


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path, tokenizer=TOKENIZER, generation_config=GenerationConfig(eos_token_id=0))
    return str(path)


@pytest.fixture
def write(folder, capsys):
    """Run the command, and give what it wrote on both streams."""

    def run(*arguments: str, code: int = 0, place: str = folder) -> tuple[str, str]:
        assert main(["generate", place, *arguments]) == code
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def test_a_text_slides_beyond_the_context(model, write):
    numbers = ("--seed", "1", "--max-new-tokens", "50", "--min-new-tokens", "30")
    out, err = write("abc", *numbers, "--slide", "--stop", "zz")
    config = GenerationConfig(eos_token_id=0, seed=1, max_new_tokens=50, min_new_tokens=30, slide=True)
    expected = generate(model, TOKENIZER, "abc", config)
    assert out == f"abc{expected.text}\n" and f"[{expected.finish_reason}: " in err and len(expected.ids) > 16
    _, err = write("abc", *numbers)
    assert "[context: the model's context is full, after 13 tokens" in err and "[--slide goes on" in err


def test_a_model_that_has_learned_to_answer_is_told_of(model, write, tmp_path):
    model.save_pretrained(tmp_path, tokenizer=TOKENIZER, chat_template="{{ messages }}")
    told, short = f"[this model has learned to answer: minillm chat {tmp_path}]", ("--max-new-tokens", "2")
    assert told in write("abc", *short, place=str(tmp_path))[1]
    assert "minillm chat" not in write("abc", *short, "--special", place=str(tmp_path))[1] + write("abc", *short)[1]


def test_a_prompt_longer_than_the_context(model, write):
    long = "abcdef " * 4
    out, err = write(long, code=2)
    assert not out, "nothing is printed before the prompt is accepted"
    assert err.startswith("minillm: the prompt has 29 tokens, more than the model's context of 16; --slide reads")
    out, _ = write(long, "--slide", "--max-new-tokens", "5", "--temperature", "0")
    # what the model sees is the later half of a context
    last = TOKENIZER.encode(long)[-8:]
    greedy = GenerationConfig(temperature=0, max_new_tokens=5, eos_token_id=0)
    assert out == long + generate(model, TOKENIZER, last, greedy).text + "\n"
    penalized = greedy.replace(frequency_penalty=3)  # of what was written, not of the prompt
    expected = generate(model, TOKENIZER, last, penalized).ids
    assert generate(model, TOKENIZER, long, penalized.replace(slide=True)).ids == expected
    with pytest.raises(ValueError, match="the prompt has 29 tokens, more than the model's context of 16; slide=True"):
        generate(model, TOKENIZER, long, greedy)
    with pytest.raises(ValueError, match="29 tokens"):  # whose probabilities could not be given
        generate(model, TOKENIZER, long, greedy.replace(slide=True, echo=True))
    # one in a batch may be long: the others are read whole
    both = generate_batch(model, TOKENIZER, ["ab", long], greedy.replace(slide=True))
    assert both[0].ids == generate(model, TOKENIZER, "ab", greedy).ids and both[1].prompt_ids[-8:] == last


def test_several_texts_and_beams(model, write):
    options = ("--max-new-tokens", "6")
    out, err = write("ab", "--n", "3", "--seed", "2", *options)
    config = GenerationConfig(eos_token_id=0, max_new_tokens=6)
    texts = generate_batch(model, TOKENIZER, ["ab"], config.replace(n=3, seed=2))
    assert out == "\n".join(f"ab{text.text}\n" for text in texts)
    assert [line.split(":")[0] for line in err.splitlines()] == ["[1 of 3", "[2 of 3", "[3 of 3"]
    out, err = write("ab", "--beams", "3", "--n", "2", *options)
    best = generate_batch(model, TOKENIZER, ["ab"], config.replace(num_beams=3, n=2, temperature=0))
    assert out == "\n".join(f"ab{text.text}\n" for text in best)
    assert f"log-probability {sum(best[0].logprobs):.2f}, score {best[0].score:.3f}" in err and "greedy" not in err


def test_probabilities(model, write):
    out, _ = write("ab", "--temperature", "0", "--max-new-tokens", "4", "--min-new-tokens", "4", "--logprobs", "2")
    config = GenerationConfig(temperature=0, eos_token_id=0, max_new_tokens=4, min_new_tokens=4, logprobs=2)
    expected = generate(model, TOKENIZER, "ab", config)
    text, table = out.split("\n\n", 1)
    rows = re.findall(r"^ +([\d.]+) %  (\S+|'.+?')", table, re.MULTILINE)
    assert text == f"ab{expected.text}" and len(rows) == 4
    assert [float(p) for p, _ in rows] == pytest.approx([100 * np.exp(p) for p in expected.logprobs], abs=0.006)
    for line, id, top in zip(table.splitlines(), expected.ids, expected.top_logprobs, strict=False):
        other = next(other for other in top if other != id)
        assert f"instead: '{TOKENIZER.decode([other])}' {100 * np.exp(top[other]):.2f} %" in line or other == 0
    assert f"log-probability {sum(expected.logprobs):.2f} nats" in table
    out, _ = write("ab", "--logprobs", "0", "--max-new-tokens", "3", "--seed", "1")
    assert "instead" not in out and "log-probability" in out


def test_the_prompt_of_standard_input_and_of_a_file(model, write, tmp_path, monkeypatch):
    options = ("--temperature", "0", "--max-new-tokens", "3")
    expected, _ = write("ab\nab", *options)
    for given in (b"ab\nab\n", b"ab\r\nab", b"ab\nab"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert write("-", *options)[0] == expected
        (tmp_path / "prompt.txt").write_bytes(given)
        assert write("--file", str(tmp_path / "prompt.txt"), *options)[0] == expected
    _, err = write("ab", "--file", str(tmp_path / "prompt.txt"), code=2)
    assert "leave one of them out" in err
    (tmp_path / "prompt.txt").write_bytes(b"a\xff")
    assert "prompt.txt: not UTF-8" in write("--file", str(tmp_path / "prompt.txt"), code=2)[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff")))
    assert "standard input is not UTF-8" in write("-", code=2)[1]


def test_special_tokens_of_the_prompt_where_asked(tmp_path, write):
    words = BPETokenizer.train(["ab ab abab"], 258, special_tokens=("<|endoftext|>",))
    config = models.GPT2Config(words.vocab_size, n_positions=32, n_embd=8, n_layer=1, n_head=2)
    model = models.GPT2(config, rng=1).eval()
    greedy = GenerationConfig(temperature=0, max_new_tokens=2, special=True)
    read = [generate(model, words, "ab<|endoftext|>", greedy.replace(special=special)) for special in (True, False)]
    eos, ab = words.eos_id, words.encode("ab")
    assert read[0].prompt_ids == [eos, *ab, eos] and read[1].prompt_ids == [eos, *words.encode("ab<|endoftext|>")]
    model.save_pretrained(tmp_path / "m", tokenizer=words, generation_config=GenerationConfig(eos_token_id=eos))
    path = str(tmp_path / "m")
    out, _ = write("ab<|endoftext|>", "--special", "--max-new-tokens", "2", "--temperature", "0", place=path)
    assert out == f"ab<|endoftext|>{read[0].text}\n"


def test_it_is_told_that_nothing_is_sampled(model, write, tmp_path):
    place = tmp_path / "greedy"
    model.save_pretrained(place, tokenizer=TOKENIZER, generation_config=GenerationConfig(temperature=0))
    told = "[greedy, as generation_config.json says; --temperature 1 samples]"
    options = ("ab", "--max-new-tokens", "2")
    assert told in write(*options, place=str(place))[1]
    for chosen in (("--temperature", "0"), ("--temperature", "1"), ("--top-k", "3"), ("--beams", "2")):
        assert "greedy" not in write(*options, *chosen, place=str(place))[1]
    (place / "generation_config.json").unlink()
    assert "[greedy, as there is no generation_config.json" in write(*options, place=str(place))[1]


def test_the_rate_is_that_of_the_tokens_after_the_second(write, monkeypatch):
    from minillm.cli import generate as command

    clock = iter([10.0, 12.0])
    monkeypatch.setattr(command.time, "perf_counter", lambda: next(clock))
    options = ("ab", "--seed", "1", "--min-new-tokens", "8", "--max-new-tokens", "8")
    assert "after 8 tokens at 3 a second]" in write(*options)[1]
    clock = iter([10.0, 10.0])
    assert "after 2 tokens]" in write("ab", "--max-new-tokens", "2", "--min-new-tokens", "2")[1]


def test_every_parameter_reaches_the_text(write):
    """Each option gives another text than without it, or is refused by the same name."""
    base = ("abc", "--seed", "3", "--max-new-tokens", "12", "--min-new-tokens", "12")
    plain, _ = write(*base)
    for option, value in (
        ("--typical-p", "0.2"), ("--frequency-penalty", "5"), ("--presence-penalty", "9"), ("--temperature", "0.1"),
        ("--no-repeat-ngram-size", "1"), ("--repetition-penalty", "9"), ("--top-k", "1"), ("--top-p", "0.1"),
        ("--min-p", "0.9"),
    ):  # fmt: skip
        try:
            changed, _ = write(*base, option, value)
        except AssertionError:
            assert option == "--no-repeat-ngram-size"  # more tokens than there are
        else:
            assert changed != plain, option
