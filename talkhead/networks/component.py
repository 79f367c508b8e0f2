"""Networks that remember how they were built, so that a checkpoint can rebuild them by itself."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError

_PLAIN = (bool, int, float, str, type(None))


class Component(nn.Module):
    """Base of every network that a checkpoint can hold.

    A subclass only writes an ordinary ``__init__`` with named arguments; the values it is called
    with, defaults included, are recorded in :attr:`spec`, and ``cls(**module.spec)`` is the same
    architecture. Only numbers, strings, booleans, ``None`` and lists of them are accepted, because
    a checkpoint must load with ``weights_only=True``; tuples are recorded as lists.

    Example:
        >>> class Head(Component):
        ...     def __init__(self, dim: int = 8) -> None:
        ...         super().__init__()
        ...         self.linear = nn.Linear(dim, dim)
        >>> Head(4).spec
        {'dim': 4}
    """

    transient: ClassVar[tuple[str, ...]] = ()
    """Arguments left out of the spec, such as a weights file that a rebuild must not need."""

    origin: dict[str, Any] | None = None
    """Checkpoint the weights were resolved from; None for a part built or trained here."""

    def __init_subclass__(cls) -> None:
        """Wrap the constructor of each subclass so that it records its arguments.

        Raises:
            TypeError: The constructor swallows unnamed arguments (``*args`` or ``**kwargs``).
        """
        super().__init_subclass__()
        if "__init__" in cls.__dict__:
            # mypy cannot know that the constructor assigned here keeps its signature.
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    @property
    def spec(self) -> dict[str, Any]:
        """Flat constructor arguments (a copy); ``type(self)(**self.spec)`` rebuilds the module."""
        recorded = self.__dict__.get("_spec", {})
        return {k: copy.deepcopy(v) for k, v in recorded.items() if k not in self.transient}

    def amend_spec(self, **values: Any) -> None:
        """Overwrite recorded arguments whose final value is only known while building.

        Raises:
            ConfigError: A name is not a constructor argument, or a value is not plain.
        """
        for name, value in values.items():
            if name not in self.__dict__["_spec"]:
                raise ConfigError(
                    f"{type(self).__name__} has no argument {name!r}; expected one of "
                    f"{sorted(self.__dict__['_spec'])}."
                )
            self.__dict__["_spec"][name] = _plain(value, type(self).__name__, name)


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over the spec and every entry of the state dict.

    Two modules have the same digest exactly when their specs are equal and their parameters and
    buffers agree in name, type, shape and every bit; the device does not matter.

    Args:
        module: Any module; one without a ``spec`` counts as having an empty one.

    Returns:
        64 hexadecimal digits.
    """
    return tensors_digest(getattr(module, "spec", {}), module.state_dict())


def tensors_digest(spec: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """As :func:`weights_digest`, of a spec and weights that need not be those of a living module."""
    digest = hashlib.sha256()
    digest.update(json.dumps(dict(spec), sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        digest.update(f"|{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        # Bytes, not numbers: numpy has no bfloat16, and a flat view also covers scalars.
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    """Constructor that notes its arguments first; only the outermost one of a chain does."""
    signature = inspect.signature(init)
    kinds = {p.kind for p in signature.parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        raise TypeError(f"{init.__qualname__} must name its arguments to be rebuilt from a spec")

    @functools.wraps(init)
    def wrapped(self: Component, *args: Any, **kwargs: Any) -> None:
        outermost = "_spec" not in self.__dict__
        if outermost:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            own = type(self).__name__
            # Past nn.Module's __setattr__, which must not run before nn.Module.__init__.
            self.__dict__["_spec"] = {
                name: _plain(value, own, name) for name, value in list(bound.arguments.items())[1:]
            }
        init(self, *args, **kwargs)
        if outermost and _runs_channels_last(self):
            # The same numbers; convolutions run 1.5 to 1.8 times as fast on a CPU.
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stub

    return wrapped


def _runs_channels_last(module: nn.Module) -> bool:
    """False for convolutions over time, which have another layout, and for one that corrupts memory.

    Torch 2.11 on a CPU, backward of a 1 x 1 convolution with a stride and fewer than 8 input channels.
    Only networks far below any useful size have it.
    """
    return not any(
        isinstance(part, nn.Conv3d)
        or (
            isinstance(part, nn.Conv2d)
            and part.kernel_size == (1, 1)
            and part.stride != (1, 1)
            and part.in_channels // part.groups < 8
        )
        for part in module.modules()
    )


def _plain(value: Any, owner: str, name: str) -> Any:
    """``value`` with tuples turned into lists, or an error naming the argument."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        return [_plain(v, owner, name) for v in value]
    raise ConfigError(
        f"{owner}({name}=…) expected a number, string, bool, None or a list of them, got "
        f"{type(value).__name__}; pass plain values so that a checkpoint can rebuild the module."
    )
