"""Files of tokenizers: what save writes, load reads; and what other programs write, as they mean it."""

import base64
import json

import pytest

from minillm import tokenizer
from minillm.tokenizer import BPETokenizer, UnigramTokenizer
from minillm.tokenizer.byte_level import BYTE_ORDER, to_characters
from minillm.tokenizer.sentencepiece import SentencePieceText
from minillm.tokenizer.specials import Matching, Specials, Template

BYTES = {bytes([byte]): byte for byte in range(256)}


def saved_and_loaded(tok, folder):
    again = tokenizer.load(tok.save(folder))
    assert again.fingerprint() == tok.fingerprint()
    assert again.special_tokens == tok.special_tokens and again.vocab_size == tok.vocab_size
    return again


def test_gaps_between_ids_are_saved_and_loaded(tmp_path):
    tok = BPETokenizer.from_ranks(BYTES, {"<|end|>": 100257})
    for each in (tok, saved_and_loaded(tok, tmp_path)):
        assert each.encode("A<|end|>", "all") == [65, 100257]
        assert each.decode([65, 100257]) == "A<|end|>"


def test_ids_too_high_are_refused_wherever_they_come_from(tmp_path):
    with pytest.raises(ValueError, match=r"from_ranks: the highest of 257 ids is 1000000000"):
        BPETokenizer.from_ranks(BYTES, {"<|end|>": 10**9})
    with pytest.raises(ValueError, match=r"from_ranks: -1 is no id"):
        BPETokenizer.from_ranks(BYTES, {"<|end|>": -1})
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "<x>": 10**9}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="the highest of 2 ids is 1000000000"):
        tokenizer.load(tmp_path)


def test_two_names_for_one_id_as_in_o200k_harmony(tmp_path):
    special = {"<|endofprompt|>": 300, "<|reserved_300|>": 300, "<|call|>": 301}
    tok = BPETokenizer.from_ranks(BYTES, special)
    for each in (tok, saved_and_loaded(tok, tmp_path)):
        assert each.special_tokens == special
        assert each.encode("<|reserved_300|><|endofprompt|><|call|>", "all") == [300, 300, 301]
        assert each.decode([300, 301]) == "<|endofprompt|><|call|>"  # the first name
    with pytest.raises(ValueError, match="id 65 belongs to two tokens, b'A' and b'<x>'"):
        BPETokenizer.from_ranks(BYTES, {"<x>": 65})


def gpt2_files(folder, start="", line_end="\n"):
    vocab = {to_characters(bytes([byte])): i for i, byte in enumerate(BYTE_ORDER)}
    vocab |= {"lo": 256, "low": 257, "<|endoftext|>": 258}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = line_end.join([start + "#version: 0.2", "l o", "lo w", ""])
    (folder / "merges.txt").write_bytes(merges.encode("utf-8"))


@pytest.mark.parametrize(("start", "line_end"), [("", "\n"), ("\ufeff", "\n"), ("\ufeff", "\r\n"), ("", "\r\n")])
def test_gpt2_files_with_a_byte_order_mark_and_windows_line_ends(start, line_end, tmp_path):
    gpt2_files(tmp_path, start, line_end)
    tok = tokenizer.load(tmp_path)
    assert tok.encode("low lo<|endoftext|>", "all") == [257, 220, 256, 258]
    assert tok.special_tokens == {"<|endoftext|>": 258}


def test_rank_files_with_a_byte_order_mark(tmp_path):
    lines = b"".join(base64.b64encode(token) + b" %d\r\n" % id for token, id in BYTES.items())
    (tmp_path / "a.tiktoken").write_bytes(b"\xef\xbb\xbf" + lines)
    assert tokenizer.load(tmp_path / "a.tiktoken").encode("A") == [65]


def test_padding_and_truncation_of_a_file_are_ignored(tmp_path):
    tok = BPETokenizer.train(["low lower"], 262)
    content = tok.to_json()
    content["padding"] = {"strategy": {"Fixed": 32}, "direction": "Right", "pad_id": 0, "pad_token": "x"}
    content["truncation"] = {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    loaded = tokenizer.load(tmp_path)
    assert loaded.encode("low lower") == tok.encode("low lower") and loaded.fingerprint() == tok.fingerprint()


def bpe_with(special=(), plain=(), matching=None, **options):
    names = [*special, *plain]
    ids = {name: 256 + i for i, name in enumerate(names)}
    tokens = [bytes([byte]) for byte in range(256)] + [name.encode("utf-8") for name in names]
    specials = Specials({n: ids[n] for n in special}, {n: ids[n] for n in plain}, matching or {})
    return BPETokenizer(tokens, [], specials, **options)


def shown(tok, text):
    ids, offsets = tok.encode_with_offsets(text, "all")
    assert ids == tok.encode(text, "all")
    return [text[start:end] for start, end in offsets]


def test_exact_tokens_are_found_before_normalized_ones(tmp_path):
    tok = bpe_with(["<b>"], ["<a<b>"], {"<a<b>": Matching(normalized=True)})
    for each in (tok, saved_and_loaded(tok, tmp_path)):
        assert shown(each, "x<a<b>y") == ["x", "<", "a", "<b>", "y"]
    assert shown(bpe_with(["<b>"], ["<a<b>"]), "x<a<b>y") == ["x", "<a<b>", "y"]  # both exact: the leftmost


def test_tokens_take_white_space_or_only_whole_words(tmp_path):
    tok = bpe_with(["<l>", "<r>"], ["ww"], {
        "<l>": Matching(lstrip=True), "<r>": Matching(rstrip=True), "ww": Matching(single_word=True),
    })  # fmt: skip
    for each in (tok, saved_and_loaded(tok, tmp_path)):
        assert shown(each, "a  <l> b") == ["a", "  <l>", " ", "b"]
        assert shown(each, "a <r> \n<l>b") == ["a", " ", "<r> \n", "<l>", "b"]
        assert shown(each, "ww,www ww_ ww\u0301") == ["ww", *",www ww_ ww\u0301", "\u0301"]


def test_an_added_token_that_is_another_token_too_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="one id for 'w', which is token 119 and added as 256"):
        bpe_with(["w"]).save(tmp_path)


def test_spaces_that_were_put_in_are_not_cut_off_the_text(tmp_path):
    tok = bpe_with(["<d>"], prefix_space=True, trim_offsets=True)
    tok = BPETokenizer([*tok._tokens[:257], b" B", b" BM"], [(32, 66), (257, 77)], Specials({"<d>": 256}),
                       prefix_space=True, trim_offsets=True)  # fmt: skip
    for each in (tok, saved_and_loaded(tok, tmp_path)):
        assert shown(each, "<d>BM") == ["<d>", "BM"]
        assert shown(each, "BM<d> BM") == ["BM", "<d>", "BM"]


def sentencepiece_like(symbols=(), **options):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁hello", -2.0), ("world", -2.0)]
    pieces += [("col", -2.0), ("\t", -4.0), ("\n", -4.0), ("1", -3.0), ("2", -3.0)]
    pieces += [(name, -0.1) for name in symbols]
    ids = {name: len(pieces) - len(symbols) + i for i, name in enumerate(symbols)}
    special = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    return UnigramTokenizer(
        pieces, 2, Specials(special), template=Template(after=(1,)),
        sentencepiece=SentencePieceText(symbols=ids, **options),
    )  # fmt: skip


def test_texts_are_read_as_sentencepiece_reads_them(tmp_path):
    """The right values are those of `sentencepiece`; see parity/test_tokenizer_sentencepiece.py."""
    tok = sentencepiece_like(["<n>"])
    for each in (tok, saved_and_loaded(tok, tmp_path)):

        def pieces(text, each=each):
            return [each.pieces[id][0] for id in each.encode(text, add_special_tokens=False)]

        assert pieces("hello<n>world") == ["▁hello", "<n>", "world"]
        assert pieces("<n>  hello ") == ["▁", "<n>", "▁hello"]
        assert pieces("col1\tcol2\n") == ["▁", "col", "1", "\t", "col", "2", "\n"]
        assert each.decode(each.encode("col1\tcol2")) == "col1\tcol2</s>"
        assert pieces("hello ☃☃") == ["▁hello", "▁", "<unk>"]
        assert each.decode(each.encode("hello ☃☃"), skip_special_tokens=True) == "hello  ⁇ "
        assert each.encode_with_offsets("  hello<n>")[1] == [(2, 7), (7, 10), (0, 0)]
        assert each.decode([3, 3, 4]) == "hello"  # at the beginning each `▁` is the mark of the first word


def test_only_the_first_mark_of_a_text_is_left_out():
    tok = sentencepiece_like(["▁a▁b"])
    assert tok.decode([11]) == "a b" and tok.decode([11, 11]) == "a b a b"


def test_sentencepiece_settings_of_a_file_are_checked(tmp_path):
    content = sentencepiece_like(["<n>"]).to_json()
    for key, value, message in (
        ("symbols", {"<m>": 11}, "no pieces with their ids"), ("symbols", {"<n>": 99}, "no pieces with their ids"),
        ("unknown", 1, "unknown must be a text"), ("unused", [-1], "is no id"),
        ("more", 1, "'more' is not implemented"),
    ):  # fmt: skip
        described = {**content["model"]["sentencepiece"], key: value}
        damaged = {**content, "model": {**content["model"], "sentencepiece": described}}
        (tmp_path / "tokenizer.json").write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=message):
            tokenizer.load(tmp_path)
