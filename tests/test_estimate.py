"""What a training will take is told before it begins: counted operations over a measured rate."""

import numpy as np
import pytest

from minillm import Recipe
from minillm.training.estimate import estimated_seconds, product_rate
from minillm.training.setup import Setup


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("to be, or not to be: " * 200)
    return file


SIZES = {"layers": 2, "heads": 2, "width": 16, "context": 8, "batch_size": 4, "tokenizer": "char"}


def test_operations_are_those_of_steps_and_evaluations(text):
    made = Setup.prepare(Recipe(text, model="gpt2", steps=10, evaluate_every=5, **SIZES))
    tokens, held_out = 4 * 8, made.corpus.dataset.validation_tokens
    per_token = 6 * made.model.num_parameters() + 12 * (8 / 2) * 16 * 2
    operations = 10 * per_token * tokens + 2 * per_token * held_out / 3
    assert estimated_seconds(made, 1e6) == pytest.approx(operations / 1e6 / 0.6)
    longer = Setup(made.recipe.replace(steps=100, evaluate_every=50), made.corpus, made.model)
    assert estimated_seconds(longer, 1e6) - estimated_seconds(made, 1e6) == pytest.approx(
        90 * per_token * tokens / 1e6 / 0.6
    )


def test_pairs_have_two_sides(tmp_path):
    (tmp_path / "pairs.tsv").write_text("".join(f"{n}\t{n * n}\n" for n in range(100, 200)))
    made = Setup.prepare(Recipe(tmp_path / "pairs.tsv", model="t5", steps=1, **SIZES))
    sides = np.array([part.shape for step in range(4) for part in made.corpus.dataset.batch(step, 4, 0)[:-1]])
    per_token = 6 * made.model.num_parameters() + 6 * sides[:, 1].mean() * 16 * 2
    tokens = sides.prod(1).mean() + made.corpus.dataset.validation_tokens / 3
    assert estimated_seconds(made, 1e6) == pytest.approx(per_token * tokens / 1e6 / 0.6)


def test_the_rate_is_one_that_a_machine_can_have():
    assert 1e7 < product_rate() < 1e14
