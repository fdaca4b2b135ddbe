"""Token ids on the disk: what goes in comes out, and a damaged or foreign file is refused."""

from itertools import pairwise

import numpy as np
import pytest

from minillm.data import Shard, ShardDataset, ShardWriter, corpus_parts, encode_files, open_shards
from minillm.tokenizer import BPETokenizer, CharTokenizer, read_parts

WORDS = "the cat sat on a mat and the dog, who's 12 years old, didn't mind!\n\n"


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train([WORDS], 300)


def write(folder, tokenizer, documents, **options):
    with ShardWriter(folder, "train", tokenizer, **options) as writer:
        for ids in documents:
            writer.add(np.array(ids))
    return open_shards(folder, "train", tokenizer)


def test_documents_come_back(tmp_path, tokenizer):
    documents = [[5, 6, 7], [], [294], list(range(10, 50))]
    (shard,) = write(tmp_path, tokenizer, documents)
    assert len(shard) == 4
    assert [shard.document(i).tolist() for i in range(4)] == documents
    assert shard.tokens.dtype == np.uint16
    assert shard.tokens[:6].tolist() == [5, 6, 7, 0, 0, 294]  # an end-of-text token after each
    assert isinstance(shard.tokens, np.memmap)


def test_large_vocabularies_take_four_bytes(tmp_path):
    letters = CharTokenizer.train(["".join(map(chr, range(0x20000, 0x30100)))])
    assert letters.vocab_size > 1 << 16
    (shard,) = write(tmp_path, letters, [[65_600, 3]])
    assert shard.tokens.dtype == np.uint32
    assert shard.document(0).tolist() == [65_600, 3]


def test_a_full_shard_is_followed_by_another(tmp_path, tokenizer):
    shards = write(tmp_path, tokenizer, [[i] * 30 for i in range(10)], tokens_per_shard=100)
    assert [len(shard) for shard in shards] == [4, 4, 2]
    (tmp_path / "train-00001.tokens").unlink()
    with pytest.raises(ValueError, match="train-00001.tokens is missing"):
        open_shards(tmp_path, "train", tokenizer)


def test_a_wrong_tokenizer_is_refused(tmp_path, tokenizer):
    write(tmp_path, tokenizer, [[1, 2, 3]])
    with pytest.raises(ValueError, match="encoded by another tokenizer"):
        open_shards(tmp_path, "train", BPETokenizer.train([WORDS], 290))


def test_every_truncation_is_refused(tmp_path, tokenizer):
    (shard,) = write(tmp_path, tokenizer, [[1, 2, 3], [4]])
    data = shard.path.read_bytes()
    for size in range(len(data)):
        shard.path.write_bytes(data[:size])
        with pytest.raises(ValueError, match="no shard|must have .* cut short"):
            Shard(shard.path, tokenizer)
    shard.path.write_bytes(data + b"x")
    with pytest.raises(ValueError, match="added to"):
        Shard(shard.path, tokenizer)


def test_ends_that_do_not_ascend_are_refused(tmp_path, tokenizer):
    (shard,) = write(tmp_path, tokenizer, [[1, 2, 3], [4]])
    data = bytearray(shard.path.read_bytes())
    data[-8:] = (1 << 40).to_bytes(8, "little")
    shard.path.write_bytes(data)
    with pytest.raises(ValueError, match="ends of its documents"):
        Shard(shard.path, tokenizer)


def test_ids_that_are_not_in_the_vocabulary_are_refused_where_they_are_read(tmp_path, tokenizer):
    shards = write(tmp_path, tokenizer, [list(range(50)), list(range(70))], tokens_per_shard=40)
    data = bytearray(shards[1].path.read_bytes())
    data[64 + 2 * 33 + 1] ^= 1  # one bit: 33 becomes 289, and the next one ...
    shards[1].path.write_bytes(data)
    assert Shard(shards[1].path, tokenizer).document(0)[33] == 289  # ... is a token of its own
    data[64 + 2 * 34 + 1] ^= 2
    shards[1].path.write_bytes(data)
    damaged = open_shards(tmp_path, "train", tokenizer)
    told = r"train-00001.tokens is damaged: ids must be in \[0, 295\); got 546 at token 34"
    with pytest.raises(ValueError, match=told):
        damaged[1].document(0)
    with pytest.raises(ValueError, match=told):
        ShardDataset(damaged, damaged, context=8).batch(step=0, batch_size=200, seed=0)
    with pytest.raises(ValueError, match=told):
        list(ShardDataset(damaged, damaged, context=8).validation(batch_size=4))
    assert ShardDataset(damaged[:1], damaged[:1], context=8).batch(step=0, batch_size=200, seed=0)[0].max() == 49


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no end-of-text token"):
        ShardWriter(tmp_path, "train", CharTokenizer.train(["ab"], special_tokens=()))


def both_sides(files, **options):
    """The documents to train on, and those held out."""
    found = {False: [""], True: [""]}
    for text, held_out, ends in corpus_parts(files, 0.1, **options):
        found[held_out][-1] += text
        found[held_out] += [""] * ends
    assert found[False].pop() == found[True].pop() == ""
    return found[False], found[True]


@pytest.mark.parametrize("documents", [1, 2, 3, 10, 25])
@pytest.mark.parametrize("whole", [False, True])
def test_a_share_of_the_text_is_held_out(tmp_path, documents, whole, monkeypatch):
    monkeypatch.setattr("minillm.data.encode.read_parts", lambda file, progress: read_parts(file, 50, progress))
    texts = [f"{n} {WORDS.strip()}" * 3 for n in range(documents)]
    (tmp_path / "a.txt").write_text("<|endoftext|>".join(texts))
    read = []
    train, held_out = both_sides([tmp_path / "a.txt"], whole=whole, progress=read.append)
    assert sum(read) == (tmp_path / "a.txt").stat().st_size
    if documents < 5:  # one is cut, and its end held out
        assert len(train) == documents and len(held_out) == 1
        (cut,) = [i for i, text in enumerate(texts) if train[i] != text]
        assert train[cut] + held_out[0] == texts[cut] and [*train[:cut], *train[cut + 1 :]] == [
            *texts[:cut], *texts[cut + 1 :]
        ]  # fmt: skip
        assert len(held_out[0]) == pytest.approx(0.1 * sum(map(len, texts)), abs=1)
    else:
        assert [text for text in texts if text not in held_out] == train and len(held_out) in (1, 2, 3)
        assert set(held_out) < set(texts)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_novel_beside_a_licence_is_what_is_learned(tmp_path, names):
    """Whichever comes first: two documents are no two halves."""
    sizes = {"novel": 50_000, "licence": 1_000}
    files = [tmp_path / f"{name}.txt" for name in names]
    for file, letter, size in zip(files, "nl", sizes.values(), strict=True):
        file.write_text(letter * size)
    train, held_out = both_sides(sorted(files))
    assert sum(map(len, train)) == pytest.approx(0.9 * 51_000, abs=2)
    assert max(held_out, key=len).startswith("n")


def test_texts_and_shares_that_cannot_be_split(tmp_path):
    (tmp_path / "a.txt").write_text(" \n<|endoftext|> ")
    with pytest.raises(ValueError, match="no text in .*a.txt"):
        list(corpus_parts([tmp_path / "a.txt"]))
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="too short"):
        list(corpus_parts([tmp_path / "a.txt"]))
    for share in (0.0, 0.6, float("nan")):
        with pytest.raises(ValueError, match="validation must be above 0 and at most 0.5"):
            list(corpus_parts([tmp_path / "a.txt"], share))


def test_a_text_without_spaces_is_read_in_parts(tmp_path):
    file = tmp_path / "text.txt"
    text = ("日本語の文。\n「中文字」\r\n" * 100).strip()
    file.write_bytes(text.encode())
    text = text.replace("\r\n", "\n")
    parts = list(read_parts(file, 200))
    assert len(parts) > 10 and "".join(parts) == text
    for pattern in ("gpt2", "gpt4", "smollm2"):
        tok = BPETokenizer.train([text], 300, pattern=pattern)
        assert [id for part in parts for id in tok.encode(part)] == tok.encode(text)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "smollm2", r"\w+|\W+"])
def test_files_are_encoded_as_streams(tmp_path, pattern, monkeypatch):
    monkeypatch.setattr("minillm.data.encode.read_parts", lambda file, progress: read_parts(file, 7, progress))
    tok = BPETokenizer.train([WORDS], 320, pattern=pattern)
    texts = [WORDS * n + f"é猫 {n}!" for n in (1, 3, 2, 5)]
    one, two = tmp_path / "a.txt", tmp_path / "b.txt"
    one.write_text("  " + " <|endoftext|>\n".join(texts[:3]) + "\n")
    texts[3] += "猫。\n狗？\n\n's"
    two.write_bytes(b"\xef\xbb\xbf" + texts[3].replace("\n", "\r\n").encode())
    sizes = encode_files([one, two], tmp_path / "corpus", tok, validation=0.25)
    train, validation = (open_shards(tmp_path / "corpus", name, tok)[0] for name in ("train", "validation"))
    assert sizes == (len(train.tokens), len(validation.tokens))
    # 2 + 1 of 11 parts: as near to a quarter as whole documents come in the order that is drawn
    assert [train.document(i).tolist() for i in range(len(train))] == tok.encode_batch(texts[1::2])
    assert [validation.document(i).tolist() for i in range(len(validation))] == tok.encode_batch(texts[::2])
    assert (tmp_path / "corpus" / "tokenizer.json").is_file()
    with pytest.raises(FileExistsError):
        encode_files([one], tmp_path / "corpus", tok)


def test_bytes_that_are_no_text_are_named_and_leave_nothing(tmp_path, tokenizer):
    bad = tmp_path / "bad.txt"
    bad.write_bytes("é fine ".encode() * 100 + b"\xff")
    with pytest.raises(ValueError, match=r"bad.txt is not UTF-8: byte 0xff at offset 800"):
        encode_files([bad], tmp_path / "corpus", tokenizer)
    assert not (tmp_path / "corpus").exists()
    bad.write_bytes("é".encode()[:1])
    with pytest.raises(ValueError, match=r"byte 0xc3 at offset 0"):
        list(read_parts(bad))


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000])
def test_parts_of_a_file_add_up_to_it(tmp_path, size):
    file = tmp_path / "text.txt"
    text = "\ufeff é猫🐈 a  b\r\nc\r\n\r\n  d<|endoftext|>e 猫。\n狗！\r\n" * 5
    file.write_bytes(text.encode())
    parts = list(read_parts(file, size))
    assert "".join(parts) == text.removeprefix("\ufeff").replace("\r\n", "\n")
    for before, after in pairwise(parts):
        assert after.startswith(" ") or (before.endswith("\n") and not (before[-2] + after[0]).isspace())


def test_windows_come_from_every_shard_and_depend_on_seed_and_step_alone(tmp_path, tokenizer):
    documents = [list(range(i, i + 40)) for i in range(10, 210, 40)]
    train = write(tmp_path, tokenizer, documents, tokens_per_shard=80)
    dataset = ShardDataset(train, train[:1], context=8)
    x, y = dataset.batch(step=3, batch_size=3000, seed=1)
    again = dataset.batch(step=3, batch_size=3000, seed=1)
    assert np.array_equal(x, again[0]) and not np.array_equal(x, dataset.batch(4, 3000, 1)[0])
    assert x.shape == y.shape == (3000, 8) and np.array_equal(x[:, 1:], y[:, :-1])
    assert x.min() == 0 and set(x.ravel().tolist()) == {0, *range(10, 210)}
    assert dataset.tokens_per_epoch == sum(len(shard.tokens) - 1 for shard in train)


def test_validation_counts_every_target_once(tmp_path, tokenizer):
    train = write(tmp_path, tokenizer, [list(range(10, 60)), list(range(60, 81))])
    dataset = ShardDataset(train, train, context=16)
    batches = list(dataset.validation(batch_size=2))
    targets = np.concatenate([y[y >= 0] for _, y in batches])
    assert targets.tolist() == train[0].tokens[1:].tolist()
    assert len(targets) == dataset.validation_tokens
    assert all((x >= 0).all() for x, _ in batches)
    some = ShardDataset(train * 3, train * 3, context=16, most_validation=60)  # 15 rows of 16 at most: every 4th
    rows = np.concatenate([x for x, _ in some.validation(batch_size=3)])
    assert rows[:, 0].tolist() == [train[0].tokens[16 * (row % 5)] for row in (0, 4, 8, 12)]
    assert some.validation_tokens == sum((y >= 0).sum() for _, y in some.validation(batch_size=3)) <= 60
    with pytest.raises(ValueError, match="longer than one context of 500"):
        ShardDataset(train, train, context=500)
