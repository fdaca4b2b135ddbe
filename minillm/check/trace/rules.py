"""What each operation does, and what its backward does, in words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .record import Entry


@dataclass(frozen=True)
class Rule:
    """An operation in words. {0}, {1}, ... are its inputs, {y} its result, {n} how many entries of
    the input went into one of the result.

    form: the expression; name(inputs) unless given. slopes: the local derivatives, where the
    operation treats each entry by itself. gets: what each input gets; the last one stands for all
    further ones.
    """

    verb: str
    form: str = ""
    slopes: tuple[str, ...] = ()
    gets: tuple[str, ...] = ()


NORM = "what d{y} asks for, without the part that would only move or stretch the whole row"
OWN_PART = "its own part of d{y}"

RULES = {
    "add": Rule("add", "{0} + {1}", ("1", "1")),
    "sub": Rule("subtract", "{0} - {1}", ("1", "-1")),
    "mul": Rule("multiply", "{0} × {1}", ("{1}", "{0}")),
    "truediv": Rule("divide", "{0} / {1}", ("1 / {1}", "-{0} / {1}²")),
    "pow": Rule("raise to a power", "{0} ^ {1}", ("{1} × {0}^({1} - 1)", "{y} × log {0}")),
    "mod": Rule("take the remainder", "{0} % {1}", ("1", "-floor({0} / {1})")),
    "neg": Rule("change the sign", "-{0}", ("-1",)),
    "abs": Rule("take the absolute value", "|{0}|", ("sign of {0}",)),
    "exp": Rule("exponential", slopes=("{y}",)),
    "log": Rule("logarithm", slopes=("1 / {0}",)),
    "log1p": Rule("logarithm of 1 + x", slopes=("1 / (1 + {0})",)),
    "sqrt": Rule("square root", slopes=("1 / (2 {y})",)),
    "sin": Rule("sine", slopes=("cos {0}",)),
    "cos": Rule("cosine", slopes=("-sin {0}",)),
    "tanh": Rule("tanh", slopes=("1 - {y}²",)),
    "sigmoid": Rule("sigmoid", slopes=("{y} (1 - {y})",)),
    "relu": Rule("relu", slopes=("1 where {0} > 0, else 0",)),
    "leaky_relu": Rule("leaky relu", slopes=("1 where {0} > 0, else the small slope",)),
    "gelu": Rule("gelu", slopes=("P({0}) + {0} P'({0})",)),
    "silu": Rule("silu", slopes=("s (1 + {0} (1 - s)), s = sigmoid({0})",)),
    "softplus": Rule("softplus", slopes=("sigmoid({0})",)),
    "elu": Rule("elu", slopes=("1 where {0} > 0, else alpha e^{0}",)),
    "clip": Rule("clip", slopes=("1 inside the bounds, 0 outside",)),
    "dropout": Rule("dropout", slopes=("the scale where the entry was kept, 0 where it was dropped",)),
    "astype": Rule("change the dtype", slopes=("1",)),
    "maximum": Rule("take the greater", slopes=("1 where {0} is greater, else 0", "1 where {1} is greater, else 0")),
    "minimum": Rule("take the smaller", slopes=("1 where {0} is smaller, else 0", "1 where {1} is smaller, else 0")),
    "where": Rule("choose", gets=("d{y} where it was chosen, 0 elsewhere",)),
    "matmul": Rule("multiply matrices", "{0} @ {1}", gets=("d{y} @ {1}ᵀ", "{0}ᵀ @ d{y}")),
    "linear": Rule("weighted sums", gets=("d{y} @ {1}", "d{y}ᵀ @ {0}", "d{y}, its rows added")),
    "sum": Rule("sum", gets=("d{y}, the same for every entry that was added",)),
    "mean": Rule("mean", gets=("d{y} / {n}, the same for every entry",)),
    "var": Rule("variance", gets=("d{y} × 2 ({0} - mean) / n",)),
    "max": Rule("take the greatest", gets=("d{y} at the greatest entry, 0 elsewhere",)),
    "min": Rule("take the least", gets=("d{y} at the least entry, 0 elsewhere",)),
    "reshape": Rule("reshape", gets=("d{y}, in the shape of {0}",)),
    "transpose": Rule("transpose", gets=("d{y}, its axes back in their places",)),
    "swapaxes": Rule("exchange two axes", gets=("d{y}, its axes back in their places",)),
    "getitem": Rule("take entries", "{0}[...]", gets=("d{y} at the places that were taken, 0 elsewhere",)),
    "gather": Rule("take entries", gets=("d{y} at the places that were taken, 0 elsewhere",)),
    "embedding": Rule("look up rows", gets=("each row of d{y}, added to the row that was looked up",)),
    "concatenate": Rule("join", gets=(OWN_PART,)),
    "stack": Rule("stack", gets=(OWN_PART,)),
    "scaled_dot_product_attention": Rule(
        "attention",
        gets=(
            "the gradient of the scores @ {1} / √D",
            "the gradient of the scores, transposed, @ {0} / √D",
            "the weights, transposed, @ d{y}",
        ),
    ),
    "softmax": Rule("softmax", gets=("{y} × (d{y} - Σ d{y} × {y}), row by row",)),
    "log_softmax": Rule("log-softmax", gets=("d{y} - softmax({0}) × Σ d{y}, row by row",)),
    "cross_entropy": Rule(
        "cross-entropy", gets=("softmax({0}), less 1 at each target, times its share of d{y}: belief minus truth",)
    ),
    "layer_norm": Rule("layer norm", gets=(NORM, "d{y} × the normalised {0}, added over the rows", "d{y}, added")),
    "rms_norm": Rule("RMS norm", gets=(NORM, "d{y} × the normalised {0}, added over the rows")),
}


def rule_of(entry: Entry) -> Rule:
    """The words for an operation; for one that is not ours, its name alone."""
    name = entry.op or ""
    return (RULES.get(name) if entry.ours else None) or Rule(name.replace("_", " ") or "operation")


def filled(text: str, entry: Entry) -> str:
    """A text of a rule with the names of the entry's tensors."""
    names = {str(i): t.name for i, t in enumerate(entry.inputs)} | {"y": entry.name}
    if entry.inputs:
        names["n"] = f"{entry.inputs[0].value.size // max(1, entry.value.size):,}"
    return re.sub(r"\{(\d+|y|n)\}", lambda found: names.get(found[1], found[0]), text)


def expression(entry: Entry) -> str:
    """How the value was computed, as one would write it; of what was given, its name."""
    if entry.op is None:
        return entry.name
    form = rule_of(entry).form
    if not form or len(entry.inputs) > form.count("{"):
        form = f"{entry.op}({', '.join(f'{{{i}}}' for i in range(len(entry.inputs)))})"
    return filled(form, entry)
