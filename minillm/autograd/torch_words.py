"""Where a word of torch's leads: a name that is not here is answered by a sentence with what to
write instead.

>>> from minillm import Tensor
>>> Tensor([1.0]).view(1, 1)
Traceback (most recent call last):
    ...
AttributeError: Tensor has no 'view': write x.reshape(1, -1)
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

_NOTHING = "nothing: arrays are on the CPU here"
TENSOR = {
    "view": "x.reshape(1, -1)",
    **dict.fromkeys(("view_as", "reshape_as"), "x.reshape(other.shape)"),
    "t": "x.T",
    "mT": "x.swapaxes(-1, -2)",
    "permute": "x.transpose(0, 2, 1)",
    "movedim": "x.transpose(...) with all axes in their new order",
    "flatten": "x.reshape(len(x), -1)",
    "clone": "x + 0, which keeps the gradient, or Tensor(x.data.copy()), which does not",
    "to": "x.astype(np.float64) for another dtype; for a device, nothing: arrays are on the CPU here",
    "type": "x.astype(np.float64)",
    "float": "x.astype(np.float32)",
    "double": "x.astype(np.float64)",
    "long": "x.astype(np.int64)",
    "int": "x.astype(np.int32)",
    "bool": "x != 0",
    **dict.fromkeys(("cpu", "cuda", "device"), _NOTHING),
    "contiguous": "nothing: every array will do",
    "tolist": "x.data.tolist()",
    "numel": "x.size",
    "dim": "x.ndim",
    "masked_fill": "F.where(mask, value, x)",
    "masked_fill_": "x = F.where(mask, value, x)",
    "expand": "F.broadcast_to(x, shape)",
    "expand_as": "F.broadcast_to(x, other.shape)",
    "repeat": "F.tile(x, repeats)",
    "cat": "F.concatenate([x, y], axis=0)",
    "clamp": "F.clip(x, low, high)",
    "index_select": "F.take(x, indices, axis)",
    **dict.fromkeys(("matmul", "mm", "bmm"), "x @ y"),
    "mul": "x * y",
    "add": "x + y",
    "sub": "x - y",
    "div": "x / y",
    "pow": "x ** y",
    "neg": "-x",
    "eq": "x == y",
    "ne": "x != y",
    "lt": "x < y",
    "le": "x <= y",
    "gt": "x > y",
    "ge": "x >= y",
    "amax": "x.max(axis)",
    "amin": "x.min(axis)",
    "topk": "np.argsort(-x.data) for the places, x.data for the values",
    "sort": "np.sort(x.data)",
    "requires_grad_": "x.requires_grad = True",
    "grad_fn": "x.op, the name of the operation",
    "is_leaf": "x.op is None",
    "unique": "np.unique(x.data)",
    "any": "(x.data != 0).any()",
    "all": "(x.data != 0).all()",
    "copy_": "x.data[...] = values, outside the graph",
    "fill_": "x.data[...] = value, outside the graph",
    "zero_": "x.data[...] = 0, outside the graph",
    "add_": "x.data += y.data, outside the graph",
    "sub_": "x.data -= y.data, outside the graph",
    "mul_": "x.data *= y.data, outside the graph",
    "relu_": "x = F.relu(x)",
    "normal_": "x.data[...] = rng.normal(size=x.shape), outside the graph",
    "uniform_": "x.data[...] = rng.random(x.shape), outside the graph",
    "bernoulli": "rng.random(x.shape) < x.data",
    "nelement": "x.size",
    "ndimension": "x.ndim",
    "narrow": "x[start : start + length]",
    "select": "x[:, index]",
    "unbind": "list(x)",
    "unflatten": "x.reshape(...) with all axes",
    "masked_select": "x[mask]",
    **dict.fromkeys(("scatter", "scatter_"), "F.where(mask, value, x), or F.one_hot(indices, size)"),
    "scatter_add": "F.one_hot(indices, size).T @ x, which adds the rows of the same index",
    "index_add": "F.one_hot(indices, size).T @ x, which adds the rows of the same index",
    "index_fill": "F.where(mask, value, x)",
    "repeat_interleave": "F.take(x, np.arange(len(x)).repeat(n), axis=0)",
    **dict.fromkeys(("addmm", "baddbmm"), "c + a @ b"),
    "mv": "x @ y",
    "lerp": "x + share * (y - x)",
    "logit": "F.log(x / (1 - x))",
    "clamp_min": "F.maximum(x, low)",
    "clamp_max": "F.minimum(x, high)",
    "type_as": "x.astype(other.dtype)",
    **dict.fromkeys(("half", "bfloat16"), "nothing: float32 and float64 are the dtypes here"),
    "is_floating_point": 'x.dtype.kind == "f"',
    **dict.fromkeys(("is_cuda", "get_device", "pin_memory", "share_memory_"), _NOTHING),
    "is_contiguous": "nothing: every array will do",
    "stride": "x.data.strides, in bytes",
    "element_size": "x.data.itemsize",
    "nbytes": "x.data.nbytes",
    "new_zeros": "Tensor(np.zeros(shape, x.dtype))",
    "new_ones": "Tensor(np.ones(shape, x.dtype))",
    "new_full": "Tensor(np.full(shape, value, x.dtype))",
    "new_tensor": "Tensor(array)",
    "det": "np.linalg.det(x.data)",
    "inverse": "np.linalg.inv(x.data)",
    "svd": "np.linalg.svd(x.data)",
    "kthvalue": "np.partition(x.data, k)[k]",
    "register_post_accumulate_grad_hook": "x.register_hook(hook)",
}
FUNCTIONS = {  # torch's function -> ours
    **dict.fromkeys(("cat", "concat"), "concatenate"),
    "clamp": "clip",
    "permute": "x.transpose",
    "transpose": "x.swapaxes",
    "view": "x.reshape",
    "expand": "broadcast_to",
    "repeat": "tile",
    "index_select": "take",
    "smooth_l1_loss": "huber_loss",
    "binary_cross_entropy": "binary_cross_entropy_with_logits",
    "multi_head_attention_forward": "nn.MultiHeadAttention",
}
OTHERS = {  # what is no function here
    "flatten": "x.reshape(len(x), -1)",
    **dict.fromkeys(("mm", "bmm"), "a @ b"),
    "masked_fill": "F.where(mask, value, x)",
    "pow": "x ** y",
    "square": "x * x",
    "neg": "-x",
    "normalize": "x / F.norm(x, axis=-1, keepdims=True)",
    "batch_norm": "nn.BatchNorm1d(channels)(x), or nn.BatchNorm2d",
    "interpolate": "x[:, :, np.arange(2 * H) // 2][..., np.arange(2 * W) // 2], for the nearest of twice the size",
    "multinomial": "np.random.default_rng(seed).choice(len(p), p=p)",
    "topk": "np.argsort(-x.data) for the places, x.data for the values",
    "gumbel_softmax": "F.softmax((x - F.log(-F.log(u))) / temperature), with u = rng.random(x.shape)",
}
NN = {
    "CrossEntropyLoss": "F.cross_entropy(logits, targets)",
    "NLLLoss": "F.nll_loss(log_probabilities, targets)",
    "MSELoss": "F.mse_loss(prediction, target)",
    "L1Loss": "F.l1_loss(prediction, target)",
    **dict.fromkeys(("HuberLoss", "SmoothL1Loss"), "F.huber_loss(prediction, target)"),
    "BCEWithLogitsLoss": "F.binary_cross_entropy_with_logits(logits, targets)",
    "BCELoss": "F.binary_cross_entropy_with_logits(logits, targets), of the scores before the sigmoid",
    "KLDivLoss": "F.kl_div(log_q, p)",
    "ModuleList": "a list: self.layers = [nn.Linear(4, 4) for _ in range(3)]",
    "ModuleDict": 'a dict: self.layers = {"up": nn.Linear(4, 8)}',
    "ParameterList": "a list of Tensors with requires_grad=True",
    "Parameter": "Tensor(array, requires_grad=True)",
    "functional": "import minillm.functional as F",
    "Identity": "lambda x: x",
    "Softmax": "F.softmax(x)",
    "LogSoftmax": "F.log_softmax(x)",
    "LeakyReLU": "F.leaky_relu(x)",
    "ELU": "F.elu(x)",
    "Softplus": "F.softplus(x)",
    "MultiheadAttention": "nn.MultiHeadAttention(width, heads)",
    "ParameterDict": "a dict of Tensors with requires_grad=True",
    "EmbeddingBag": "nn.Embedding(ids, width)(x).mean(axis=1)",
    "AdaptiveAvgPool2d": "x.mean(axis=(2, 3)) for one number per channel",
    "Dropout2d": "nn.Dropout(p)",
    "GroupNorm": "nn.LayerNorm(width) or nn.BatchNorm2d(channels)",
    "TransformerEncoderLayer": "a Module of nn.MultiHeadAttention and nn.Linear, as Block in models/gpt2.py",
    "TransformerDecoderLayer": "a Module of nn.MultiHeadAttention and nn.Linear, as Block in models/t5.py",
    "Transformer": "models.T5(models.T5Config(...))",
    "utils": "optim.clip_grad_norm(parameters, max_norm)",
    "DataParallel": "nothing: one process with all its threads",
    "TransformerEncoder": "a list of Modules, as the blocks of models/gpt2.py",
    "TransformerDecoder": "a list of Modules, as the blocks of models/t5.py",
    "ConvTranspose2d": "nn.Conv2d(...) of x[:, :, np.arange(2 * H) // 2][..., np.arange(2 * W) // 2], twice the size",
    "Upsample": "x[:, :, np.arange(2 * H) // 2][..., np.arange(2 * W) // 2], for the nearest of twice the size",
    "UpsamplingNearest2d": "x[:, :, np.arange(2 * H) // 2][..., np.arange(2 * W) // 2]",
    "MaxPool1d": "x.reshape(B, C, T // 2, 2).max(axis=-1)",
    "AvgPool1d": "x.reshape(B, C, T // 2, 2).mean(axis=-1)",
    "AdaptiveAvgPool1d": "x.mean(axis=2) for one number per channel",
    "AdaptiveMaxPool1d": "x.max(axis=2) for one number per channel",
    "AdaptiveMaxPool2d": "x.max(axis=(2, 3)) for one number per channel",
    "Dropout1d": "nn.Dropout(p)",
    "InstanceNorm2d": "(x - x.mean((2, 3), keepdims=True)) / F.sqrt(x.var((2, 3), keepdims=True) + 1e-5)",
    "RNNCell": "nn.RNN(...), of x with one step, (B, 1, C)",
    "GRUCell": "nn.GRU(...), of x with one step, (B, 1, C)",
    "LSTMCell": "nn.LSTM(...), of x with one step, (B, 1, C)",
    "LazyLinear": "nn.Linear(in_features, out_features)",
    "Unflatten": "x.reshape(...) with all axes",
    "ZeroPad2d": "F.pad(x, widths)",
    "ConstantPad2d": "F.pad(x, widths, value)",
    "PixelShuffle": "x.reshape(B, C, 2, 2, H, W).transpose(0, 1, 4, 2, 5, 3).reshape(B, C, 2 * H, 2 * W)",
    "PReLU": "F.maximum(x, 0) + weight * F.minimum(x, 0)",
    "ReLU6": "F.clip(x, 0, 6)",
    "Hardtanh": "F.clip(x, -1, 1)",
    "Hardsigmoid": "F.clip(x / 6 + 0.5, 0, 1)",
    "Hardswish": "x * F.clip(x / 6 + 0.5, 0, 1)",
    "SELU": "1.05070099 * F.elu(x, 1.67326324)",
    "CELU": "F.elu(x)",
    "Mish": "x * F.tanh(F.softplus(x))",
    "GLU": "a * F.sigmoid(b), where a, b = F.chunk(x, 2, axis=-1)",
    "LogSigmoid": "-F.softplus(-x)",
    "Softmin": "F.softmax(-x)",
    "Softsign": "x / (1 + abs(x))",
    "Softmax2d": "F.softmax(x, axis=1)",
    "CosineSimilarity": "(x * y).sum(axis=-1) / (F.norm(x, axis=-1) * F.norm(y, axis=-1))",
    "PairwiseDistance": "F.norm(x - y, axis=-1)",
    "TripletMarginLoss": "F.relu(F.norm(x - near, axis=-1) - F.norm(x - far, axis=-1) + margin).mean()",
    "MarginRankingLoss": "F.relu(margin - sign * (x - y)).mean()",
    "PoissonNLLLoss": "(F.exp(x) - target * x).mean()",
    "GaussianNLLLoss": "(F.log(variance) + (x - target) ** 2 / variance).mean() / 2",
    "Buffer": "self.name = Tensor(array): without requires_grad it is saved, and not learned",
}
_LAYERS = {name.lower(): words for name, words in NN.items()}  # F.hardtanh as nn.Hardtanh
MODULE = {
    "register_buffer": "self.name = Tensor(array): without requires_grad it is saved, and not learned",
    "buffers": "[p for p in module.parameters() if not p.requires_grad]",
    "named_buffers": "named_parameters(), of which those without requires_grad are not learned",
    "register_parameter": "self.name = Tensor(array, requires_grad=True)",
    "add_module": "self.name = module",
    "get_submodule": "dict(module.named_modules())[path]",
    "named_children": "children(), which gives the names too",
    "append": "net.layers.append(layer)",
    "requires_grad_": "for p in module.parameters(): p.requires_grad = False",
    "register_full_backward_hook": "register_backward_hook(hook), a function of the module and its output's gradient",
    "to": "module.astype(np.float64) for another dtype; for a device, nothing: arrays are on the CPU here",
    "float": "module.astype(np.float32)",
    "double": "module.astype(np.float64)",
    **dict.fromkeys(("half", "bfloat16"), "nothing: float32 and float64 are the dtypes here"),
    **dict.fromkeys(("cpu", "cuda", "device"), _NOTHING),
    "compile": "nothing: kernels are compiled already",
    "share_memory": _NOTHING,
    "type": "module.astype(np.float64)",
    **dict.fromkeys(("get_parameter", "get_buffer"), "dict(module.named_parameters())[path]"),
    "register_module": "self.name = module",
    "set_submodule": "module.part = other",
    "register_full_backward_pre_hook": "register_backward_hook(hook)",
}
AUTOGRAD = {
    "grad": "loss.backward(), and then x.grad",
    "Function": "a function that returns Tensor.from_op(y, (x,), backward), as in check/gradcheck.py",
    "Variable": "Tensor(array, requires_grad=True)",
}
INIT_VALUES = "layer.weight.data[...] = rng.normal(0, 0.02, layer.weight.shape)"
OPTIM = {
    "Adam": "optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)",
    "lr_scheduler": "a schedule, optim.warmup_cosine(lr, steps=...), and optimizer.lr = schedule(step) in each step",
    "clip_grad_norm_": "optim.clip_grad_norm(parameters, max_norm)",
    "RMSprop": "optim.AdamW(parameters, lr=1e-3, betas=(0.0, 0.99), weight_decay=0.0), which has its bias corrected",
    "LRScheduler": "a schedule, optim.warmup_cosine(lr, steps=...), and optimizer.lr = schedule(step) in each step",
}
OPTIMIZER = {
    "param_groups": "optimizer.lr = rate; a group that was given its own lr keeps its share of it",
    "add_param_group": "a new optimiser, optim.AdamW([*groups, group])",
    "defaults": "optimizer.lr",
    "state": "optimizer.state_dict()",
}
MINILLM = {
    "from_numpy": "Tensor(array), which shares its memory",
    "as_tensor": "Tensor(array)",
    "zeros": "Tensor(np.zeros((2, 3), np.float32))",
    "ones": "Tensor(np.ones((2, 3), np.float32))",
    "full": "Tensor(np.full((2, 3), value, np.float32))",
    "eye": "Tensor(np.eye(3, dtype=np.float32))",
    "empty": "Tensor(np.empty((2, 3), np.float32))",
    "arange": "F.arange(stop)",
    "linspace": "Tensor(np.linspace(start, stop, n, dtype=np.float32))",
    "rand": "Tensor(np.random.default_rng(seed).random((2, 3), np.float32))",
    "randn": "Tensor(np.random.default_rng(seed).standard_normal((2, 3), np.float32))",
    "randint": "np.random.default_rng(seed).integers(low, high, (2, 3))",
    "manual_seed": "rng = np.random.default_rng(seed), given as rng= to layers and functions: there is no global seed",
    "seed": "rng = np.random.default_rng(seed), given as rng= to layers and functions: there is no global seed",
    "cat": "F.concatenate([x, y], axis=0)",
    "stack": "F.stack([x, y])",
    "inference_mode": "no_grad",
    "enable_grad": "the code outside of no_grad()",
    "set_grad_enabled": "with no_grad():",
    "float32": "np.float32",
    "float64": "np.float64",
    **dict.fromkeys(("int64", "long"), "np.int64"),
    "bool": "bool",
    **dict.fromkeys(("cuda", "device"), _NOTHING),
    "DataLoader": "Trainer(model, dataset), or a loop over data.DocumentDataset(...).batch(step, batch_size, seed)",
    "utils": "Trainer(model, dataset), or a loop over data.DocumentDataset(...).batch(step, batch_size, seed)",
    "is_grad_enabled": "x.requires_grad, of a result",
    "allclose": "np.allclose(x.data, y.data)",
    "equal": "(x == y).data.all()",
    "multinomial": "np.random.default_rng(seed).choice(len(p), p=p)",
    "topk": "np.argsort(-x.data)",
    "Generator": "np.random.default_rng(seed)",
    "FloatTensor": "Tensor(np.asarray(values, np.float32))",
    "LongTensor": "Tensor(np.asarray(values, np.int64))",
    **dict.fromkeys(("compile", "jit"), "nothing: kernels are compiled already"),
    **dict.fromkeys(("amp", "autocast"), "nothing: float32 and float64 are the dtypes here"),
    **dict.fromkeys(("backends", "mps"), _NOTHING),
}
DATA = {
    "DataLoader": MINILLM["DataLoader"],
    "TensorDataset": "Trainer(model, dataset), with batch(step, batch_size, seed) and validation(batch_size)",
    "random_split": "data.split_documents(documents)",
}
GENERATION = "write GenerationConfig(max_new_tokens=20, temperature=0.7) as the argument config, without"
ARGUMENTS = {  # torch's argument -> what to do; "... dim=" follows
    **dict.fromkeys(("dim", "dims"), "axes are NumPy's: write axis= for"),
    "keepdim": "axes are NumPy's: write keepdims= for",
    "is_causal": "write causal= for",
    "attn_mask": "write mask= for",
    "dropout_p": "call F.dropout on the result, without",
    "enable_gqa": "groups of heads need no",
    "batch_first": "x is always (B, T, C): leave out",
    "bidirectional": "give x and x[:, ::-1] to two layers, and join what they make, for",
    "dropout": "put nn.Dropout(p) between layers, for",
    "padding_idx": "hide padding with a mask, or targets of -100, for",
    "num_features": "write channels= for",
    "embed_dim": "write width= for",
    "num_heads": "write heads= for",
    "normalized_shape": "write size= for",
    "inplace": "nothing is changed in place: leave out",
    "device": "arrays are on the CPU here: leave out",
    "dtype": "write layer.astype(np.float64) for",
    "map_location": "arrays are on the CPU here: leave out",
    "weights_only": "nothing but numbers is ever read: leave out",
    "nesterov": "the momentum of Muon looks ahead, that of SGD does not: leave out",
    "adjust_lr_fn": "steps of Muon are as long as those of AdamW, torch's match_rms_adamw: leave out",
    "ns_steps": "orthogonal() takes five steps: leave out",
    "ns_coefficients": "orthogonal() has the usual ones: leave out",
    "dampening": "gradients are added whole: leave out",
    "amsgrad": "the mean of squares may fall again: leave out",
    "maximize": "minimise -loss, without",
    "foreach": "all weights are one array already: leave out",
    "fused": "the update is one kernel already: leave out",
    "capturable": "arrays are on the CPU here: leave out",
    "differentiable": "no gradient goes through an update: leave out",
    "groups": "give parts of the channels to layers of their own, for",
    "dilation": "x[..., ::2] leaves places out, for",
    "padding_mode": "F.pad(x, widths) is what padding does; another way is x[..., indices], for",
    "ceil_mode": "F.pad(x, widths) first, for",
    "return_indices": "x.argmax(axis) says where, for",
    **dict.fromkeys(("affine", "elementwise_affine"), "scale and shift are always learned: leave out"),
    "track_running_stats": "means are always kept: leave out",
    "max_norm": "divide rows that are too long, outside the graph, for",
    "sparse": "gradients are whole arrays: leave out",
    "scale_grad_by_freq": "gradients are whole: leave out",
    **dict.fromkeys(("start_dim", "end_dim"), "write x.reshape(...) for"),
    **dict.fromkeys(("kdim", "vdim"), "put nn.Linear before it, for"),
    **dict.fromkeys(("weight", "pos_weight"), 'multiply the losses of reduction="none" by weights of your own, for'),
    **dict.fromkeys(("size_average", "reduce"), "write reduction= for"),
    "log_target": "give F.exp(log_p) and leave out",
    "correction": "write ddof= for",
    "unbiased": "write ddof=1 for True, 0 for False, in place of",
    "out": "a result is always new: leave out",
    "need_weights": "with minillm.record_attention(model) as weights: shows them, without",
    "return_weights": "with minillm.record_attention(model) as weights: shows them, without",
    "average_attn_weights": "minillm.record_attention gives the weights of each head: leave out",
    "key_padding_mask": "write mask= for",
    "query": "give x without a name, for",
    "key": "write context= for",
    "value": "keys and values come of one context: leave out",
    **dict.fromkeys(("max_new_tokens", "temperature", "top_k", "top_p", "num_beams"), GENERATION),
    "do_sample": "write GenerationConfig(temperature=0) for the most likely token, without",
    "lr": "write learning_rate= for",
    **dict.fromkeys(("epochs", "num_epochs", "max_steps"), "write steps= for"),
    "set_to_none": "gradients are None afterwards: leave out",
    "create_graph": "a gradient is an array, which has none itself: leave out",
}


def sentence(where: str, name: str, words: dict[str, str], otherwise: str = "") -> str:
    """What to say of a name that is not here; ``otherwise`` where torch has no such word either."""
    instead = f"write {words[name]}" if name in words else otherwise
    return f"{where} has no {name!r}" + (f": {instead}" if instead else "")


def of_functional(name: str) -> str:
    """What to say of a function of torch's that ``functional`` does not have."""
    layer = _LAYERS.get(name.replace("_", ""), "")
    if layer or not name.endswith("_"):
        return f"write {layer}" if layer else of_numpy(name)
    return f"nothing is changed in place: write x = F.{name[:-1]}(x)"


def of_numpy(name: str) -> str:
    """What to say of a function that NumPy has, and nobody here."""
    known = not name.startswith("_") and callable(getattr(np, name, None))
    return f"NumPy has it for the values alone, np.{name}(x.data)" if known else ""


class Count(int):
    """A number of entries, ``x.size``, for those who call it as torch's method."""

    def __call__(self, *axes: int) -> None:
        raise TypeError(f"Tensor.size is a number, {self}: write x.shape, or x.shape[{axes[0] if axes else 0}]")


class TensorModule(types.ModuleType):
    """The module ``tensor``, for those who call it as torch's function of that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("minillm.tensor is a module: write Tensor(array), from minillm import Tensor")


def torch_arguments(function: Function) -> Function:
    """Let a call with one of torch's arguments that is not ours end in a sentence that says what to
    write: ``axis=`` for ``dim=``.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError:
            own = inspect.signature(function).parameters
            given = [name for name in kwargs if name in ARGUMENTS and name not in own]
            if not given:
                raise
            name = type(args[0]).__name__ if function.__name__ in ("__init__", "forward") else function.__name__
            raise TypeError(f"{name}: {ARGUMENTS[given[0]]} {given[0]}=") from None

    return call  # type: ignore[return-value]
