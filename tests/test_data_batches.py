"""Batches: every token in its place, every target exactly once, order a pure function of seed and step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data import BucketedDataset, DocumentDataset, StreamDataset

EOS = 0
documents_strategy = st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=12)
many_documents = st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=9), min_size=8, max_size=20)


def whole_documents(batches):
    """Read documents back from rows: each begins after an EOS input and ends with an EOS target."""
    found = []
    for x, y in batches:
        for row_x, row_y in zip(x, y, strict=True):
            used = int((row_y != -100).sum())
            assert (row_y[used:] == -100).all(), "padding stands at the end"
            assert row_x[0] == EOS and (row_x[1:used] == row_y[: used - 1]).all()
            ends = np.flatnonzero(row_y[:used] == EOS)
            assert ends[-1] == used - 1, "a row ends with a whole document"
            found += [tuple(part[:-1].tolist()) for part in np.split(row_y[:used], ends[:-1] + 1)]
    return found


class TestStream:
    def test_windows_are_pieces_of_the_text_and_targets_are_the_next_token(self):
        data = StreamDataset(np.arange(1000), np.arange(10), context=16)
        x, y = data.batch(step=3, batch_size=64, seed=5)
        assert x.shape == y.shape == (64, 16) and x.dtype == y.dtype == np.int64
        assert (y == x + 1).all() and (np.diff(x, axis=1) == 1).all()
        assert len(np.unique(x[:, 0])) > 50

    def test_every_window_can_be_drawn_the_last_one_included(self):
        data = StreamDataset(np.arange(6), np.arange(2), context=4)
        starts = {int(start) for step in range(20) for start in data.batch(step, 4, seed=0)[0][:, 0]}
        assert starts == {0, 1}

    def test_batch_is_a_function_of_seed_and_step(self):
        data = StreamDataset(np.arange(1000), np.arange(10), context=16)
        first = data.batch(7, 4, seed=1)[0]
        data.batch(8, 4, seed=1)
        assert (data.batch(7, 4, seed=1)[0] == first).all()
        assert (data.batch(8, 4, seed=1)[0] != first).any() and (data.batch(7, 4, seed=2)[0] != first).any()

    @pytest.mark.parametrize("length", [2, 8, 9, 10, 33, 50])
    def test_validation_asks_every_target_once(self, length):
        data = StreamDataset(np.arange(20), np.arange(length), context=4)
        batches = list(data.validation(batch_size=2))
        asked = np.concatenate([y[y != -100] for _, y in batches])
        assert asked.tolist() == list(range(1, length)) and data.validation_tokens == length - 1
        for x, y in batches:
            assert (x[y != -100] + 1 == y[y != -100]).all() and x.min() >= 0 and x.shape[1] == 4

    @pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
    def test_memory_mapped_ids_are_read_from_the_disk(self, tmp_path, dtype):
        np.arange(300, dtype=dtype).tofile(tmp_path / "ids.bin")
        ids = np.memmap(tmp_path / "ids.bin", dtype=dtype, mode="r")
        data = StreamDataset(ids, ids, context=8)
        assert isinstance(data._train, np.memmap)
        x, y = data.batch(0, 4, seed=0)
        assert (y == x + 1).all() and type(x) is np.ndarray and x.dtype == np.int64
        assert sum(int((y != -100).sum()) for _, y in data.validation(4)) == data.validation_tokens == 299

    def test_text_shorter_than_one_context(self):
        StreamDataset(range(5), range(2), context=4)
        with pytest.raises(ValueError, match="shorter than one context: it has 4 tokens.*at least 5"):
            StreamDataset(range(4), range(2), context=4)
        with pytest.raises(ValueError, match="validation_ids must hold at least 2 tokens; got 1"):
            StreamDataset(range(5), range(1), context=4)

    def test_ids_must_be_integers_and_not_negative(self):
        with pytest.raises(ValueError, match="train_ids must be token ids"):
            StreamDataset([0.5, 1.5], [1, 2], context=1)
        with pytest.raises(ValueError, match="validation_ids must not be negative; got -3"):
            StreamDataset([1, 2, 3], [1, -3], context=1)
        with pytest.raises(ValueError, match="context must be at least 1; got 0"):
            StreamDataset([1, 2, 3], [1, 2], context=0)


class TestDocuments:
    @given(documents_strategy, st.integers(13, 40), st.integers(1, 5))
    @settings(deadline=None, max_examples=100)
    def test_validation_shows_every_document_once_and_whole(self, documents, context, batch_size):
        train = [[1] * context]
        data = DocumentDataset(train, documents, context, EOS)
        assert sorted(whole_documents(data.validation(batch_size))) == sorted(tuple(d) for d in documents)
        assert data.validation_tokens == sum(len(d) + 1 for d in documents) and data.validation_continued == 0

    @given(many_documents, st.integers(1, 7))
    @settings(deadline=None, max_examples=50)
    def test_an_epoch_shows_every_row_once_whatever_the_batch_size(self, documents, batch_size):
        data = DocumentDataset(documents, documents, context=12, eos_id=EOS)
        rows = len(data._train_rows)
        steps = 2 * -(-rows // batch_size)
        batches = [data.batch(step, batch_size, seed=3) for step in range(steps)]
        x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        for epoch in range(len(x) // rows):
            part = slice(epoch * rows, (epoch + 1) * rows)
            assert sorted(whole_documents([(x[part], y[part])])) == sorted(tuple(d) for d in documents)
            assert (y[part] != -100).sum() == data.tokens_per_epoch

    def test_batch_is_a_function_of_seed_and_step(self):
        documents = [[i, i + 1] for i in range(1, 100)]
        data = DocumentDataset(documents, documents, context=6, eos_id=EOS)
        batches = [data.batch(step, 8, seed=1)[0] for step in range(30)]
        fresh = DocumentDataset(documents, documents, context=6, eos_id=EOS)
        for step in (29, 3, 17, 0):
            assert (fresh.batch(step, 8, seed=1)[0] == batches[step]).all()
        assert (data.batch(0, 8, seed=2)[0] != batches[0]).any()
        rows = len(data._train_rows)
        one_epoch = data.batch(0, rows, seed=1)[0], data.batch(1, rows, seed=1)[0]
        assert (one_epoch[0] != one_epoch[1]).any(), "each epoch has its own order"

    def test_rows_are_packed_tightly(self):
        rng = np.random.default_rng(0)
        documents = [rng.integers(1, 500, size=n) for n in rng.integers(60, 200, size=2000)]
        data = DocumentDataset(documents, documents[:1], context=256, eos_id=EOS)
        used = data.tokens_per_epoch / (256 * len(data._train_rows))
        assert used > 0.9

    def test_a_long_document_is_continued_and_counted(self):
        long = list(range(1, 22))  # 22 targets: windows of 8, 8 and 6
        data = DocumentDataset([long, [30]], [long, [30], [31, 32]], context=8, eos_id=EOS)
        assert data.train_continued == data.validation_continued == 1
        rows = [(x[0].tolist(), y[0].tolist()) for x, y in data.validation(batch_size=1)]
        assert rows[0] == ([0, *range(1, 8)], list(range(1, 9)))
        assert rows[1] == (list(range(8, 16)), list(range(9, 17)))
        # The rest of the long document stands first in its row; [30] fits behind it exactly.
        assert rows[2] == ([16, 17, 18, 19, 20, 21, 0, 30], [17, 18, 19, 20, 21, 0, 30, 0])
        assert rows[3] == ([0, 31, 32, 0, 0, 0, 0, 0], [31, 32, 0, *[-100] * 5])
        asked = sum(int((y != -100).sum()) for _, y in data.validation(1))
        assert asked == data.validation_tokens == 22 + 2 + 3

    def test_accepts_numpy_documents_of_any_integer_type(self):
        documents = [np.array([1, 2], dtype=np.uint16), np.array([], dtype=np.uint16), [3]]
        data = DocumentDataset(documents, documents, context=6, eos_id=EOS)
        assert sorted(whole_documents(data.validation(4))) == [(), (1, 2), (3,)]

    def test_bad_input(self):
        with pytest.raises(ValueError, match="its 2 documents have 5 tokens, a context of 6 needs"):
            DocumentDataset([[1, 2], [3]], [[1]], context=6, eos_id=EOS)
        with pytest.raises(ValueError, match="validation_docs must hold at least one document"):
            DocumentDataset([[1, 2], [3]], [], context=4, eos_id=EOS)
        with pytest.raises(ValueError, match="train_docs must be token ids"):
            DocumentDataset([["a"]], [[1]], context=4, eos_id=EOS)


class TestBuckets:
    @given(many_documents, st.integers(1, 4), st.integers(0, 3))
    def test_every_document_stands_alone_once_in_an_epoch(self, documents, batch_size, epoch):
        data = BucketedDataset(documents, documents, context=13, eos_id=EOS)
        data.batch(0, batch_size, seed=0)
        count = len(data._buckets[batch_size])
        batches = [data.batch(epoch * count + step, batch_size, seed=0) for step in range(count)]
        found = whole_documents(batches)
        assert set(found) == set(map(tuple, documents)) and len(found) == sum(len(x) for x, _ in batches)
        assert sorted(whole_documents(data.validation(batch_size))) == sorted(map(tuple, documents))
        assert data.tokens_per_epoch == data.validation_tokens == sum(len(ids) + 1 for ids in documents)
        for x, y in batches:
            assert x.size <= batch_size * 13 and x.dtype == y.dtype == np.int64
            assert (y != -100).any(axis=0).all(), "as wide as the longest"

    def test_documents_of_one_length_are_shuffled_and_so_are_the_batches(self):
        data = BucketedDataset([[i] * 3 for i in range(1, 9)] + [[9] * 5] * 4, [[1]], context=6, eos_id=EOS)
        epochs = [[data.batch(step, 2, seed=1) for step in range(5 * epoch, 5 * epoch + 5)] for epoch in range(6)]
        for batches in epochs:
            assert sorted(len(x) for x, _ in batches) == [2, 2, 3, 3, 3]
        orders = [[x[:, 1].tolist() for x, _ in batches] for batches in epochs]
        assert len({str(sorted(order)) for order in orders}) > 1 and len({str([len(b) for b in o]) for o in orders}) > 1

    def test_the_last_batch_of_an_epoch_is_filled_with_documents_of_the_one_before(self):
        data = BucketedDataset([[1, 2, 3]] * 2 + [[4]], [[1]], context=4, eos_id=EOS)
        assert sorted(len(data.batch(step, 2, seed=0)[0]) for step in range(2)) == [2, 2]

    def test_a_batch_is_a_function_of_seed_and_step(self):
        documents = [[i % 9 + 1] * (i % 11) for i in range(60)]
        data = BucketedDataset(documents, [[1]], context=12, eos_id=EOS)
        wanted = [data.batch(step, 2, seed=3)[0] for step in range(100)]
        for step in (70, 3, 99, 50):
            assert (BucketedDataset(documents, [[1]], 12, EOS).batch(step, 2, seed=3)[0] == wanted[step]).all()
        assert any(data.batch(step, 2, seed=4)[0].tolist() != wanted[step].tolist() for step in range(9))

    def test_a_long_document_is_continued_in_further_rows(self):
        data = BucketedDataset([[1, 2, 3, 4, 5, 6]], [[1] * 4], context=4, eos_id=EOS)
        assert (data.train_continued, data.validation_continued, data.tokens_per_epoch) == (1, 1, 7)
        x, y = data.batch(0, 2, seed=0)
        assert x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 0]] and y.tolist() == [[1, 2, 3, 4], [5, 6, 0, -100]]

    def test_less_than_one_context_is_refused(self):
        told = "shorter than one context: its 2 documents have 5 tokens, a context of 6 needs at least as many: choose"
        with pytest.raises(ValueError, match=told):
            BucketedDataset([[1, 2], [3]], [[1]], context=6, eos_id=0)

    @pytest.mark.parametrize("train, validation, name", [([], [[1]], "train_docs"), ([[1]], [], "validation_docs")])
    def test_nothing_to_learn_from_is_refused(self, train, validation, name):
        with pytest.raises(ValueError, match=f"BucketedDataset: {name} must hold at least one document; got none"):
            BucketedDataset(train, validation, context=4, eos_id=0)
