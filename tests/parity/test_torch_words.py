"""The formulas that stand for torch's layers compute what those compute."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import minillm.functional as F  # noqa: E402
from minillm import Tensor  # noqa: E402
from minillm.autograd.torch_words import NN, OTHERS  # noqa: E402

rng = np.random.default_rng(0)
B, C, H, W, T = 2, 3, 4, 6, 8
ONE_ARGUMENT = {  # layer -> its arguments in torch, and the shape of x
    "Upsample": ({"scale_factor": 2}, (B, C, H, W)),
    "UpsamplingNearest2d": ({"scale_factor": 2}, (B, C, H, W)),
    "PixelShuffle": ({"upscale_factor": 2}, (B, 4 * C, H, W)),
    "InstanceNorm2d": ({"num_features": C}, (B, C, H, W)),
    "Softmax2d": ({}, (B, C, H, W)),
    "AdaptiveAvgPool2d": ({"output_size": 1}, (B, C, H, W)),
    "AdaptiveMaxPool2d": ({"output_size": 1}, (B, C, H, W)),
    "AdaptiveAvgPool1d": ({"output_size": 1}, (B, C, T)),
    "AdaptiveMaxPool1d": ({"output_size": 1}, (B, C, T)),
    "MaxPool1d": ({"kernel_size": 2}, (B, C, T)),
    "AvgPool1d": ({"kernel_size": 2}, (B, C, T)),
    **{name: ({}, (5, 6)) for name in ("ReLU6", "Hardtanh", "Hardsigmoid", "Hardswish", "SELU", "CELU", "Mish", "GLU",
                                       "LogSigmoid", "Softsign")},
    "Softmin": ({"dim": -1}, (5, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_a_layer_of_one_argument(name):
    settings, shape = ONE_ARGUMENT[name]
    value = 3 * rng.normal(size=shape)
    formula = NN[name].split(" for one number")[0].split(", for the nearest")[0]
    names = {"F": F, "np": np, "x": Tensor(value), "B": B, "C": C, "H": H, "W": W, "T": T}
    if "where a, b = " in formula:
        formula, parts = formula.split(", where a, b = ")
        names["a"], names["b"] = eval(parts, names)
    theirs = getattr(torch.nn, name)(**settings)(torch.tensor(value)).numpy()
    ours = eval(formula, names)
    np.testing.assert_allclose(ours.data.reshape(theirs.shape), theirs, rtol=2e-6, atol=1e-6)


def test_losses_and_distances():
    a, b, c = (rng.normal(size=(5, 6)) for _ in range(3))
    variance, sign = np.exp(rng.normal(size=(5, 6))), np.sign(rng.normal(size=(5, 6)))
    names = {"F": F, "margin": 0.5, "x": Tensor(a), "y": Tensor(b), "near": Tensor(b), "far": Tensor(c),
             "target": Tensor(b), "variance": Tensor(variance), "sign": Tensor(sign)}  # fmt: skip
    x, y, z = map(torch.tensor, (a, b, c))
    functions = torch.nn.functional
    theirs = {
        "CosineSimilarity": functions.cosine_similarity(x, y, dim=-1),
        "PairwiseDistance": functions.pairwise_distance(x, y, eps=0.0),
        "TripletMarginLoss": functions.triplet_margin_loss(x, y, z, margin=0.5, eps=0.0),
        "MarginRankingLoss": functions.margin_ranking_loss(x, y, torch.tensor(sign), margin=0.5),
        "PoissonNLLLoss": functions.poisson_nll_loss(x, y),
        "GaussianNLLLoss": functions.gaussian_nll_loss(x, y, torch.tensor(variance)),
    }
    for name, expected in theirs.items():
        np.testing.assert_allclose(eval(NN[name], names).data, expected.numpy(), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(eval(OTHERS["normalize"], names).data, functions.normalize(x, dim=-1).numpy(), rtol=1e-6)
