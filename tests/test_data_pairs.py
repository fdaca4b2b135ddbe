"""Questions and answers, texts with gaps, tasks: nothing is lost, nothing leaks, all is a function of seed and step."""

import datetime
import doctest
import re
import sys
from collections import Counter
from itertools import combinations, groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import data
from minillm.data import PairDataset, SpanCorruptionDataset, fill_spans, french, hide_spans, random_spans, tasks

SENTINELS = [99, 98, 97, 96, 95, 94, 93, 92]
EOS = 1


@pytest.mark.parametrize("name", ["pairs", "spans", "tasks", "french"])
def test_docstring_examples(name):
    results = doctest.testmod(sys.modules[f"minillm.data.{name}"])
    assert results.failed == 0 and results.attempted > 0


# ---- pairs -----------------------------------------------------------------------------------------------------------


def random_pairs(count, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple([*rng.integers(2, 90, rng.integers(1, 12)), EOS] for _ in range(2)) for _ in range(count)]


def unpadded(batch):
    """The pairs of a batch, and that the decoder sees at each position what stands before its target."""
    ids, decoder_ids, targets = batch
    assert ids.dtype == decoder_ids.dtype == targets.dtype == np.int64 and decoder_ids.shape == targets.shape
    found = []
    for question, seen, answer in zip(ids, decoder_ids, targets, strict=True):
        length, end = int((question != 0).sum()), int((answer != -100).sum())
        assert (question[length:] == 0).all() and (answer[end:] == -100).all() and (seen[end + 1 :] == 0).all()
        assert seen[0] == 0 and (seen[1 : end + 1] == answer[: len(seen) - 1][:end]).all()
        found.append((tuple(question[:length].tolist()), tuple(answer[:end].tolist())))
    return found


def as_tuples(pairs):
    return [tuple(tuple(int(id) for id in part) for part in pair) for pair in pairs]


class TestPairs:
    def test_an_epoch_asks_each_pair_once_and_validation_too(self):
        pairs = random_pairs(96)
        dataset = PairDataset(pairs, pairs[:7])
        for epoch in range(2):  # 96 pairs are 32 batches of 3: two pools of 16
            steps = range(32 * epoch, 32 * (epoch + 1))
            assert Counter(p for i in steps for p in unpadded(dataset.batch(i, 3, seed=4))) == Counter(as_tuples(pairs))
        assert [p for batch in dataset.validation(3) for p in unpadded(batch)] == as_tuples(pairs[:7])
        assert dataset.tokens_per_epoch == sum(len(answer) for _, answer in pairs)
        assert dataset.validation_tokens == sum(len(answer) for _, answer in pairs[:7])

    def test_a_batch_is_a_function_of_seed_and_step(self):
        pairs = random_pairs(50)
        one, other = PairDataset(pairs, pairs), PairDataset(pairs, pairs)
        drawn = [unpadded(one.batch(step, 4, seed=1)) for step in range(40)]
        for step in (39, 3, 17):
            assert unpadded(other.batch(step, 4, seed=1)) == drawn[step]
        assert unpadded(one.batch(3, 4, seed=2)) != drawn[3]

    def test_a_batch_holds_pairs_of_about_the_same_length(self):
        pairs = random_pairs(640)
        dataset = PairDataset(pairs, pairs)
        sizes = [[len(q) + len(a) for q, a in unpadded(dataset.batch(step, 8, seed=0))] for step in range(80)]
        assert np.mean([max(row) - min(row) for row in sizes]) < 3
        means = [np.mean(row) for row in sizes]
        assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3, "long batches do not follow one another"

    def test_other_padding_and_beginning(self):
        dataset = PairDataset([([5], [6])], [([5], [6, 7]), ([5, 5], [6])], pad_id=8, start_id=9)
        ids, decoder_ids, targets = next(dataset.validation(2))
        assert ids.tolist() == [[5, 8], [5, 5]]
        assert decoder_ids.tolist() == [[9, 6], [9, 6]] and targets.tolist() == [[6, 7], [6, -100]]

    @pytest.mark.parametrize(
        "pairs, message",
        [
            ([], "train_pairs must hold at least one pair; got none"),
            ([([1], [2]), ([], [2])], "pair 1 lacks one"),
            ([([1], [])], "pair 0 lacks one"),
            ([([1.5], [2])], "train_pairs must be token ids"),
            ([([-1], [2])], "train_pairs must not be negative; got -1"),
        ],
    )
    def test_what_is_refused(self, pairs, message):
        with pytest.raises(ValueError, match=f"^PairDataset: .*{message}"):
            PairDataset(pairs, [([1], [2])])


# ---- spans -----------------------------------------------------------------------------------------------------------


def words_as_ids(text, known):
    return [known.setdefault(word, len(known)) for word in text.split()]


def test_the_sentence_of_the_paper():
    known = {f"<extra_id_{i}>": i for i in range(3)}
    ids = words_as_ids("Thank you for inviting me to your party last week .", known)
    hidden = np.isin(ids, words_as_ids("for inviting last", known))
    inputs, target = hide_spans(ids, hidden, [0, 1, 2])
    names = list(known)
    assert " ".join(names[i] for i in inputs) == "Thank you <extra_id_0> me to your party <extra_id_1> week ."
    assert " ".join(names[i] for i in target) == "<extra_id_0> for inviting <extra_id_1> last <extra_id_2>"


def replaced_by_runs(ids, hidden, sentinels):
    """The paper's rule on whole runs: in each of the two texts, the sentinels stand for the runs of the other."""
    runs = [
        (out, [id for id, _ in run]) for out, run in groupby(zip(ids, hidden, strict=True), key=lambda pair: pair[1])
    ]
    marks = iter(sentinels)
    inputs = [id for out, run in runs for id in ([next(marks)] if out else run)]
    gaps = [run for out, run in runs if out]
    target = [id for mark, gap in zip(sentinels, gaps, strict=False) for id in (mark, *gap)]
    return inputs, target if hidden[-1] else [*target, sentinels[len(gaps)]]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=14))
def test_input_and_target_give_the_text_back(tokens):
    ids, hidden = [id for id, _ in tokens], np.array([out for _, out in tokens])
    inputs, target = hide_spans(ids, hidden, SENTINELS)
    assert (inputs.tolist(), target.tolist()) == replaced_by_runs(ids, hidden, SENTINELS)
    assert fill_spans(inputs, target, SENTINELS).tolist() == ids


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 300), st.integers(0, 2**32 - 1))
def test_a_share_of_15_percent_in_spans_of_3(length, seed):
    hidden = random_spans(length, np.random.default_rng(seed))
    assert hidden.shape == (length,) and hidden.sum() == max(1, round(0.15 * length))
    spans = int((np.diff(hidden.astype(int)) == 1).sum())
    assert spans + hidden[0] == max(1, round(hidden.sum() / 3))


def test_all_ways_to_choose_the_spans_are_equally_likely():
    """6 tokens, 3 of them hidden in 2 spans: 2 ways to cut them, 6 to lay a longer and a shorter one apart."""
    drawn = Counter(tuple(random_spans(6, np.random.default_rng(seed), 0.5, 1.5).tolist()) for seed in range(9000))
    assert len(drawn) == 12
    chi_square = sum((count - 750) ** 2 / 750 for count in drawn.values())
    assert chi_square < 31.3  # 11 degrees of freedom, p = 0.001


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1,), "length must be at least 2; got 1"),
        ((9, 1.0), "density .* got 1.0"),
        ((9, 0.5, 0.5), "mean_length .* 0.5"),
    ],
)
def test_spans_that_are_refused(arguments, message):
    length, *rest = arguments
    with pytest.raises(ValueError, match=f"^random_spans: .*{message}"):
        random_spans(length, np.random.default_rng(0), *rest)


def test_more_gaps_than_sentinels():
    hidden = np.array([True, False] * 3)
    with pytest.raises(ValueError, match="hide_spans: the text has more gaps than there are sentinels, 3"):
        hide_spans([1] * 6, hidden, SENTINELS[:3])


def test_what_a_model_writes_wrongly_fills_what_it_can():
    assert fill_spans([1, 99, 2, 98, 3], [7, 99, 4], [99, 98]).tolist() == [1, 4, 2, 3]
    assert fill_spans([1, 99, 2], [99, 4, 97, 5, 98, 6], SENTINELS).tolist() == [1, 4, 2]


class TestSpanCorruption:
    documents = [np.random.default_rng(i).integers(2, 90, 10 + i) for i in range(30)]

    def make(self):
        return SpanCorruptionDataset(self.documents, self.documents[:5], SENTINELS, eos_id=EOS)

    def restored(self, batch):
        pairs = unpadded(batch)
        assert all(question[-1] == EOS and answer[-1] == EOS for question, answer in pairs)
        return [tuple(fill_spans(question[:-1], answer[:-1], SENTINELS).tolist()) for question, answer in pairs]

    def test_an_epoch_has_each_text_once_with_new_gaps_each_time(self):
        dataset, texts = self.make(), Counter(tuple(ids.tolist()) for ids in self.documents)
        epochs = [[dataset.batch(step, 6, seed=3) for step in range(5 * e, 5 * e + 5)] for e in range(2)]
        for batches in epochs:
            assert Counter(text for batch in batches for text in self.restored(batch)) == texts
            asked_for = sum((batch[-1] != -100).sum() for batch in batches)
            assert dataset.tokens_per_epoch - 30 <= asked_for <= dataset.tokens_per_epoch
        asked = [{pair for batch in batches for pair in unpadded(batch)} for batches in epochs]
        assert len(asked[0] & asked[1]) < 10

    def test_batches_and_validation_are_functions_of_their_arguments(self):
        one, other = self.make(), self.make()
        expected = unpadded(one.batch(11, 4, seed=1))
        one.batch(2, 4, seed=1)
        assert unpadded(one.batch(11, 4, seed=1)) == unpadded(other.batch(11, 4, seed=1)) == expected
        assert unpadded(one.batch(11, 4, seed=2)) != expected
        first, again = ([pair for batch in one.validation(size) for pair in unpadded(batch)] for size in (2, 5))
        assert first == again and sum(len(answer) for _, answer in first) == one.validation_tokens
        assert [t for batch in one.validation(5) for t in self.restored(batch)] == [
            tuple(ids.tolist()) for ids in self.documents[:5]
        ]

    def test_no_texts(self):
        with pytest.raises(ValueError, match="must hold at least one text each"):
            SpanCorruptionDataset(self.documents, [], SENTINELS, eos_id=EOS)


# ---- tasks -----------------------------------------------------------------------------------------------------------


def answer_of(task, question):
    """The answer, worked out from the question alone, another way than the task does."""
    words = question.removeprefix(f"{task.prefix}: ").split()
    if task.name == "reverse":
        return "".join(reversed(words[0]))
    if task.name == "sort":
        return " ".join(sorted(words, key=lambda word: (len(word), word)))
    if task.name == "date":
        form = "%B %d, %Y" if words[0].isalpha() else "%d %B %Y"
        return datetime.datetime.strptime(" ".join(words), form).strftime("%Y-%m-%d")
    return None


@pytest.mark.parametrize("task", data.TASKS, ids=lambda task: task.name)
class TestTasks:
    def test_questions_held_out_are_never_trained_on(self, task):
        train, held_out = ([pair.question for pair in task.pairs(1000, side)] for side in (False, True))
        assert len(set(train)) == len(set(held_out)) == 1000
        for seed in range(3):  # by construction, whatever the seed: the text of a question says on which side it is
            assert not set(held_out) & {pair.question for pair in task.pairs(1000, False, seed)}

    def test_a_tenth_is_held_out(self, task):
        draws = [task.draw(np.random.default_rng((7, i)))[0] for i in range(4000)]
        assert 0.08 < np.mean([tasks.is_held_out(question) for question in set(draws)]) < 0.12

    def test_pairs_are_a_function_of_the_seed(self, task):
        assert task.pairs(20, False, 3) == task.pairs(50, False, 3)[:20] != task.pairs(20, False, 4)

    def test_answers_are_right_and_a_question_has_one(self, task):
        answers = {}
        for pair in task.pairs(2000, False):
            assert pair.question.startswith(f"{task.prefix}: ")
            assert answer_of(task, pair.question) in (pair.answer, None)
            assert answers.setdefault(pair.question, pair.answer) == pair.answer


def test_when_there_are_no_more_questions():
    with pytest.raises(ValueError, match="Task.pairs: coin has not 3 different questions; got 2"):
        data.Task("coin", "toss", lambda rng: (str(rng.integers(2)), "")).pairs(3, False)


# ---- French ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phrases():
    rng = np.random.default_rng(0)
    return dict(french.noun_phrase(rng, 2)[:2] for _ in range(60_000))


def test_one_french_phrase_means_one_english_phrase():
    rng = np.random.default_rng(1)
    meanings = {}
    for _ in range(20_000):
        said, meant, _ = french.noun_phrase(rng, 2)
        assert meanings.setdefault(said, meant) == meant


@pytest.mark.parametrize(
    "said, meant",
    [
        ("le chat", "the cat"),
        ("la petite vache noire", "the small black cow"),
        ("l'oiseau vert", "the green bird"),
        ("le petit oiseau", "the small bird"),
        ("un vieil arbre", "an old tree"),
        ("un bel homme", "a beautiful man"),
        ("une vieille étoile blanche", "an old white star"),
        ("les beaux chevaux bruns", "the beautiful brown horses"),
        ("des souris grises", "some gray mice"),
        ("de petites souris grises", "some small gray mice"),
        ("la belle étoile", "the beautiful star"),
        ("l'étoile", "the star"),
        ("un enfant", "a child"),
        ("le vieux cheval", "the old horse"),
        ("une pomme", "an apple"),
    ],
)
def test_phrases_that_a_teacher_would_ask_for(phrases, said, meant):
    assert phrases[said] == meant


def test_verbs_agree_with_their_subject():
    sentences = dict(french.sentence(np.random.default_rng(i)) for i in range(20_000))
    assert sentences["le chat dort"] == "the cat sleeps" and sentences["les chats dorment"] == "the cats sleep"
    for said, meant in sentences.items():
        several = bool(re.match(r"(les|des|de) ", said))
        assert several == bool(
            re.search(r" (sleep|sing|run|fall|dance|arrive|see|love|find|carry|look for|take)\b", meant)
        )


def test_all_words_have_one_meaning():
    for words in (
        french.NOUNS,
        french.ADJECTIVES_BEFORE + french.ADJECTIVES_BEHIND,
        french.VERBS_ALONE + french.VERBS_WITH_OBJECT,
    ):
        for one, other in combinations(words, 2):
            assert one.english != other.english and not set(one.french) & set(other.french)
