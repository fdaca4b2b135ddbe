"""What all layers share: finding their parameters by name, saving and loading them, and telling
training from use.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..autograd import Hook
from ..autograd.html import table
from ..autograd.torch_words import MODULE, sentence, torch_arguments
from ..tensor import Tensor

MOST_ROWS = 40  # of modules that a notebook shows


class Module:
    """A layer or a model: an object whose Tensor attributes are its parameters, and whose Modules
    are its parts.

    Write ``__init__`` (make the parameters and the parts) and ``forward`` (compute). Parameters and
    parts may also stand in lists, tuples and dictionaries, however deep. The name of a parameter is
    the path to it: ``layers.0.mlp.weight`` is ``self.layers[0].mlp.weight``.

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
    _hooks: Hooks | None = None

    @property
    def training(self) -> bool:
        """Whether dropout drops: what `train` and `eval` said last, and never in a thread that is
        `evaluating` this.
        """
        return self._training and id(self) not in this_thread.evaluated

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation of this layer; each layer has its own."""
        raise TypeError(f"{type(self).__name__} has no forward(): it is a part that is not called by itself")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        for hook in list(self._hooks.before):
            changed = hook(self, args)
            args = args if changed is None else changed if isinstance(changed, tuple) else (changed,)
        y = self.forward(*args, **kwargs)
        for hook in list(self._hooks.forward):
            changed = hook(self, args, y)
            y = y if changed is None else changed
        for part in _tensors(y):
            if part.requires_grad:
                for hook in list(self._hooks.backward):
                    part.register_hook(functools.partial(hook, self))
        return y

    def __getattr__(self, name: str) -> Any:
        if name in MODULE:
            raise AttributeError(sentence(type(self).__name__, name, MODULE), name=name, obj=self)
        return object.__getattribute__(self, name)  # raises what was raised before

    # ---- parts and parameters --------------------------------------------------------------------

    def _parts(self) -> Iterator[tuple[str, Tensor | Module]]:
        """The parameters and modules among the attributes, and in their lists and dictionaries,
        with their names.
        """
        for name, value in vars(self).items():
            yield from _found(name, value, ())

    def children(self) -> Iterator[tuple[str, Module]]:
        """The direct parts with their names."""
        yield from ((name, part) for name, part in self._parts() if isinstance(part, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, Module) of the module itself, whose path is ``prefix``, and of all parts below it,
        each once.
        """
        yield from self._below(prefix, set())

    def _below(self, path: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) not in seen:
            seen.add(id(self))
            yield path, self
            for name, child in self.children():
                yield from child._below(f"{path}.{name}" if path else name, seen)

    def modules(self) -> Iterator[Module]:
        """The module itself and all parts below it, each once."""
        yield from (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """(path, Tensor) of every parameter, frozen ones too; one that is used in two places comes
        once.
        """
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, part in module._parts():
                if isinstance(part, Tensor) and id(part) not in seen:
                    seen.add(id(part))
                    yield prefix + (f"{path}.{name}" if path else name), part

    def parameters(self) -> list[Tensor]:
        """All parameters, in the order in which they were made."""
        return [parameter for _, parameter in self.named_parameters()]

    def num_parameters(self) -> int:
        """How many numbers all parameters hold together, frozen ones too."""
        return sum(parameter.size for parameter in self.parameters())

    def state_dict(self) -> dict[str, np.ndarray]:
        """The arrays of all parameters by name (not copies)."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def plain_state(self) -> dict[str, np.ndarray]:
        """`state_dict` as the architecture knows it, for files: what tuning put beside the weights
        of a layer is counted into them.
        """
        state = self.state_dict()
        for path, module in self.named_modules():
            module.fold_into(state, path)
        return state

    def fold_into(self, state: dict[str, np.ndarray], path: str) -> None:
        """Count what lies at ``path`` into other arrays of ``state``: an adapter overrides this; a
        layer stays.
        """

    def load_state_dict(self, state: Mapping[str, np.ndarray], strict: bool = True, copy: bool = True) -> None:
        """Take over the values of ``state``; with ``strict`` every name must be there, and no
        other.

        copy=False takes the arrays themselves (a file that is mapped into memory), which training
        then changes. Raises ValueError that lists all missing, unexpected and misshapen names; then
        nothing was changed.
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

    @torch_arguments
    def zero_grad(self) -> None:
        """Forget the gradients: ``backward()`` adds to what is there, and each step wants its own.
        """
        for parameter in self.parameters():
            parameter.grad = None

    def astype(self, dtype: Any) -> Module:
        """Turn all parameters into float32 or float64, in place; returns the module."""
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(dtype)
            parameter.grad = None
        return self

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Call ``function(module)`` for every part, however deep, and last for the module itself;
        returns the module.

        So first values are set: ``function`` looks at the kind of the module, and changes the data
        of its parameters.
        """
        for module in [*self.modules()][::-1]:
            function(module)
        return self

    # ---- training and use ------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Switch to training (dropout drops); returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch to use (dropout lets everything through); returns the module."""
        return self.train(False)

    def set_rng(self, rng: np.random.Generator) -> None:
        """Make every layer that needs random numbers, as dropout does, take them from ``rng``.

        Made from (seed, step), it lets a step be repeated exactly.
        """
        for module in self.modules():
            module.draw_from(rng)

    def draw_from(self, rng: np.random.Generator) -> None:
        """Use ``rng`` from now on: a layer with randomness overrides this; most have none."""

    # ---- looking in ------------------------------------------------------------------------------

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple], Any]) -> Hook:
        """Call ``hook(module, inputs)`` before each forward; what it returns, if anything, replaces
        the inputs.

        Returns a function that removes the hook. Raises TypeError for a module that is never
        called.
        """
        return Hook(self._own_hooks().before, hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple, Any], Any]) -> Hook:
        """Call ``hook(module, inputs, output)`` after each forward; what it returns, if anything,
        replaces the output.

        Returns a function that removes the hook. Raises TypeError for a module that is never
        called.
        """
        return Hook(self._own_hooks().forward, hook)

    def register_backward_hook(self, hook: Callable[[Module, np.ndarray], np.ndarray | None]) -> Hook:
        """Call ``hook(module, dy)`` when the gradient of this module's output is complete; what it
        returns replaces it.

        A module that returns a tuple calls it for each Tensor of it. Returns a function that
        removes the hook. Raises TypeError for a module that is never called.
        """
        return Hook(self._own_hooks().backward, hook)

    def _own_hooks(self) -> Hooks:
        if type(self).forward is Module.forward and "forward" not in vars(self):
            raise TypeError(
                f"{type(self).__name__} has no forward(): it is never called, and a hook on it would never run; "
                "register the hook on its parts"
            )
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    @property
    def is_watched(self) -> bool:
        """Whether hooks look at this module."""
        return self._hooks is not None and bool(self._hooks.before or self._hooks.forward or self._hooks.backward)

    def extra_repr(self) -> str:
        """What stands between the parentheses when a layer is printed; each layer has its own."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.children()]
        inside = [self.extra_repr()] if self.extra_repr() else []
        if not lines:
            return f"{type(self).__name__}({''.join(inside)})"
        return f"{type(self).__name__}({''.join(inside)}\n  " + "\n  ".join(lines) + "\n)"

    def _repr_html_(self) -> str:
        rows = [
            (path, type(module).__name__, module.extra_repr(), f"{module.num_parameters():,}")
            for path, module in self.named_modules()
        ]
        rest = f"; {len(rows) - MOST_ROWS} more modules are not shown" if len(rows) > MOST_ROWS else ""
        below = f"{self.num_parameters():,} parameters{rest}"
        return table(rows[:MOST_ROWS], ("module", "kind", "", "parameters"), below)


def _found(name: str, value: Any, outside: tuple) -> Iterator[tuple[str, Tensor | Module]]:
    """The Tensors and Modules in a value, however deep in lists, tuples and dictionaries; outside:
    those around it.
    """
    if isinstance(value, (Tensor, Module)):
        yield name, value
    elif isinstance(value, (list, tuple, dict)) and not any(value is container for container in outside):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _found(f"{name}.{key}", part, (*outside, value))


def _tensors(y: Any) -> Iterator[Tensor]:
    """The Tensors in what a module returned: one, or several in tuples."""
    if isinstance(y, Tensor):
        yield y
    elif isinstance(y, tuple | list):
        for part in y:
            yield from _tensors(part)


class _ThisThread(threading.local):
    """What one thread has switched: others do not notice."""

    evaluated: frozenset[int] = frozenset()  # ids of the modules that it uses, see training.evaluate.evaluating


this_thread = _ThisThread()


@dataclass
class Hooks:
    """The functions that look at a module, in the order in which they came."""

    before: list[Callable] = field(default_factory=list)
    forward: list[Callable] = field(default_factory=list)
    backward: list[Callable] = field(default_factory=list)
