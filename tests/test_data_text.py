"""Text files: what is read, how it is split, and what a person is told when it cannot be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.data import load_texts, split_by_count, split_documents
from minillm.data.split import cut_at, held_out


def test_a_file_is_one_document_exactly_as_it_stands(tmp_path):
    text = "  Once upon a time\n\nthere was a café.\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert load_texts(tmp_path / "a.txt") == [text]


def test_markers_separate_documents_and_take_their_white_space(tmp_path):
    (tmp_path / "a.txt").write_text("one\n<|endoftext|>\ntwo<|endoftext|>\n\n<|endoftext|>three\n")
    assert load_texts(str(tmp_path / "a.txt")) == ["one", "two", "three"]


def test_folder_is_read_recursively_in_sorted_order_txt_only(tmp_path):
    (tmp_path / "sub").mkdir()
    files = {"b.txt": "B", "sub/c.TXT": "C", "a.txt": "A", "z.md": "Z", "empty.txt": " \n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert load_texts(tmp_path) == ["A", "B", "C"]


def test_byte_order_mark_and_windows_line_ends_are_removed(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    assert load_texts(tmp_path / "a.txt") == ["one\ntwo\n"]


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_texts(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b" \n\t", b"<|endoftext|>\n<|endoftext|>"])
def test_file_without_text(tmp_path, content):
    (tmp_path / "void.txt").write_bytes(content)
    with pytest.raises(ValueError, match="void.txt holds no text"):
        load_texts(tmp_path / "void.txt")


def test_folder_without_txt(tmp_path):
    (tmp_path / "a.md").write_text("text")
    with pytest.raises(ValueError, match="no .txt file in the folder"):
        load_texts(tmp_path)


def test_not_utf8_names_the_file_and_the_byte_offset(tmp_path):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "latin.txt").write_bytes("é".encode() + b"caf\xe9 au lait")
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8: byte 0xe9 at offset 5"):
        load_texts(tmp_path)


def test_split_by_document_keeps_order_and_is_seeded():
    documents = [f"document {i}" for i in range(50)]
    train, validation = split_documents(documents, validation=0.2, seed=3)
    assert len(validation) == 10 and sorted(train + validation, key=documents.index) == documents
    assert train == [d for d in documents if d in train]
    assert validation == [d for d in documents if d in validation]
    assert split_documents(documents, validation=0.2, seed=3) == (train, validation)
    assert split_documents(documents, validation=0.2, seed=4) != (train, validation)


def test_equal_documents_stay_on_one_side():
    train, validation = split_documents(["a", "b", "c", "a", "b", "c"] * 5, validation=0.5, seed=0)
    assert train and validation and not set(train) & set(validation)
    assert len(train) + len(validation) == 30


def test_two_documents_leave_one_on_each_side():
    for share in (0.01, 0.99):
        train, validation = split_documents(["a", "b"], validation=share)
        assert len(train) == len(validation) == 1


def test_a_single_document_is_cut_near_its_end():
    assert split_documents(["0123456789"], validation=0.1) == (["012345678"], ["9"])


NOVEL, LICENCE = "n" * 50_000, "l" * 1_000


@pytest.mark.parametrize("seed", range(10))
def test_a_share_of_the_text_is_held_out_not_of_the_documents(seed):
    for documents in ([NOVEL, LICENCE], [LICENCE, NOVEL], [LICENCE, NOVEL, LICENCE]):
        train, validation = split_documents(documents, seed=seed)
        length = sum(map(len, documents))
        assert sum(map(len, validation)) == pytest.approx(0.1 * length, abs=2)
        assert sum(map(len, train)) + sum(map(len, validation)) == length
        cut = next(text for text in train if text.startswith("n"))
        assert cut + max(validation, key=len) == NOVEL, "the novel is cut, and its end held out"
        assert (LICENCE in train) != (LICENCE in validation)


@given(st.lists(st.integers(1_000, 100_000), min_size=2, max_size=40), st.floats(0.02, 0.5), st.integers(0, 99))
def test_what_is_held_out_is_near_the_share_whatever_the_lengths(lengths, validation, seed):
    chosen = held_out(lengths, validation, seed)
    characters = sum(length - (0 if share == 1 else cut_at(length, share))
                     for length, share in ((lengths[i], share) for i, share in chosen.items()))  # fmt: skip
    assert 0.49 < characters / (validation * sum(lengths)) < 1.51
    assert held_out(lengths, validation, seed) == chosen


def test_a_document_that_comes_often_weighs_as_often():
    train, validation = split_documents(["ab" * 50] * 80 + ["cd" * 50] * 10, validation=0.1, seed=0)
    assert sum(map(len, validation)) == pytest.approx(900, rel=0.12) and not set(train) & set(validation)


def test_the_split_of_runs_that_are_older():
    """Pinned: such a run goes on with the documents that it began with."""
    documents = [NOVEL, LICENCE, *(f"poem {i}" for i in range(10))]
    train, validation = split_by_count(documents, seed=3)
    assert validation == ["poem 9"] and len(train) == 11
    assert split_by_count(["0123456789"] * 2) == (["012345678"], ["9"])


def test_split_refuses_what_cannot_be_split():
    with pytest.raises(ValueError, match="between 0 and 1.*got 1.0"):
        split_documents(["a", "b"], validation=1.0)
    with pytest.raises(ValueError, match="too short"):
        split_documents(["a"])
    with pytest.raises(ValueError, match="too short"):
        split_documents([])
