"""DPO and ORPO beside the formulas of `trl`, in torch: losses and gradients on fixed numbers.

Sources: trl 0.12, DPOTrainer.dpo_loss (loss_type "sigmoid"), ORPOTrainer.odds_ratio_loss and get_batch_loss_metrics.
There ORPO's likelihood is a mean over the tokens of a batch, here, as in the paper, over its pairs; the two are equal
where all preferred answers are of one length.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from minillm import Tensor
from minillm.finetune.preferences import dpo_loss, orpo_loss

rng = np.random.default_rng(0)
POLICY, REFERENCE = rng.uniform(-40, -0.5, (7, 2)), rng.uniform(-40, -0.5, (7, 2))
MEANS = rng.uniform(-4, -0.01, (7, 2))


def both(ours, theirs, values):
    """Losses and gradients of both sides."""
    x = Tensor(values, requires_grad=True)
    loss = ours(x)
    loss.backward()
    leaf = torch.tensor(values, requires_grad=True)
    expected = theirs(leaf[:, 0], leaf[:, 1])
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(x.grad.data, leaf.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.7])
def test_dpo(beta):
    reference = torch.tensor(REFERENCE)

    def theirs(chosen_logps, rejected_logps):
        chosen_logratios, rejected_logratios = chosen_logps - reference[:, 0], rejected_logps - reference[:, 1]
        return -torch.nn.functional.logsigmoid(beta * (chosen_logratios - rejected_logratios)).mean()

    both(lambda x: dpo_loss(x, REFERENCE, beta), theirs, POLICY)


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.7])
def test_orpo(beta):
    def theirs(chosen_logps, rejected_logps):
        log_odds = (chosen_logps - rejected_logps) - (
            torch.log1p(-torch.exp(chosen_logps)) - torch.log1p(-torch.exp(rejected_logps))
        )
        return -chosen_logps.mean() - (beta * torch.nn.functional.logsigmoid(log_odds)).mean()

    both(lambda x: orpo_loss(x, beta), theirs, MEANS)
