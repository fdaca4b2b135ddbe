"""What all layers share: finding their parameters by name, saving and loading them, and telling training from use."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..tensor import Tensor


class _ThisThread(threading.local):
    """What one thread has switched: others do not notice."""

    evaluated: frozenset[int] = frozenset()  # ids of the modules that it uses, see training.evaluate.evaluating


this_thread = _ThisThread()


class Module:
    """A layer or a model: an object whose Tensor attributes are its parameters, and whose Modules are its parts.

    Write ``__init__`` (make the parameters) and ``forward`` (compute); both may stand in lists and dictionaries. The
    name of a parameter is the path to it: ``layers.0.mlp.weight`` is ``self.layers[0].mlp.weight``.

    >>> class Twice(Module):
    ...     def __init__(self):
    ...         self.factor = Tensor([2.0], requires_grad=True)
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> double = Twice()
    >>> double(Tensor([1.0, 4.0])).data, [name for name, _ in double.named_parameters()]
    (array([2., 8.], dtype=float32), ['factor'])
    """

    _training = True

    @property
    def training(self) -> bool:
        """Whether dropout drops: what `train` and `eval` said last, and never in a thread that is `evaluating` this."""
        return self._training and id(self) not in this_thread.evaluated

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation of this layer; each layer has its own."""
        raise TypeError(f"{type(self).__name__} has no forward(): it is a part that is not called by itself")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hooks = self.__dict__.get("_hooks")
        y = self.forward(*args, **kwargs)
        if hooks is None:
            return y
        for hook in list(hooks["forward"]):
            changed = hook(self, args, y)
            y = y if changed is None else changed
        for part in y if isinstance(y, tuple) else (y,):
            if isinstance(part, Tensor) and part.requires_grad:
                for hook in list(hooks["backward"]):
                    part.register_hook(functools.partial(hook, self))
        return y

    # ---- parameters --------------------------------------------------------------------------------------------------

    def children(self) -> Iterator[tuple[str, Module]]:
        """The direct parts with their names."""
        yield from ((name, part) for name, part in self._parts() if isinstance(part, Module))

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """The attributes, and what stands in those that are lists or dictionaries."""
        for name, value in vars(self).items():
            if isinstance(value, (list, tuple)):
                yield from ((f"{name}.{i}", part) for i, part in enumerate(value))
            elif isinstance(value, dict):
                yield from ((f"{name}.{key}", part) for key, part in value.items())
            else:
                yield name, value

    def modules(self) -> Iterator[Module]:
        """The module itself and all parts below it."""
        yield self
        for _, part in self._parts():
            if isinstance(part, Module):
                yield from part.modules()

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """(path, Tensor) of every parameter, frozen ones too; one that is used in two places comes once."""
        seen: set[int] = set()
        for name, parameter in self._walk(prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def _walk(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        for name, value in self._parts():
            if isinstance(value, Tensor):
                yield prefix + name, value
        for name, child in self.children():
            yield from child._walk(f"{prefix}{name}.")

    def parameters(self) -> list[Tensor]:
        """All parameters, in the order in which they were made."""
        return [parameter for _, parameter in self.named_parameters()]

    def state_dict(self) -> dict[str, np.ndarray]:
        """The arrays of all parameters by name (not copies)."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, np.ndarray], strict: bool = True, copy: bool = True) -> None:
        """Take over the values of ``state``; with ``strict`` every name must be there, and no other.

        copy=False takes the arrays themselves (a file that is mapped into memory), which training then changes.
        Raises ValueError that lists all missing, unexpected and misshapen names; then nothing was changed.
        """
        own = dict(self.named_parameters())
        problems = []
        if strict:
            problems += [f"missing {name} {own[name].shape}" for name in own if name not in state]
            problems += [f"unexpected {name} {np.shape(state[name])}" for name in state if name not in own]
        problems += [
            f"{name} has shape {np.shape(state[name])}, expected {parameter.shape}"
            for name, parameter in own.items()
            if name in state and np.shape(state[name]) != parameter.shape
        ]
        if problems:
            raise ValueError(f"load_state_dict: {type(self).__name__}: " + "; ".join(problems))
        for name, parameter in own.items():
            if name in state:
                if copy:
                    parameter.data[...] = state[name]
                    parameter.mark_changed()
                else:
                    parameter.data = np.asarray(state[name], dtype=parameter.dtype)

    def zero_grad(self) -> None:
        """Forget the gradients: ``backward()`` adds to what is there, and each step wants its own."""
        for parameter in self.parameters():
            parameter.grad = None

    def astype(self, dtype: Any) -> Module:
        """Turn all parameters into float32 or float64, in place; returns the module."""
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(dtype)
            parameter.grad = None
        return self

    # ---- training and use --------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Switch to training (dropout drops); returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch to use (dropout lets everything through); returns the module."""
        return self.train(False)

    def set_rng(self, rng: np.random.Generator) -> None:
        """Let every dropout below draw from ``rng``: made from (seed, step), it lets a step be repeated exactly."""
        for module in self.modules():
            if "rng" in vars(module):
                module.rng = rng  # type: ignore[attr-defined]

    # ---- looking in --------------------------------------------------------------------------------------------------

    def register_forward_hook(self, hook: Callable[[Module, tuple, Any], Any]) -> Callable[[], None]:
        """Call ``hook(module, inputs, output)`` after each forward; what it returns, if anything, replaces the output.

        Returns a function that removes the hook.
        """
        return self._register("forward", hook)

    def register_backward_hook(self, hook: Callable[[Module, np.ndarray], np.ndarray | None]) -> Callable[[], None]:
        """Call ``hook(module, dy)`` when the gradient of this module's output is complete; what it returns replaces it.

        A module that returns a tuple calls it for each Tensor of it. Returns a function that removes the hook.
        """
        return self._register("backward", hook)

    def _register(self, when: str, hook: Callable) -> Callable[[], None]:
        hooks = self.__dict__.setdefault("_hooks", {"forward": [], "backward": []})[when]
        hooks.append(hook)
        return lambda: hooks.remove(hook) if hook in hooks else None

    def extra_repr(self) -> str:
        """What stands between the parentheses when a layer is printed; each layer has its own."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.children()]
        inside = [self.extra_repr()] if self.extra_repr() else []
        if not lines:
            return f"{type(self).__name__}({''.join(inside)})"
        return f"{type(self).__name__}({''.join(inside)}\n  " + "\n  ".join(lines) + "\n)"
