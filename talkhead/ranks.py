"""What the ranks of one run tell each other, apart from tensors."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

T = TypeVar("T")


def gather_lists(values: list[T]) -> list[T]:
    """Lists of all ranks joined, in the order of ranks; the same on every rank.

    Args:
        values: This rank's; anything that can be pickled. Tensors should lie on the CPU.

    Returns:
        ``values`` itself when there is one rank.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    parts: list[list[T]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def gather_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Result rows of all ranks, ordered by ``clip`` and ``start``.

    A run that was repeated to even out the ranks counts once; rows without a clip are all kept.
    """
    unique: dict[tuple[str, int], dict[str, Any]] = {}
    for row in gather_lists(rows):
        order = row.get("start", 0) if "clip" in row else len(unique)
        unique.setdefault((str(row.get("clip", "")), order), row)
    return [unique[key] for key in sorted(unique)]
