"""What `minillm info` says of a folder, and `minillm eval` of a model that a plain text says nothing of."""

import re

import pytest

from minillm import kernels, models
from minillm.cli import info, main
from minillm.tokenizer import CharTokenizer
from minillm.tokenizer.chat_format import ChatFormat

TOKENIZER = CharTokenizer.train(["abc \n"], special_tokens=("<pad>", "</s>"))
V = TOKENIZER.vocab_size
MODELS = {
    "gpt2": lambda: models.GPT2(models.GPT2Config(V, n_positions=8, n_embd=12, n_layer=1, n_head=3), 0),
    "llama": lambda: models.Llama(models.LlamaConfig(V, 12, 10, 1, 3, 1, max_position_embeddings=8, eos_token_id=1), 0),
    "t5": lambda: models.T5(models.T5Config(V, 12, 4, 8, 1, num_heads=2, tie_word_embeddings=False), 0),
    "rnn": lambda: models.RecurrentLM(models.RecurrentLMConfig(V, 12), 0),
}
PARTS = {
    "gpt2": ["embedding", "attention", "mlp", "norms"],
    "llama": ["embedding", "attention", "mlp", "head", "norms"],
    "t5": ["embedding", "attention", "cross-attention", "mlp", "head", "norms"],
    "rnn": ["embedding", "recurrence", "norms"],
}


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture(name, tmp_path):
    model = MODELS[name]()
    model.save_pretrained(tmp_path / "model", tokenizer=TOKENIZER)
    told = info.of_folder(tmp_path / "model")
    parts = re.findall(r"^  (\S+) +([\d,]+) +[\d.]+%$", told, re.MULTILINE)
    assert [kind for kind, _ in parts] == PARTS[name]
    assert sum(int(count.replace(",", "")) for _, count in parts) == model.num_parameters()
    norms = sum(p.size for n, p in model.named_parameters() if "norm" in n or "ln_" in n)
    assert int(parts[-1][1].replace(",", "")) == norms
    assert "special tokens" in told and "<pad> = 0, </s> = 1" in told
    assert "</s> (1)" in told and ("bytes for each token" in told) == (name in ("gpt2", "llama"))
    assert max(map(len, told.splitlines())) <= 120


def test_what_to_type(tmp_path):
    model, tokenizer = MODELS["llama"](), CharTokenizer.train(["abc \n"], special_tokens=("<pad>", "</s>"))
    model.save_pretrained(tmp_path / "plain", tokenizer=tokenizer)
    tokenizer.chat_format = ChatFormat("{{ messages[0].content }}")
    model.save_pretrained(tmp_path / "chat", tokenizer=tokenizer)
    told = [re.sub(r" +", " ", info.of_folder(tmp_path / name)) for name in ("plain", "chat")]
    assert f"\ntry minillm generate {tmp_path / 'plain'}\n" in told[0] and "minillm chat" not in told[0]
    assert f"\ntry minillm chat {tmp_path / 'chat'}\n minillm why {tmp_path / 'chat'} 'Hello!'\n" in told[1]


def test_eval_of_an_encoder_decoder_is_one_line(tmp_path, capsys):
    MODELS["t5"]().save_pretrained(tmp_path / "model", tokenizer=TOKENIZER)
    (tmp_path / "text.txt").write_text("abc cab\n" * 9)
    assert main(["eval", str(tmp_path / "model"), "--data", str(tmp_path / "text.txt")]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("minillm: T5 reads a question and writes an answer") and complaint.count("\n") == 1


def test_an_answer_is_printed_without_its_question(tmp_path, capsys):
    MODELS["t5"]().save_pretrained(tmp_path / "model", tokenizer=TOKENIZER)
    assert main(["generate", str(tmp_path / "model"), "cab cab", "--max-new-tokens", "3", "--seed", "0"]) == 0
    assert not capsys.readouterr().out.startswith("cab cab")


def test_whether_the_settings_of_the_process_are_changed_is_told(monkeypatch):
    rows = {}
    for kind in ("tuned", "plain"):
        monkeypatch.setenv("MINILLM_PROCESS", kind)
        rows[kind] = re.search(r"^process +(.*)$", info.of_installation(), re.MULTILINE)[1]
    tuned = "tuned (MINILLM_PROCESS=plain leaves its settings alone)"
    assert rows == {"tuned": tuned if kernels.KERNELS == "numba" else "left alone", "plain": "left alone"}
