"""Torch's words lead to ours: each in one sentence, and what the sentence names is there."""

import re

import numpy as np
import pytest

import minillm
import minillm.functional as F
from minillm import Tensor, nn, optim
from minillm.autograd import torch_words

W = Tensor(np.ones((1, 1)), requires_grad=True)


@pytest.mark.parametrize(
    "place, name, says",
    [
        (Tensor([1.0]), "view", "Tensor has no 'view': write x.reshape(1, -1)"),
        (Tensor([1.0]), "t", "write x.T"),
        (Tensor([1.0]), "masked_fill", "write F.where(mask, value, x)"),
        (Tensor([1.0]), "to", "write x.astype(np.float64)"),
        (Tensor([1.0]), "softmax", "write F.softmax(x)"),
        (F, "cat", "minillm.functional has no 'cat'; concatenate(...) does this"),
        (F, "max", "minillm.functional has no 'max'; x.max(...) does this"),
        (F, "bmm", "minillm.functional has no 'bmm': write a @ b"),
        (nn, "CrossEntropyLoss", "minillm.nn has no 'CrossEntropyLoss': write F.cross_entropy(logits, targets)"),
        (nn, "ModuleList", "write a list"),
        (nn, "Parameter", "write Tensor(array, requires_grad=True)"),
        (optim, "Adam", "minillm.optim has no 'Adam': write optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)"),
        (optim, "lr_scheduler", "optim.warmup_cosine"),
        (minillm, "manual_seed", "there is no global seed"),
        (minillm, "zeros", "minillm has no 'zeros': write Tensor(np.zeros((2, 3), np.float32))"),
        (minillm, "randn", "standard_normal"),
        (minillm, "nonsense", "minillm has no 'nonsense'"),
        (minillm, "softmax", "minillm has no 'softmax': write F.softmax(...)"),
        (minillm, "argmax", "write x.argmax(...)"),
        (minillm.autograd, "Function", "write a function that returns Tensor.from_op(y, (x,), backward)"),
        (nn.init, "xavier_uniform_", "write layer.weight.data[...] = rng.normal"),
        (nn.ReLU(), "register_buffer", "ReLU has no 'register_buffer': write self.name = Tensor(array)"),
        (nn.Sequential(), "append", "write net.layers.append(layer)"),
        (nn.ReLU(), "nonsense", "'ReLU' object has no attribute 'nonsense'"),
        (Tensor([1.0]), "argsort", "NumPy has it for the values alone, np.argsort(x.data)"),
        (Tensor([1.0]), "normal_", "write x.data[...] = rng.normal(size=x.shape), outside the graph"),
        (Tensor([1.0]), "tan_", "Tensor has no 'tan_': values are not changed in place: write into x.data"),
        (Tensor([1.0]), "scatter_add", "F.one_hot(indices, size).T @ x"),
        (Tensor([1.0]), "nonsense", "Tensor has no 'nonsense'"),
        (F, "relu_", "nothing is changed in place: write x = F.relu(x)"),
        (F, "cosine_similarity", "minillm.functional has no 'cosine_similarity': write (x * y).sum(axis=-1) / (F.norm"),
        (F, "hardtanh", "write F.clip(x, -1, 1)"),
        (F, "interpolate", "write x[:, :, np.arange(2 * H) // 2]"),
        (F, "multinomial", "write np.random.default_rng(seed).choice(len(p), p=p)"),
        (F, "topk", "minillm.functional has no 'topk': write np.argsort(-x.data)"),
        (minillm, "jit", "write nothing: kernels are compiled already"),
        (minillm, "autocast", "write nothing: float32 and float64"),
        (minillm, "backends", "arrays are on the CPU here"),
        (minillm.data, "DataLoader", "minillm.data has no 'DataLoader': write Trainer(model, dataset)"),
        (minillm.data, "nonsense", "minillm.data has no 'nonsense'"),
        (F, "sinh", "NumPy has it for the values alone, np.sinh(x.data)"),
        (nn, "ConvTranspose2d", "minillm.nn has no 'ConvTranspose2d': write nn.Conv2d(...) of x[:, :, np.arange"),
        (nn, "Upsample", "for the nearest of twice the size"),
        (nn, "CTCLoss", "a layer is a Module of your own, of functions of F; here are"),
        (optim, "RMSprop", "betas=(0.0, 0.99)"),
        (optim, "LBFGS", "here are SGD, AdamW and Muon"),
        (minillm, "zeros_like", "NumPy has it for the values alone, np.zeros_like(x.data)"),
        (minillm, "addmm", "write c + a @ b"),
    ],
)
def test_a_name_that_is_not_here(place, name, says):
    with pytest.raises(AttributeError, match=re.escape(says)):
        getattr(place, name)


def test_what_python_asks_of_a_number():
    x, y = Tensor([7.5, -7.5]), Tensor([2.0, 2.0])
    whole, rest = divmod(x, y)
    assert whole.data.tolist() == [3.0, -4.0] and rest.data.tolist() == [1.5, 0.5]
    whole, rest = divmod(8, y)
    assert whole.data.tolist() == [4.0, 4.0] and rest.data.tolist() == [0.0, 0.0]
    assert round(Tensor([0.5, 1.5, -2.7])).data.tolist() == [0.0, 2.0, -3.0]
    assert round(Tensor([1234.5678], requires_grad=True), -2).data.tolist() == [1200.0]
    assert (+x) is x and (Tensor([True, True]) ^ Tensor([True, False])).data.tolist() == [False, True]
    assert (x.size, x.size + 1, f"{x.size:,}", type(x.size + 1)) == (2, 3, "2", int)


def test_what_the_sentences_name_is_there():
    tables = (torch_words.TENSOR, torch_words.OTHERS, torch_words.NN, torch_words.OPTIM, torch_words.MINILLM)
    tables += (torch_words.MODULE, torch_words.OPTIMIZER)
    text = " ".join(sentence for table in tables for sentence in table.values())
    for name in re.findall(r"\bF\.(\w+)", text) + [n for n in torch_words.FUNCTIONS.values() if "." not in n]:
        assert hasattr(F, name), name
    for module, place in ((nn, "nn"), (optim, "optim"), (np, "np")):
        for name in re.findall(rf"\b{place}\.(\w+)", text):
            assert hasattr(module, name), name
    for name in re.findall(r"\bx\.(\w+)", text):
        assert hasattr(Tensor([1.0]), name), name


def test_no_word_stands_for_what_is_here():
    for table, place in ((torch_words.TENSOR, Tensor([1.0])), (torch_words.FUNCTIONS, F), (torch_words.OTHERS, F),
                         (torch_words.NN, nn), (torch_words.OPTIM, optim), (torch_words.MINILLM, minillm)):  # fmt: skip
        assert not [name for name in table if hasattr(place, name)]


def test_axes_have_numpys_names():
    x = Tensor(np.ones((2, 3)))
    for call in (lambda: x.sum(dim=1), lambda: x.mean(dim=1), lambda: F.softmax(x, dim=-1), lambda: F.cumsum(x, dim=0)):
        with pytest.raises(TypeError, match=r": axes are NumPy's: write axis= for dim="):
            call()
    with pytest.raises(TypeError, match="write keepdims= for keepdim="):
        x.max(axis=1, keepdim=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'axes'"):
        x.sum(axes=1)


def test_a_warning_names_the_line_that_calls():
    with pytest.warns(UserWarning, match="are broadcast to one shape") as told:
        F.mse_loss(Tensor(np.ones((2, 1))), np.ones(2))
    assert told[0].filename == __file__


def test_the_module_tensor_says_that_it_is_no_function():
    with pytest.raises(TypeError, match=r"minillm.tensor is a module: write Tensor\(array\)"):
        minillm.tensor([1.0])
    assert minillm.tensor.Tensor is Tensor


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: nn.LSTM(2, 3, batch_first=True), r"LSTM: x is always \(B, T, C\): leave out batch_first="),
        (lambda: nn.BatchNorm2d(num_features=3), "BatchNorm2d: write channels= for num_features="),
        (lambda: nn.ReLU(inplace=True), "ReLU: nothing is changed in place: leave out inplace="),
        (lambda: nn.Embedding(3, 2, padding_idx=0), "Embedding: hide padding with a mask"),
        (lambda: nn.LayerNorm(normalized_shape=4), "LayerNorm: write size= for normalized_shape="),
        (lambda: nn.MultiHeadAttention(embed_dim=4, num_heads=2), "MultiHeadAttention: write width= for embed_dim="),
        (lambda: nn.Linear(2, 3, device="cpu"), "Linear: arrays are on the CPU here: leave out device="),
        (lambda: F.scaled_dot_product_attention(1, 2, 3, is_causal=True), "write causal= for is_causal="),
        (lambda: F.softmax(Tensor([1.0]), dim=0), "softmax: axes are NumPy's: write axis= for dim="),
        (lambda: minillm.load("x", map_location="cpu"), "load: arrays are on the CPU here: leave out map_location="),
        (lambda: optim.SGD([W], lr=0.1, nesterov=True), "SGD: .* of SGD does not: leave out nesterov="),
        (lambda: optim.Muon([W], lr=0.1, ns_steps=4), r"Muon: orthogonal\(\) takes five steps: leave out ns_steps="),
        (lambda: optim.AdamW([W], amsgrad=True), "AdamW: the mean of squares may fall again: leave out amsgrad="),
        (lambda: nn.Conv2d(2, 2, 3, groups=2), "Conv2d: give parts of the channels to layers of their own"),
        (lambda: F.cross_entropy(W, [0], weight=W), 'cross_entropy: multiply the losses of reduction="none" by'),
        (lambda: nn.MultiHeadAttention(2, 1)(W, need_weights=True), "MultiHeadAttention: with minillm.record"),
        (lambda: nn.MultiHeadAttention(2, 1)(W, key=W, value=W), "MultiHeadAttention: write context= for key="),
        (lambda: optim.SGD([W], lr=0.1).zero_grad(set_to_none=True), "zero_grad: gradients are None .* out set_to"),
        (lambda: nn.ReLU().zero_grad(set_to_none=True), "zero_grad: gradients are None afterwards"),
        (lambda: F.layer_norm(W, (1,)), r"layer_norm: weight must be a Tensor, .* last axis; got \(1,\)"),
        (lambda: F.rms_norm(W, [1.0]), "rms_norm: weight must be a Tensor"),
        (lambda: minillm.save("x", {}), "save: state must .* and stand before the path; got 'x'"),
        (lambda: minillm.generate(W, W, "x", max_new_tokens=3), r"generate: write GenerationConfig\(max_new_tokens=20"),
        (lambda: minillm.generate_batch(W, W, ["x"], top_k=3), "generate_batch: write GenerationConfig"),
        (lambda: minillm.TrainConfig(lr=1), "TrainConfig: write learning_rate= for lr="),
        (lambda: minillm.TrainConfig(epochs=1), "TrainConfig: write steps= for epochs="),
        (lambda: W.size(0), r"Tensor.size is a number, 1: write x.shape, or x.shape\[0\]"),
        (lambda: W.size(), r"write x.shape, or x.shape\[0\]"),
        (lambda: nn.Linear(2, 3, nonsense=1), "unexpected keyword argument 'nonsense'"),
    ],
)
def test_an_argument_that_is_torchs(call, says):
    with pytest.raises(TypeError, match=says):
        call()


def test_an_error_inside_a_property_is_seen():
    class Broken(nn.Module):
        @property
        def width(self):
            return self.weight.nonsense

        weight = Tensor([1.0])

    with pytest.raises(AttributeError, match="Tensor has no 'nonsense'"):
        _ = Broken().width


def test_a_hook_is_removed_in_both_ways():
    layer, x = nn.Linear(1, 1, rng=0), Tensor([[1.0]], requires_grad=True)
    seen = []
    handles = [layer.register_forward_hook(lambda *a: seen.append("forward")) for _ in range(2)]
    handles.append(x.register_hook(lambda dy: seen.append("gradient")))
    layer(x).sum().backward()
    assert seen == ["forward", "forward", "gradient"]
    handles[0].remove()
    handles[0].remove()
    handles[1]()
    handles[2].remove()
    layer(x).sum().backward()
    assert len(seen) == 3 and not layer.is_watched
