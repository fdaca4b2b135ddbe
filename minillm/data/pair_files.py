r"""Files of questions and answers: what a model learns that reads with one stack and writes with
another.

    pairs.jsonl    {"question": "sort: 3 1 2", "answer": "1 2 3"}      on each line
    pairs.tsv      sort: 3 1 2 <tab> 1 2 3                             on each line
"""  # noqa: W505

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..files import parse_json, read_text
from .tasks import Pair

MOST_BYTES = 1_000_000_000


def load_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a JSONL file (its name ends in ``.jsonl``), else of one with a tab on each line,
    in their order; empty lines are left out.

    Raises FileNotFoundError when there is no such file, ValueError, with the number of the line,
    for what is no pair or lacks its question or its answer, and when there are none.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"load_pairs: no such file: {path}")
    if path.is_dir():
        raise ValueError(f"load_pairs: {path} is a folder; give a .jsonl or .tsv file of questions and answers")
    read, pairs = _from_json if path.suffix.lower() == ".jsonl" else _from_tabs, []
    text = read_text(path, limit=MOST_BYTES).removeprefix("\ufeff")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            pair = read(line.removesuffix("\r"), place)
            if not (pair.question.strip() and pair.answer.strip()):
                raise ValueError(f"{place}: a question and an answer must not be empty; got {line!r:.80}")
            pairs.append(pair)
    if not pairs:
        raise ValueError(f"load_pairs: {path} holds no pair of a question and an answer")
    return pairs


def split_pairs(pairs: list[Pair], seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Hold out the pairs of about a tenth of all questions, at random, so that no question of the
    second list stands in the first.

    Raises ValueError when there is only one question.
    """
    questions = list(dict.fromkeys(pair.question for pair in pairs))
    if len(questions) < 2:
        raise ValueError("split_pairs: at least two different questions are needed, one to hold out; got one")
    count = max(1, len(questions) // 10)
    held_out = {questions[i] for i in np.random.default_rng(seed).permutation(len(questions))[:count]}
    return [p for p in pairs if p.question not in held_out], [p for p in pairs if p.question in held_out]


def _from_json(line: str, place: str) -> Pair:
    table = parse_json(line.encode(), place)
    question, answer = table.get("question"), table.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise ValueError(f'{place}: expected {{"question": text, "answer": text}}; got {line:.80}')
    return Pair(question, answer)


def _from_tabs(line: str, place: str) -> Pair:
    parts = line.split("\t")
    if len(parts) != 2:
        got = f"{len(parts) - 1} in {line!r:.80}"
        raise ValueError(f"{place}: expected one tab, between question and answer; got {got}")
    return Pair(*parts)
