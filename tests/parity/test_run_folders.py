"""Run folders as transformers opens them: the same ids for a prompt, the same greedy text after it and from nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from minillm import Recipe, Trainer, models  # noqa: E402
from minillm.data import DocumentDataset, StreamDataset  # noqa: E402
from minillm.generation import GenerationConfig, generate, generate_batch, stream  # noqa: E402
from minillm.tokenizer import UnigramTokenizer  # noqa: E402
from minillm.training.config import TrainConfig  # noqa: E402
from minillm.training.evaluation_data import evaluation_data  # noqa: E402
from minillm.training.run import Run, load_run  # noqa: E402
from minillm.training.setup import Setup  # noqa: E402

SIZES = {"layers": 1, "heads": 2, "width": 16, "context": 64, "batch_size": 4, "steps": 12, "vocab_size": 300}
SENTENCES = [f"Once upon a time the {animal} sat on the {place}." for animal in ("cat", "dog", "owl", "fox", "hen")
             for place in ("mat", "log", "hill", "roof", "sofa")]  # fmt: skip
GREEDY = GenerationConfig(temperature=0, max_new_tokens=12)


def corpus(kind, folder):
    """The text of a run: several documents, one with line breaks, one without, or none (stories)."""
    texts = {
        "documents": "<|endoftext|>".join(SENTENCES * 4),
        "one document": "\n".join(SENTENCES * 4),
        "one line": " ".join(SENTENCES * 4),
        "chapters": "<|endoftext|>".join(" ".join(SENTENCES[i:] * 4) for i in range(4)),
    }
    if kind not in texts:
        return None
    (folder / "text.txt").write_text(texts[kind])
    return folder / "text.txt"


def trained(folder, kind, tokenizer, model="llama"):
    """A run folder, and the Setup that it came from."""
    made = Setup.prepare(Recipe(corpus(kind, folder), tokenizer=tokenizer, model=model, **SIZES))
    run = Run.create(folder / "run", made.recipe.to_dict(), made.corpus.about, made.corpus.sha256)
    learned, config = made.corpus, made.recipe.train_config()
    Trainer(made.model, learned.dataset, config, tokenizer=learned.tokenizer, run=run, quiet=True).run()
    return folder / "run", made


def by_hand(folder, kind):
    """The same by the Python Trainer, with a Unigram tokenizer, which ends the texts that it encodes."""
    tokenizer = UnigramTokenizer.train(SENTENCES, 60)
    ids = tokenizer.encode_batch(SENTENCES * 4, add_special_tokens=False)
    if kind == "documents":
        dataset = DocumentDataset(ids, ids[:5], 32, tokenizer.eos_id)
    else:
        flat = [id for part in ids for id in part]
        dataset = StreamDataset(flat, flat[:40], 32)
    sizes = dict(vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=1)
    model = models.Llama(models.LlamaConfig(**sizes, num_attention_heads=2, max_position_embeddings=64), rng=0)
    Trainer(
        model, dataset, TrainConfig(steps=12, batch_size=4), tokenizer=tokenizer, run=folder / "run", quiet=True
    ).run()
    return folder / "run", tokenizer


def assert_the_same_for_all(folder, in_memory):
    """Whoever opens the folder reads the same ids and goes on with the same text; returns tokenizer and generation."""
    model, tokenizer, generation = load_run(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    configs = (generation.replace(temperature=0, max_new_tokens=12), GREEDY)
    for prompt in ("Once upon a time", "the cat", "on the mat.", ""):
        ids = words(prompt)["input_ids"]
        assert ids == tokenizer.encode(prompt) and not set(ids[1:]) & set(tokenizer.special_tokens.values())
        given = words(prompt, return_tensors="pt") if ids else {}  # transformers then begins with bos_token_id
        given = {name: given[name] for name in ("input_ids", "attention_mask") if ids}
        out = theirs.generate(**given, do_sample=False, max_new_tokens=12)[0].tolist()
        for config in configs:
            for ours in (
                generate(model, tokenizer, prompt, config),
                generate_batch(model, tokenizer, [prompt, "the dog"], config)[0],
                generate(model, in_memory, prompt, config),  # as the training left it
            ):
                assert ours.prompt_ids + ours.ids == out, prompt
            streamed = "".join(piece.text for piece in stream(model, tokenizer, prompt, config))
            assert streamed == generate(model, tokenizer, prompt, config).text
    return tokenizer, generation


BEGINS = {"stories": True, "documents": True, "one document": False, "one line": False, "chapters": False}


@pytest.mark.parametrize("tokenizer", ["bpe", "char"])
@pytest.mark.parametrize("kind", BEGINS)
def test_a_run_of_the_command_line(kind, tokenizer, tmp_path):
    folder, made = trained(tmp_path, kind, tokenizer, model="gpt2" if kind == "chapters" else "llama")
    words, generation = assert_the_same_for_all(folder, made.corpus.tokenizer)
    config, theirs = (json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer_config.json"))
    eos = words.eos_id
    if BEGINS[kind]:
        assert words.encode("the")[0] == generation.bos_token_id == config["bos_token_id"] == eos
        assert theirs["bos_token"] == "<|endoftext|>"
    else:
        assert eos not in words.encode("the") and "bos_token" not in theirs and config["bos_token_id"] is None
        begin = {"one document": "\n"}.get(kind, ".")
        assert words.token_bytes(generation.bos_token_id).decode().strip(" ") == begin
    assert generate(*load_run(folder)[:2], "", GREEDY).prompt_ids == [generation.bos_token_id]


@pytest.mark.parametrize("kind", ["documents", "one document"])
def test_a_run_of_a_program_with_a_tokenizer_that_ends_texts(kind, tmp_path):
    folder, tokenizer = by_hand(tmp_path, kind)
    words, _ = assert_the_same_for_all(folder, tokenizer)
    assert words.encode("the cat") == [words.eos_id] * (kind == "documents") + tokenizer.encode("the cat")[:-1]


@pytest.mark.parametrize("kind", ["documents", "one document"])
def test_an_old_run_folder_begins_as_before(kind, tmp_path):
    """It says add_bos, and nothing else: <|endoftext|> goes before every prompt, and `encode` adds nothing."""
    folder, _ = trained(tmp_path, kind, "bpe")
    edit(folder / "tokenizer.json", post_processor=None)
    edit(folder / "tokenizer_config.json", bos_token=...)
    edit(folder / "config.json", bos_token_id=0)
    edit(folder / "generation_config.json", bos_token_id=..., add_bos=True)
    model, tokenizer, generation = load_run(folder)
    eos, bare = tokenizer.eos_id, tokenizer.encode("the cat")
    assert eos not in bare
    for config in (generation, GREEDY):
        ids = generate(model, tokenizer, "the cat", config.replace(max_new_tokens=1)).prompt_ids
        assert ids == [eos, *bare]
    assert generate(model, tokenizer, "the cat", GREEDY.replace(add_bos=False)).prompt_ids == bare


def edit(path, **changes):
    """Change fields of a JSON file; a value of ... removes the field."""
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


@pytest.mark.parametrize("says", [{}, {"bos_token_id": 3}, {"bos_token_id": 3, "template": True}], ids=str)
def test_a_foreign_folder_begins_as_it_says(says, tmp_path):
    """Without a rule nothing goes before a prompt, also where a bos token is named; with nothing else, a text begins
    with it."""
    folder, made = trained(tmp_path, "one document", "bpe")
    (folder / "generation_config.json").unlink()
    (folder / "training.json").unlink()
    edit(folder / "config.json", bos_token_id=says.get("bos_token_id"))
    token = json.loads((folder / "tokenizer.json").read_text())["added_tokens"][0]
    if "template" in says:
        edit(folder / "config.json", bos_token_id=token["id"])
        edit(folder / "tokenizer.json", post_processor={
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": token["content"], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                token["content"]: {"id": token["content"], "ids": [token["id"]], "tokens": [token["content"]]}
            },
        })  # fmt: skip
    model, tokenizer, generation = load_run(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    for config in (GREEDY, generation.replace(max_new_tokens=2)):
        assert generate(model, tokenizer, "the cat", config).prompt_ids == words("the cat")["input_ids"]
        first = generate(model, tokenizer, "", config).prompt_ids
        assert first == [token["id"] if says.get("bos_token_id") is None or "template" in says else 3]


@pytest.mark.parametrize("kind", ["documents", "one document"])
def test_evaluation_begins_a_text_as_the_folder_does(kind, tmp_path):
    folder, made = trained(tmp_path, kind, "bpe")
    tokenizer = load_run(folder).tokenizer
    (tmp_path / "new.txt").write_text("the cat sat.<|endoftext|>the dog sat.")
    batches, _ = evaluation_data(folder, str(tmp_path / "new.txt"), tokenizer, 64, 4)
    ((x, y),) = batches
    cat, dog = (tokenizer.encode(f"the {animal} sat.", add_special_tokens=False) for animal in ("cat", "dog"))
    eos = tokenizer.eos_id
    expected = [eos] * (kind == "documents") + [*cat, eos, *dog]
    assert [*x[0, : len(expected) - 1].tolist(), dog[-1]] == expected
    assert np.count_nonzero(y != -100) == len(expected) - 1


def test_what_goes_on_trains_on_the_same_rows(tmp_path):
    """The tokenizer of the folder begins texts; the data sets that are made with it begin theirs once."""
    folder, made = trained(tmp_path, "documents", "bpe")
    again = Setup.prepare(made.recipe, load_run(folder).tokenizer, made.corpus.sha256)
    for one, other in zip(again.corpus.dataset.batch(3, 4, 0), made.corpus.dataset.batch(3, 4, 0), strict=True):
        np.testing.assert_array_equal(one, other)
