"""The same 50 steps as torch.optim, in double precision."""

import numpy as np
import pytest

from minillm import optim
from minillm.tensor import Tensor

torch = pytest.importorskip("torch")

SHAPES = [(5, 3), (3,), (2, 2, 2), ()]
CASES = {
    "sgd": (optim.SGD, torch.optim.SGD, {"lr": 0.1}),
    "sgd momentum": (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd momentum decay": (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "adamw": (optim.AdamW, torch.optim.AdamW, {"lr": 0.01}),
    "adamw smollm2": (optim.AdamW, torch.optim.AdamW, {"lr": 3e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}),
    "adamw large eps": (optim.AdamW, torch.optim.AdamW, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.0}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_fifty_steps(case, dtype, tolerance):
    ours_class, theirs_class, settings = CASES[case]
    rng = np.random.default_rng(1)
    start = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
    ours = [Tensor(array.copy(), requires_grad=True) for array in start]
    theirs = [torch.nn.Parameter(torch.tensor(array)) for array in start]
    rate = settings["lr"]
    our_groups, their_groups = (
        [{"params": ps[:2]}, {"params": ps[2:3], "weight_decay": 0.3}, {"params": ps[3], "lr": 0.2 * rate}]
        for ps in (ours, theirs)
    )
    our_optimizer, their_optimizer = ours_class(our_groups, **settings), theirs_class(their_groups, **settings)
    for step in range(50):
        our_optimizer.lr = rate / (1 + step)
        for group, its in zip(their_optimizer.param_groups, (rate, rate, 0.2 * rate), strict=True):
            group["lr"] = its / (1 + step)  # each group's is scaled by the schedule
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            grad = np.asarray(rng.normal(size=SHAPES[i]) + p.data, dtype=dtype)
            if i == 1 and step < 7:  # a parameter that joins late: its bias correction begins then
                p.grad = q.grad = None
            else:
                p.grad, q.grad = grad.copy(), torch.tensor(grad)
        our_norm = optim.clip_grad_norm(ours, 2.0)
        their_norm = torch.nn.utils.clip_grad_norm_(theirs, 2.0)
        assert our_norm == pytest.approx(their_norm.item(), rel=tolerance)
        our_optimizer.step()
        their_optimizer.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_cosine_schedule():
    w = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([w], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=40, eta_min=0.1)
    ours = optim.warmup_cosine(1.0, steps=41, final=0.1)
    for step in range(41):
        assert ours(step) == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-12)
        theirs.step()
        cosine.step()


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_fifty_steps_of_muon(dtype, tolerance, monkeypatch):
    """torch's orthogonalises in bfloat16, to spare a GPU; in full precision it is ours."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self)
    rng = np.random.default_rng(1)
    shapes, settings = [(5, 3), (4, 9), (6, 6), (1, 7)], {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    ours = [Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.tensor(p.data.copy())) for p in ours]
    our_optimizer = optim.Muon(ours, **settings)
    their_optimizer = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **settings)
    for step in range(50):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            grad = np.asarray(rng.normal(size=p.shape) + p.data, dtype=dtype)
            p.grad, q.grad = (None, None) if i == 1 and step < 7 else (grad, torch.tensor(grad))
        our_optimizer.step()
        their_optimizer.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=tolerance, atol=tolerance)
