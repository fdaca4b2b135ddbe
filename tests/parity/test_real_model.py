"""A real chat model, SmolLM2-135M-Instruct, from the file of a package: see smollm2.py.

The oracles: transformers for the logits and the text, and the tokenizers library for the ids, with the components that
the published tokenizer has. (transformers makes its own tokenizer of a GGUF file without cutting digits apart.)
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minillm import files, generate, models, tokenizer
from minillm.models.folder.saving import read_chat_template
from minillm.training.convert import to_file, to_folder
from minillm.training.run import load_run
from tests.gguf_oracle import by_transformers
from tests.parity import smollm2
from tests.parity.smollm2 import TOKENS
from tests.tokenizer_texts import agree, strings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("gguf", reason="transformers reads GGUF files with the package gguf")
FILE = smollm2.file()


def test_the_readme_finds_the_file():
    """The package itself cannot be imported without its dependencies."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = re.search(r'^FILE=\$\(python -c "(.*)"\)$', readme, re.MULTILINE)[1]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(FILE)


@pytest.fixture(scope="module")
def opened():
    return load_run(FILE)


@pytest.fixture(scope="module")
def prompts(opened):
    return smollm2.prompts_of(opened.tokenizer)


def texts_of(model, prompts, tokens=TOKENS):
    """What transformers says, greedily."""
    answers = []
    for ids in prompts:
        with torch.no_grad():
            new = model.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=tokens, do_sample=False,
                eos_token_id=2, pad_token_id=2,
            )  # fmt: skip
        answers.append([id for id in new[0, len(ids) :].tolist() if id != 2])
    return answers


def ours(opened, prompts, tokens=TOKENS):
    config = opened.generation.replace(max_new_tokens=tokens, temperature=0)
    results = [generate(opened.model, opened.tokenizer, ids, config) for ids in prompts]
    return [[id for id in result.ids if id != 2] for result in results], results


def test_logits_and_greedy_text_are_those_of_transformers(opened, prompts):
    theirs = by_transformers(FILE)
    ids = np.random.default_rng(0).integers(0, 49152, (2, 40))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    assert np.abs(opened.model(ids).data - expected).max() < 1e-3 * np.abs(expected).max()
    answers, results = ours(opened, prompts)
    expected_texts = texts_of(theirs, prompts)
    assert answers == expected_texts
    assert {result.finish_reason for result in results} == {"end_of_turn", "length"}
    in_blocks = load_run(FILE, stored=True)  # Q4_1, as they lie in the file
    assert isinstance(in_blocks.model, models.StoredModel)
    assert np.abs(in_blocks.model(ids).data - expected).max() < 1e-3 * np.abs(expected).max()
    assert ours(in_blocks, prompts)[0] == expected_texts


def test_ids_of_5000_texts(opened):
    settings = files.open_gguf(FILE).settings
    names = settings["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in settings["tokenizer.ggml.merges"]]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE({name: id for id, name in enumerate(names)}, merges))
    cut = tokenizers.pre_tokenizers
    theirs.pre_tokenizer = cut.Sequence([cut.Digits(individual_digits=True), cut.ByteLevel(add_prefix_space=False)])
    theirs.decoder = tokenizers.decoders.ByteLevel()
    types = settings["tokenizer.ggml.token_type"]
    theirs.add_special_tokens([name for name, kind in zip(names, types, strict=True) if kind == 3])
    lacking = {0x4, 0x6, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2}  # bytes that the published vocabulary has no token for
    texts = [text for text in strings(6000) if not lacking & {*text.encode("utf-8")}]
    assert len(texts) > 5000
    agree(opened.tokenizer, theirs, texts[:5000])


def test_the_template_and_the_ends(opened):
    template = read_chat_template(FILE)
    assert template is not None and "<|im_start|>" in template
    assert opened.generation.eos_token_id == (2,) and opened.generation.bos_token_id == 1
    assert opened.tokenizer.special_tokens["<|im_end|>"] == 2 and opened.model.context == 8192


def test_a_folder_made_of_it_is_opened_by_transformers(tmp_path, opened, prompts):
    folder = tmp_path / "folder"
    to_folder(FILE, folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    message = [{"role": "user", "content": smollm2.QUESTIONS[0]}]
    assert words.apply_chat_template(message, add_generation_prompt=True)["input_ids"] == prompts[0]
    assert (words.eos_token, words.bos_token) == ("<|im_end|>", "<|im_start|>")
    assert model.generation_config.eos_token_id == [2]
    assert texts_of(model, prompts[:2], 12) == ours(opened, prompts[:2], 12)[0]


def test_a_file_made_of_the_folder_is_opened_by_transformers(tmp_path, opened, prompts):
    opened.model.save_pretrained(tmp_path / "folder", tokenizer=opened.tokenizer)
    to_file(tmp_path / "folder", tmp_path / "new.gguf", "q8_0")
    theirs = by_transformers(tmp_path / "new.gguf")
    again = load_run(tmp_path / "new.gguf")
    assert texts_of(theirs, prompts[:2], 12) == ours(again, prompts[:2], 12)[0]
    assert again.tokenizer.fingerprint() == opened.tokenizer.fingerprint()
    assert tokenizer.load(tmp_path / "new.gguf").eos_id == opened.tokenizer.eos_id
    assert again.model.num_parameters() == 134_515_008
