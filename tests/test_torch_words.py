"""Torch's words lead to ours: each in one sentence, and what the sentence names is there."""

import re

import numpy as np
import pytest

import minillm
import minillm.functional as F
from minillm import Tensor, nn, optim
from minillm.arrays import torch_words


@pytest.mark.parametrize(
    "place, name, says",
    [
        (Tensor([1.0]), "view", "Tensor has no 'view': write x.reshape(1, -1)"),
        (Tensor([1.0]), "t", "write x.T"),
        (Tensor([1.0]), "masked_fill", "write F.where(mask, value, x)"),
        (Tensor([1.0]), "to", "write x.astype(np.float64)"),
        (Tensor([1.0]), "softmax", "perhaps F.softmax(x)"),
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
    ],
)
def test_a_name_that_is_not_here(place, name, says):
    with pytest.raises(AttributeError, match=re.escape(says)):
        getattr(place, name)


def test_what_the_sentences_name_is_there():
    tables = (torch_words.TENSOR, torch_words.OTHERS, torch_words.NN, torch_words.OPTIM, torch_words.MINILLM)
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


def test_the_module_tensor_says_that_it_is_no_function():
    with pytest.raises(TypeError, match=r"minillm.tensor is a module: write Tensor\(array\)"):
        minillm.tensor([1.0])
    assert minillm.tensor.Tensor is Tensor
