"""Sample counts for Lightning's ThroughputMonitor, which takes an import path from YAML."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from talkhead.errors import ConfigError


def batch_size(batch: Any) -> int:
    """Number of samples in a batch of the suite: the length of its first tensor.

    In YAML: ``batch_size_fn: callbacks.throughput.batch_size``.

    Raises:
        ConfigError: The batch holds no tensor.
    """
    values = [getattr(batch, f.name) for f in fields(batch)] if is_dataclass(batch) else [batch]
    for value in values:
        found = _first_tensor(value)
        if found is not None:
            return len(found)
    raise ConfigError(
        f"ThroughputMonitor: expected a batch with a tensor, got {type(batch).__name__}."
    )


def _first_tensor(value: Any) -> Tensor | None:
    """The first tensor in nested mappings and sequences."""
    if isinstance(value, Tensor):
        return value if value.ndim else None
    items = (
        value.values()
        if isinstance(value, dict)
        else value
        if isinstance(value, list | tuple)
        else ()
    )
    return next((found for item in items if (found := _first_tensor(item)) is not None), None)
