"""GGUF files: blocks, settings and tensors, tokenizers, whole models there and back, and files from strangers."""

import re
import struct
import tracemalloc

import numpy as np
import pytest

from minillm import files, kernels, models, tokenizer
from minillm.cli import main
from minillm.files import gguf as format
from minillm.files.blocks import KINDS, dequantize, quantize
from minillm.models.folder.saving import read_chat_template
from minillm.models.rope import RopeScaling
from minillm.tokenizer.from_gguf import from_settings, to_settings
from minillm.tokenizer.sentencepiece_bpe import SentencePieceBPE, ranks_of_scores
from minillm.tokenizer.specials import Specials, Template
from minillm.training.convert import to_file, to_folder
from minillm.training.run import load_run

TEXT = "One day a small fox saw the red ball. 'It's mine!' it said, 12 times. \n The fox ran home. naïve 日本\n"
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=48, bos_token_id=0, eos_token_id=0)  # fmt: skip
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


@pytest.fixture(scope="module")
def bpe():
    return tokenizer.BPETokenizer.train([TEXT], 300, SPECIALS, pattern="smollm2")


def kinds_of_llama():
    """Models that a GGUF file can hold."""
    C = models.LlamaConfig
    yield "llama", C, {}
    yield "llama untied head size", C, {"tie_word_embeddings": False, "head_dim": 6}
    yield "llama biases", C, {"attention_bias": True, "mlp_bias": True}
    yield "llama linear", C, {"rope_scaling": RopeScaling("linear", 2.0, 48)}
    yield "llama yarn", C, {"rope_scaling": RopeScaling("yarn", 2.0, 24)}
    scaling = RopeScaling("llama3", 8.0, 8192)
    yield "llama 3", C, {"rope_scaling": scaling, "rope_theta": 5e5, "max_position_embeddings": 65536, "head_dim": 16}
    yield "mistral", models.MistralConfig, {"sliding_window": None}
    yield "qwen2", models.Qwen2Config, {}
    yield "qwen3", models.Qwen3Config, {"head_dim": 10}
    yield "smollm3", models.SmolLM3Config, {"num_hidden_layers": 5}


KINDS_OF_LLAMA = [pytest.param(config, changes, id=name) for name, config, changes in kinds_of_llama()]


def model_of(config, changes, V=300):
    model = models.Llama(config(**{"vocab_size": V, "tie_word_embeddings": True, **SIZES, **changes}), 0).eval()
    rng = np.random.default_rng(1)
    for parameter in model.parameters():
        low, high = (0.5, 1.5) if parameter.ndim == 1 else (-0.3, 0.3)
        parameter.data = rng.uniform(low, high, parameter.shape).astype(np.float32)
    return model


def folder_of(tmp_path, bpe, config=models.LlamaConfig, **changes):
    model = model_of(config, changes)
    model.save_pretrained(
        tmp_path / "folder", tokenizer=bpe, chat_template=TEMPLATE, generation_config={"eos_token_id": [2, 0]}
    )
    return model, tmp_path / "folder"


def logits(model, seed=0):
    return model(np.random.default_rng(seed).integers(0, 300, (2, 30))).data


@pytest.fixture(scope="module")
def written(tmp_path_factory, bpe):
    """A small model as a file in float32."""
    path = tmp_path_factory.mktemp("gguf")
    model, folder = folder_of(path, bpe)
    to_file(folder, path / "model.gguf", "f32")
    return model, path / "model.gguf"


# ---- blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_have_the_values_that_llama_cpps_package_reads():
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    for number, kind in KINDS.items():
        theirs = gguf.GGMLQuantizationType(number)
        assert (theirs.name, *gguf.GGML_QUANT_SIZES[theirs]) == kind
        raw = rng.integers(0, 256, (3, 2, kind.bytes), dtype=np.uint8)
        raw &= 0b10111011  # no scale is infinite
        if kind.name in ("F64", "F32"):
            expected = raw.view({"F64": "<f8", "F32": "<f4"}[kind.name]).astype(np.float32).reshape(3, -1)
        else:
            expected = gguf.quants.dequantize(raw.reshape(3, -1), theirs)
        np.testing.assert_array_equal(dequantize(raw, kind), expected, err_msg=kind.name)


def test_q8_0_is_written_as_llama_cpps_package_writes_it():
    w = np.random.default_rng(0).standard_normal((7, 96)).astype(np.float32)
    w[0, :32], w[1, 3] = 0, 1e3
    blocks = quantize(w, KINDS[8])
    back = dequantize(blocks.reshape(7, 3, 34), KINDS[8])
    largest = np.abs(w.reshape(7, 3, 32)).max(-1, keepdims=True)
    assert (np.abs(back.reshape(7, 3, 32) - w.reshape(7, 3, 32)) <= largest / 127 * 0.51 + 1e-3 * largest).all()
    gguf = pytest.importorskip("gguf")
    np.testing.assert_array_equal(blocks, gguf.quants.quantize(w, gguf.GGMLQuantizationType.Q8_0))


def test_a_block_by_hand():
    half = np.array([0.5, -1.0], "<f2").tobytes()
    q4_1 = np.frombuffer(half + bytes([0x2F] * 16), np.uint8).reshape(1, 20)
    np.testing.assert_array_equal(dequantize(q4_1, KINDS[3]), [6.5] * 16 + [0.0] * 16)
    q5_0 = np.frombuffer(half[:2] + bytes([1, 0, 0, 0x80]) + bytes([0x2F] * 16), np.uint8).reshape(1, 22)
    expected = np.array([15 + 16] + [15] * 15 + [2] * 15 + [2 + 16]) - 16
    np.testing.assert_array_equal(dequantize(q5_0, KINDS[6]), 0.5 * expected)


# ---- models there and back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config, changes", KINDS_OF_LLAMA)
def test_a_model_comes_back_from_its_file(tmp_path, bpe, config, changes):
    model, folder = folder_of(tmp_path, bpe, config, **changes)
    to_file(folder, tmp_path / "model.gguf", "f32")
    loaded = models.from_pretrained(tmp_path / "model.gguf")
    assert loaded.context == model.context
    np.testing.assert_allclose(logits(loaded), logits(model), rtol=0, atol=1e-5)
    assert not loaded.training and loaded.num_parameters() == model.num_parameters()


def test_rows_of_queries_and_keys_stand_in_pairs(written):
    """llama.cpp turns neighbours: row 2 i of a head is our row i, row 2 i + 1 our row i + D / 2."""
    model, path = written
    stored, ours = files.open_gguf(path).tensors, model.state_dict()
    order = [0, 4, 1, 5, 2, 6, 3, 7]  # of a head of 8
    for name, heads in (("q", 4), ("k", 2)):
        expected = ours[f"model.layers.1.self_attn.{name}_proj.weight"].reshape(heads, 8, 32)[:, order]
        np.testing.assert_array_equal(stored[f"blk.1.attn_{name}.weight"].read(), expected.reshape(-1, 32))
    np.testing.assert_array_equal(stored["blk.1.attn_v.weight"].read(), ours["model.layers.1.self_attn.v_proj.weight"])


def test_info_tells_what_a_file_is(written, capsys):
    assert main(["info", str(written[1]), "--context", "10"]) == 0
    said = capsys.readouterr().out
    for told in (
        "4 heads of 8, 2 of keys and values; rotary, theta 10000", "down(silu(gate) * up), 32 -> 64", "(tied)",
        "256 bytes for each token of a text, in float32\n  for 10 ", "0.0 MB, beside the weights", "32.00 bits each",
        "BPETokenizer, 300 tokens",
        "<|im_end|> (2), <|endoftext|> (0)", "{% for m in messages %}<|im_start|>",
    ):  # fmt: skip
        assert told in said, told
    assert max(map(len, said.splitlines())) <= 120


def test_info_tells_what_blocks_take(tmp_path, bpe, capsys):
    """Matrices as they are in the file, norms in float32 there and here; keys and values in float16."""
    _, folder = folder_of(tmp_path, bpe)
    to_file(folder, tmp_path / "model.gguf", "q8_0")
    said = []
    for path in (tmp_path / "model.gguf", folder):
        assert main(["info", str(path)]) == 0
        said.append(capsys.readouterr().out)
    for told in ("in memory", " MB, 1.00 of the file\n", "128 bytes for each token of a text, in float16"):
        assert told in said[0], told
    of_file, of_folder = (re.sub(r" +", " ", text.partition("\ncache")[0]) for text in said)
    assert of_file == of_folder and of_file.startswith("architecture Llama (model_type llama)")


def test_a_command_opens_a_file_once(tmp_path, bpe, monkeypatch):
    """To read a large vocabulary takes a while; and `info` makes floats of no block."""
    path = tmp_path / "model.gguf"
    to_file(folder_of(tmp_path, bpe)[1], path, "q8_0")
    open_one, read, opened, floats = format._open_one, format.dequantize, [], []
    monkeypatch.setattr(format, "_open_one", lambda path: opened.append(path) or open_one(path))
    monkeypatch.setattr(format, "dequantize", lambda blocks, kind: floats.append(kind.name) or read(blocks, kind))
    for name, *more in (["info"], ["convert", str(tmp_path / "new")], ["generate", "a", "--max-new-tokens=1"]):
        assert main([name, str(path), *more]) == 0
        again = name == "generate" and kernels.KERNELS == "numpy"  # where blocks are not read, floats are needed
        assert opened == [path] * (1 + again), name
        assert name != "info" or set(floats) == {"F32"}
        opened.clear()
    file = files.open_gguf(path)
    assert files.open_gguf(file) is file and load_run(file).tokenizer.fingerprint() == bpe.fingerprint()
    assert opened == [path]


@pytest.mark.parametrize("kind, error", [("f16", 2e-3), ("q8_0", 2e-2)])
def test_fewer_bits(tmp_path, bpe, kind, error):
    model, folder = folder_of(tmp_path, bpe)
    to_file(folder, tmp_path / "model.gguf", kind)
    loaded = models.from_pretrained(tmp_path / "model.gguf").state_dict()
    changed = 0
    for name, w in model.state_dict().items():
        np.testing.assert_allclose(loaded[name], w, rtol=0, atol=error * np.abs(w).max())
        changed += not np.array_equal(loaded[name], w)
    assert changed == sum(w.ndim == 2 for w in model.state_dict().values())
    stored = files.open_gguf(tmp_path / "model.gguf").tensors
    assert {t.dtype for t in stored.values()} == {"F32", kind.upper()}
    assert stored["blk.0.ffn_up.weight"].blocks().shape == ((64, 1, 34) if kind == "q8_0" else (64, 32, 2))


def test_generate_tells_that_a_file_has_learned_to_answer(written, capsys):
    assert main(["generate", str(written[1]), "abc", "--max-new-tokens", "2"]) == 0
    assert f"minillm chat {written[1]}" in capsys.readouterr().err


def test_tokenizer_template_and_ends_come_back(written, bpe):
    _, path = written
    model, words, generation = load_run(path)
    assert words.special_tokens == bpe.special_tokens and words.pattern == "smollm2"
    assert words.fingerprint() == bpe.fingerprint()
    assert generation.eos_token_id == (2, 0) and generation.add_bos is False
    assert read_chat_template(path) == TEMPLATE
    opened = tokenizer.load(path)
    assert opened.chat_format.template == TEMPLATE and not opened.begins_prompts
    assert tokenizer.load(path).encode(TEXT) == bpe.encode(TEXT)


def test_a_file_becomes_a_folder_that_says_the_same(tmp_path, written):
    model, path = written
    to_folder(path, tmp_path / "new")
    back, words, generation = load_run(tmp_path / "new")
    np.testing.assert_array_equal(logits(back), logits(models.from_pretrained(path)))
    assert generation.eos_token_id == (2, 0)
    config = files.read_json(tmp_path / "new/tokenizer_config.json")
    assert (config["eos_token"], config["chat_template"]) == ("<|im_end|>", TEMPLATE)
    assert (tmp_path / "new/chat_template.jinja").read_text() == TEMPLATE
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        to_folder(path, tmp_path / "new")
    with pytest.raises(ValueError, match="is no GGUF file"):
        to_folder(tmp_path / "new", tmp_path / "newer")


REFUSED = [
    (models.MistralConfig, {"sliding_window": 5}, "sliding window have no place"),
    (models.LlamaConfig, {"rope_scaling": RopeScaling("dynamic", 2.0, 48)}, "type dynamic has no place"),
    (models.SmolLM3Config, {"no_rope_layers": (0, 1)}, "every fourth"),
    (models.LlamaConfig, {"rope_scaling": RopeScaling("llama3", 2.0, 48)}, "settings of Llama 3 only"),
]


@pytest.mark.parametrize("config, changes, message", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_not_written(tmp_path, bpe, config, changes, message):
    _, folder = folder_of(tmp_path, bpe, config, **changes)
    with pytest.raises(ValueError, match=message):
        to_file(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


# ---- several files ---------------------------------------------------------------------------------------------------


def split(path, parts=3):
    """Write a file as several, with all settings in the first."""
    file = files.open_gguf(path)
    names = [*file.tensors]
    made = []
    for i in range(parts):
        own = {name: file.tensors[name].read() for name in names[i::parts]}
        settings = (file.settings if i == 0 else {}) | {
            "split.no": i, "split.count": parts, "split.tensors.count": len(names)
        }  # fmt: skip
        made.append(path.with_name(f"part-{i + 1:05}-of-{parts:05}.gguf"))
        files.write_gguf(made[-1], settings, own, dict.fromkeys(own, "F32"))
    return made


def test_a_model_in_several_files(tmp_path, written):
    model, path = written
    (tmp_path / "model.gguf").write_bytes(path.read_bytes())
    parts = split(tmp_path / "model.gguf")
    for part in parts:  # whichever is named
        np.testing.assert_array_equal(logits(models.from_pretrained(part)), logits(model))
        assert tokenizer.load(part).vocab_size == 300
    swapped = parts[1].read_bytes()
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(ValueError, match="split.no must be 1; got 2"):
        models.from_pretrained(parts[0])
    parts[1].write_bytes(swapped)
    parts[0].rename(tmp_path / "other.gguf")
    with pytest.raises(ValueError, match="one of 3 parts, and must be named so: NAME-00001-of-00003.gguf"):
        models.from_pretrained(tmp_path / "other.gguf")
    with pytest.raises(FileNotFoundError):
        models.from_pretrained(parts[1])


# ---- tokenizers ------------------------------------------------------------------------------------------------------

PIECES = {"<unk>": 0, "<s>": 0, "</s>": 0, **{f"<0x{i:02X}>": 0 for i in range(256)}}


def sentencepiece_bpe(prefix_space=True, template=True):
    order = ("▁t", "he", "▁the", "▁the▁", "er", "▁", "t", "h", "e", "r", "é")
    scores = {piece: -float(i) for i, piece in enumerate(order)}
    names = [*PIECES, *scores]
    return SentencePieceBPE(
        names, ranks_of_scores(scores), Specials({"<unk>": 0, "<s>": 1, "</s>": 2}), range(3, 259), 0, prefix_space,
        Template((1,)) if template else None,
    )  # fmt: skip


def test_characters_are_joined_by_scores_and_spelled_in_bytes():
    t = sentencepiece_bpe()
    ids = {piece: id for id, piece in enumerate(t.pieces)}
    assert t.encode("the") == [1, ids["▁the"]]
    assert t.encode("the the") == [1, ids["▁the"], ids["▁the"]]
    assert t.encode("the er") == [1, ids["▁the▁"], ids["er"]]  # a piece that goes on beyond a space
    spelled = [id + 3 for id in "日".encode()]
    assert t.encode("é日", add_special_tokens=False) == [ids["▁"], ids["é"], *spelled]
    assert t.encode("") == [1] and t.encode("x\n", add_special_tokens=False) == [ids["▁"], 3 + ord("x"), 3 + 10]
    for text in ("the the", " the", "  日本 er\n", "</s> the"):
        assert t.decode(t.encode(text), skip_special_tokens=True) == text
        stream = t.stream_decoder()
        ids_of = t.encode(text, add_special_tokens=False)
        assert "".join(map(stream.push, ids_of)) + stream.flush() == text
    assert t.encode("</s>", allowed_special="all", add_special_tokens=False) == [2]
    assert t.encode_with_offsets("é日e", add_special_tokens=False)[1] == [(0, 0), (0, 1), *[(1, 2)] * 3, (2, 3)]
    assert t.encode_batch(["the", "é"]) == [t.encode("the"), t.encode("é")]


@pytest.mark.parametrize("prefix_space, template", [(True, True), (False, False)])
def test_a_sentencepiece_tokenizer_comes_back_from_both_files(tmp_path, prefix_space, template):
    t = sentencepiece_bpe(prefix_space, template)
    t.save(tmp_path)
    settings = to_settings(t, 280) | {"tokenizer.ggml.bos_token_id": 1}
    back = tokenizer.load(tmp_path), from_settings(files.GGUF(tmp_path, settings, {}))
    for text in ("the the there", "  er\n日本é", "", "tthehe er r"):
        for other in back:
            assert other.encode(text) == t.encode(text)
            assert other.decode(t.encode(text)) == t.decode(t.encode(text))
    assert back[1].vocab_size == 280  # as many as the model has rows


def test_long_words_take_linear_time():
    t = sentencepiece_bpe()
    assert len(t.encode("e" * 200_000)) == 200_002


@pytest.mark.parametrize("changes, message", [
    ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model must be one of gpt2, llama; got 'bert'"),
    ({"tokenizer.ggml.pre": "default"}, "tokenizer.ggml.pre must be one of gpt-2, smollm, .*; got 'default'"),
    ({"tokenizer.ggml.tokens": 3}, "tokenizer.ggml.tokens must be a list of texts; got 3"),
    ({"tokenizer.ggml.merges": ["a"]}, "tokenizer.ggml.merges: 'a' must be two tokens"),
    ({"tokenizer.ggml.merges": ["a zzzz"]}, "tokenizer.ggml.merges: 'a zzzz' must be two tokens"),
    ({"tokenizer.ggml.token_type": np.ones(3, np.int32)}, "must have a number for each of 300 tokens; got 3"),
    ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 300}, "bos_token_id = 300 is no token"),
    ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.scores must be a list of numbers; it is missing"),
])  # fmt: skip
def test_tokenizers_that_are_wrong(bpe, tmp_path, changes, message):
    settings = to_settings(bpe, 300) | changes
    with pytest.raises(ValueError, match=f"^{tmp_path}: .*{message}"):
        from_settings(files.GGUF(tmp_path, settings, {}))


# ---- from strangers --------------------------------------------------------------------------------------------------


def rewritten(path, out, changes=None, tensors=None):
    """The file with other settings (... takes one away) and tensors."""
    file = files.open_gguf(path)
    settings = {key: value for key, value in (file.settings | (changes or {})).items() if value is not ...}
    arrays = {name: stored.read() for name, stored in file.tensors.items()} | (tensors or {})
    arrays = {name: array for name, array in arrays.items() if array is not ...}
    files.write_gguf(out, settings, arrays, dict.fromkeys(arrays, "F32"))
    return out


WRONG = [
    ({"general.architecture": "mamba"}, {}, "general.architecture must be one of llama, .*; got 'mamba'"),
    ({"general.architecture": ...}, {}, "general.architecture must be a text; it is missing"),
    ({"llama.block_count": ...}, {}, "llama.block_count must be a whole number; it is missing"),
    ({"llama.block_count": "2"}, {}, "llama.block_count must be a whole number; got '2'"),
    ({"llama.block_count": 3}, {}, "missing model.layers.2.input_layernorm.weight"),
    ({"llama.block_count": 10**9}, {}, "num_hidden_layers = 1000000000, but there are only 20 tensors"),
    ({"llama.attention.head_count": 0}, {}, "llama.attention.value_length must be|num_attention_heads must be"),
    ({"llama.rope.dimension_count": 4}, {}, "llama.rope.dimension_count must be the size of a head, 8; got 4"),
    ({"llama.expert_count": 8}, {}, "llama.expert_count = 8; to read .* it: --ignore-unknown llama.expert_count"),
    ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, {}, "longrope.* is not implemented"),
    ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, {}, "rms_epsilon must be a number; got nan"),
    ({}, {"blk.0.attn_q.weight": np.zeros((5, 32), np.float32)}, r"q_proj.weight has shape \(5, 32\), expected \(32,"),
    ({}, {"blk.0.attn_q.weight": ...}, "missing model.layers.0.self_attn.q_proj.weight"),
    ({}, {"blk.0.odd.weight": np.zeros(3, np.float32)}, "unexpected blk.0.odd.weight .*--ignore-unknown blk.0.odd"),
    ({}, {"rope_freqs.weight": np.ones(4, np.float32) * 3}, "rope_freqs.weight holds other numbers"),
]


@pytest.mark.parametrize("changes, tensors, message", WRONG)
def test_what_is_wrong_is_said(tmp_path, written, changes, tensors, message):
    path = rewritten(written[1], tmp_path / "wrong.gguf", changes, tensors)
    with pytest.raises(ValueError, match=message) as caught:
        models.from_pretrained(path)
    assert str(caught.value).startswith(str(path))


def test_whoever_knows_better_reads_on(tmp_path, written):
    model, path = written
    extra = {"blk.0.odd.weight": np.zeros(3, np.float32)}
    path = rewritten(path, tmp_path / "odd.gguf", {"llama.odd": 3}, extra)
    loaded = models.from_pretrained(path, ignore_unknown=("llama.odd", "blk.0.odd.weight"))
    np.testing.assert_array_equal(logits(loaded), logits(model))
    command = ["generate", str(path), "One", "--max-new-tokens", "1"]
    assert main(command) == 2
    assert main([*command, "--ignore-unknown", "llama.odd", "--ignore-unknown", "blk.0.odd.weight"]) == 0


def test_headers_that_are_wrong(tmp_path, written):
    data = written[1].read_bytes()
    path = tmp_path / "wrong.gguf"
    for changed, message in (
        (data[:10], "10 bytes are too few"),
        (b"GGML" + data[4:], "does not begin with GGUF"),
        (data[:4] + struct.pack(">I", 3) + data[8:], "a file for big-endian machines"),
        (data[:4] + struct.pack("<I", 1) + data[8:], "GGUF version 1 is not implemented"),
        (data[:8] + struct.pack("<Q", 2**60) + data[16:], "claims 1,152,921,504,606,846,976 tensors"),
        (data[:16] + struct.pack("<Q", 2**60) + data[24:], "claims 1,152,921,504,606,846,976 settings"),
        (data[:24] + struct.pack("<Q", 2**63) + data[32:], "the key of setting 0 has 9,223,372,036,854,775,808 bytes"),
        (data[:-64], "goes on beyond the end"),
        (data + bytes(64), "the tensors end at byte"),
    ):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=f"^{path}: .*{message}"):
            files.open_gguf(path)


def mutated(data, rng):
    """The file with bytes of its header changed, or cut off."""
    data = bytearray(data)
    header = data.index(b"token_embd.weight") + 3000
    way = rng.integers(0, 5)
    at = int(rng.integers(0, min(header, len(data) - 8)))
    if way == 0:
        return bytes(data[:at])
    if way == 1:
        data[at] ^= 1 << int(rng.integers(0, 8))
    elif way == 2:
        data[at : at + 8] = struct.pack("<Q", [0, 1, 255, 2**31, 2**32 - 1, 2**63, 2**64 - 1][rng.integers(0, 7)])
    elif way == 3:
        del data[at : at + int(rng.integers(1, 9))]
    else:
        data[at : at + 4] = rng.bytes(4)
    return bytes(data)


def test_300_mutated_files(tmp_path, written):
    """Each is refused with a ValueError that names the file, or all that it says was understood."""
    rng = np.random.default_rng(5)
    good, refused = written[1].read_bytes(), 0
    path = tmp_path / "mutated.gguf"
    for _ in range(300):
        path.write_bytes(mutated(good, rng))
        tracemalloc.start()
        for read in (models.from_pretrained, tokenizer.load):
            try:
                read(path)
            except ValueError as error:
                assert str(error).startswith(str(path)), error
                refused += 1
        assert tracemalloc.get_traced_memory()[1] < 2 * len(good) + 2_000_000
        tracemalloc.stop()
    assert refused > 200


# ---- the command line ------------------------------------------------------------------------------------------------


def test_commands_take_the_file(tmp_path, written, capsys):
    path = str(written[1])
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 3)
    assert main(["generate", path, "One day", "--max-new-tokens", "3", "--temperature", "0"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("One day") and "[length:" in said.err
    assert main(["eval", path, "--data", str(text), "--context", "16"]) == 0
    assert "perplexity" in capsys.readouterr().out
    assert main(["quantize", path, "--out", str(tmp_path / "small"), "--data", str(text), "--context", "16"]) == 0
    assert "in int8" in capsys.readouterr().out
    assert load_run(tmp_path / "small").generation.eos_token_id == (2, 0)
    assert main(["convert", path, str(tmp_path / "folder")]) == 0
    assert main(["convert", str(tmp_path / "folder"), str(tmp_path / "new.gguf"), "--type", "q8_0"]) == 0
    assert main(["tokenize", path, "One day"]) == 0
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "folder"), str(tmp_path / "folder2")]) == 2
    assert "one of the two must be a GGUF file" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "none.gguf"), str(tmp_path / "folder2")]) == 2
    assert f"there is no file and no folder {tmp_path / 'none.gguf'}" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "folder"), str(tmp_path / "x.gguf"), "--type", "q4"]) == 2
    assert "--type must be one of f32, f16, q8_0; got 'q4'" in capsys.readouterr().err
