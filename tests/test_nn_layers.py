"""Layers for pictures, batch normalisation, attention to another text, and the summary of a model."""

import numpy as np
import pytest

import minillm.functional as F
from minillm import Tensor, models, nn, summary


def array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_conv2d_is_its_function_and_has_its_filters():
    layer = nn.Conv2d(3, 5, (3, 2), stride=2, padding=1, rng=0)
    x = Tensor(array(2, 3, 7, 6))
    np.testing.assert_array_equal(layer(x).data, F.conv2d(x, layer.weight, layer.bias, 2, 1).data)
    assert layer.weight.shape == (5, 3, 3, 2) and layer.bias.shape == (5,)
    assert np.abs(layer.weight.data).max() <= 1 / np.sqrt(18)
    assert nn.Conv2d(3, 5, 3, bias=False).bias is None
    with pytest.raises(ValueError, match="sizes must be at least 1"):
        nn.Conv2d(0, 5, 3)


def test_a_small_network_of_pictures_learns_which_half_is_bright():
    from minillm import optim

    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 64)
    x = rng.random((64, 1, 8, 8)).astype(np.float32)
    x[np.arange(64), 0, :, :4] += y[:, None, None]
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, rng=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 2, rng=2),
    )  # fmt: skip
    optimizer = optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(Tensor(x)), y).backward()
        optimizer.step()
    assert (model.eval()(Tensor(x)).data.argmax(-1) == y).mean() > 0.95


def test_conv1d_and_average_pools():
    layer = nn.Conv1d(2, 3, 3, padding=1, rng=0)
    x = Tensor(array(2, 2, 9))
    np.testing.assert_array_equal(layer(x).data, F.conv1d(x, layer.weight, layer.bias, 1, 1).data)
    picture = Tensor(array(1, 2, 4, 6))
    np.testing.assert_allclose(nn.AvgPool2d(2)(picture).data, F.avg_pool2d(picture, 2).data)
    assert nn.Flatten()(picture).shape == (1, 48)


@pytest.mark.parametrize("layer, shape", [(nn.BatchNorm1d(4), (8, 4)), (nn.BatchNorm1d(4), (8, 4, 5)),
                                          (nn.BatchNorm2d(4), (3, 4, 5, 2))])  # fmt: skip
def test_batch_norm_gives_each_channel_mean_0_and_variance_1(layer, shape):
    x = array(*shape) * 3 + 7
    y = layer.train()(Tensor(x)).data
    axes = tuple(i for i in range(len(shape)) if i != 1)
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axes), 1, atol=1e-4)
    n = x.size // 4
    np.testing.assert_allclose(layer.running_mean.data, 0.1 * x.mean(axes), rtol=1e-4)
    np.testing.assert_allclose(layer.running_var.data, 0.9 + 0.1 * x.var(axes) * n / (n - 1), rtol=1e-4)
    layer.eval()
    per_channel = [1, 4] + [1] * (len(shape) - 2)
    mean, var = layer.running_mean.data.reshape(per_channel), layer.running_var.data.reshape(per_channel)
    np.testing.assert_allclose(layer(Tensor(x)).data, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-4)


def test_batch_norm_saves_what_it_has_seen_and_refuses_what_it_cannot_do():
    layer = nn.BatchNorm1d(4)
    layer(Tensor(array(8, 4)))
    other = nn.BatchNorm1d(4)
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other.running_mean.data, layer.running_mean.data)
    with pytest.raises(ValueError, match="more than one number per channel"):
        layer(Tensor(array(1, 4)))
    with pytest.raises(ValueError, match=r"expected x \(B, C, Y, X\) with C = 4"):
        nn.BatchNorm2d(4)(Tensor(array(2, 3, 4, 4)))
    with pytest.raises(ValueError, match="momentum"):
        nn.BatchNorm1d(4, momentum=2.0)


def test_cross_attention_looks_at_the_context_alone():
    layer = nn.MultiHeadAttention(8, 2, causal=False, rng=0)
    x, context = Tensor(array(2, 3, 8)), Tensor(array(2, 5, 8, seed=1))
    y = layer(x, context)
    assert y.shape == (2, 3, 8)
    # without the last two of the context: as with a mask that hides them
    hidden = layer(x, context, mask=np.arange(5) < 3)
    np.testing.assert_allclose(layer(x, Tensor(context.data[:, :3])).data, hidden.data, rtol=1e-5, atol=1e-6)
    assert np.abs(hidden.data - y.data).max() > 1e-3
    with pytest.raises(ValueError, match="causal=False"):
        nn.MultiHeadAttention(8, 2, rng=0)(x, context)
    with pytest.raises(ValueError, match=r"context must be \(B, S, width\)"):
        layer(x, Tensor(array(1, 5, 8)))


def test_the_summary_of_a_gpt_counts_its_products():
    V, C, T = 11, 8, 6
    config = models.GPT2Config(vocab_size=V, n_embd=C, n_layer=2, n_head=2, n_positions=T)
    model = models.GPT2(config, 0)
    found = summary(model, np.zeros((3, T), int))
    assert found.parameters == model.num_parameters()
    rows = 3 * T
    attention = 4 * rows * C * T
    assert found.operations == 2 * (2 * rows * C * (3 * C + C + 8 * C) + attention) + 2 * rows * C * V
    by_path = {line.path: line for line in found.lines}
    assert by_path["transformer.h.1.mlp.c_fc"].shape == f"(3, {T}, {4 * C})"
    assert by_path["transformer.h.0"].operations == by_path["transformer.h.1"].operations > 0
    assert "forward" not in vars(model)  # left as it was
    assert "<td>transformer.h.0</td>" in found._repr_html_()


def test_the_summary_leaves_the_model_as_it_was_when_the_call_fails():
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="linear"):
        summary(model, Tensor(np.zeros((1, 4), np.float32)))
    assert "forward" not in vars(model.layers[0])
    with pytest.raises(TypeError, match="input too"):
        summary(model)
