"""Chat templates: the texts and ids of transformers, on 200 conversations in all families."""

import json
import random

import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("jinja2")

from minillm import chat, models
from minillm.cli import main
from minillm.tokenizer import BPETokenizer, load
from minillm.tokenizer.chat_format import ChatFormat
from tests.chat_templates import FAMILIES, GENERATION, SPECIALS, TOOLS, conversation


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """A folder that minillm wrote, opened here and there."""
    template, tokens, *known = FAMILIES[request.param]
    tokenizer = BPETokenizer.train(["Who has the red ball? Mia has it."] * 3, 300, SPECIALS)
    tokenizer.chat_format = ChatFormat(template, tokens=tokens)
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer.save(folder)
    return load(folder), transformers.AutoTokenizer.from_pretrained(folder), known


def conversations(known, count):
    _, system, tools = known
    for seed in range(count):
        rng = random.Random(seed)
        yield conversation(rng, system, tools), TOOLS if tools and rng.random() < 0.5 else None


def test_the_text_is_theirs(family):
    ours, theirs, known = family
    for i, (messages, tools) in enumerate(conversations(known, 200)):
        wanted = theirs.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=i % 2 == 0, date_string="26 Jul 2024"
        )
        assert chat.render(messages, ours, i % 2 == 0, tools=tools, date_string="26 Jul 2024") == wanted


def test_the_date_of_today_is_theirs(family):
    ours, theirs, _ = family
    messages = [{"role": "user", "content": "Hello!"}]
    assert chat.render(messages, ours) == theirs.apply_chat_template(messages, tokenize=False)


def test_the_ids_are_theirs(family):
    ours, theirs, known = family
    for messages, tools in conversations(known, 60):
        wanted = theirs.apply_chat_template(
            messages, tools=tools, add_generation_prompt=True, return_dict=False, date_string="26 Jul 2024"
        )
        assert chat.prompt(messages, ours, tools=tools, date_string="26 Jul 2024") == wanted


def test_a_message_is_continued_as_there(family):
    ours, theirs, known = family
    for messages, _ in conversations(known, 60):
        content = messages[-1].get("content", "")
        if content.strip() and content.strip() in chat.render(messages, ours):  # they refuse what is not shown whole
            wanted = theirs.apply_chat_template(messages, tokenize=False, continue_final_message=True)
            assert chat.render(messages, ours, continue_final_message=True) == wanted


def test_the_mask_of_a_generation_tag_is_theirs(family):
    ours, theirs, known = family
    for messages, _ in conversations(known, 30):
        if any("tool_calls" in message for message in messages):
            continue
        there = theirs.apply_chat_template(
            messages, chat_template=GENERATION, return_dict=True, return_assistant_tokens_mask=True
        )
        here = chat.encode(messages, ours, template=GENERATION)
        assert here.ids == there["input_ids"]
        assert [int(m) for m in here.mask] == there["assistant_masks"]


def test_a_run_of_sft_begins_a_conversation_once(tmp_path):
    """The template writes <|im_start|>; a tokenizer that put one more before each text would double it."""
    config = models.LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    words = BPETokenizer.train(["Who has the red ball? Mia has it."] * 3, 300)
    words.set_beginning(words.eos_id, True)
    models.Llama(config, rng=0).save_pretrained(tmp_path / "base", tokenizer=words.as_trained())
    asked = [{"role": "user", "content": "Who has it?"}]
    talks = tmp_path / "talks.jsonl"
    talks.write_text(json.dumps({"messages": [*asked, {"role": "assistant", "content": "Mia."}]}))
    assert main(["sft", str(tmp_path / "base"), "--data", str(talks), "--out", str(tmp_path / "run"), "--steps=1"]) == 0
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path / "run"), load(tmp_path / "run")
    text = theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    ids = theirs(text)["input_ids"]
    assert ids == chat.prompt(asked, ours) and theirs.convert_ids_to_tokens(ids).count("<|im_start|>") == 2
    assert ids == theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "run")
    assert theirs.convert_tokens_to_ids("<|im_end|>") in generation.eos_token_id
