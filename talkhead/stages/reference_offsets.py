"""What the stages that train syncers measure: offsets of real runs and of mismatched ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from talkhead.metrics.retrieval import pair_accuracy
from talkhead.metrics.rigid_offset import Edges, Pair, RigidOffset, rigid_offsets
from talkhead.ranks import gather_lists

Run = tuple[str, int, list[Pair]]
"""Clip, first frame and embeddings of one run, without the batch axis."""


class ReferenceOffsets(nn.Module):
    """Offsets, confidence and pair accuracy of runs with their own sound and with that of other clips.

    The second row is the level of chance: published numbers of it differ between syncers.
    """

    def __init__(
        self, scales: Sequence[int], max_shift: int | Sequence[int], edges: Edges = "drop"
    ) -> None:
        """Start empty.

        Args:
            scales: Length of a window on every level in ms.
            max_shift: See :func:`rigid_offsets`.
            edges: See :func:`rigid_offsets`.
        """
        super().__init__()
        self.scales = tuple(scales)
        self.own = RigidOffset(len(self.scales), max_shift, edges)
        self.foreign = RigidOffset(len(self.scales), max_shift, edges)
        self.runs: list[Run] = []

    def reset(self) -> None:
        """Begin a new list of runs."""
        self.own.reset()
        self.foreign.reset()
        self.runs = []

    def update(self, levels: Sequence[Pair], clip: Sequence[str], start: Tensor) -> None:
        """Add runs.

        Args:
            levels: Embeddings of points and of sound of each level, each ``(B, N, D)``.
            clip: ``B`` names.
            start: First frames ``(B,)`` within the clips.
        """
        places = list(zip(clip, start.tolist(), strict=True))
        self.own.update(levels, [f"{name}@{first}" for name, first in places])
        # A whole split is kept, and unit vectors need no more digits here than half floats have.
        halves = [(points.half().cpu(), audio.half().cpu()) for points, audio in levels]
        for row, (name, first) in enumerate(places):
            # Cloned, because a view would drag its whole batch along to the other ranks.
            pairs = [(points[row].clone(), audio[row].clone()) for points, audio in halves]
            self.runs.append((name, first, pairs))

    def compute(self) -> dict[str, Tensor]:
        """``gt/<name>`` and, with two clips or more, ``shuffled/<name>``; forgets the runs.

        The names are those of :meth:`RigidOffset.compute`. Collective over ranks.
        """
        by_place = {(clip, start): pairs for clip, start, pairs in gather_lists(self.runs)}
        runs = [(clip, start, by_place[clip, start]) for clip, start in sorted(by_place)]
        references = {"gt": self.own}
        for place, (clip, start, pairs) in enumerate(runs):
            # Half the split away in the order of names is another clip, mostly another speaker.
            other, _, sound = runs[(place + len(runs) // 2) % len(runs)]
            if other != clip:
                mixed = [(p[0][None], s[1][None]) for p, s in zip(pairs, sound, strict=True)]
                self.foreign.update(mixed, [f"{clip}@{start}"])
                references["shuffled"] = self.foreign
        self.runs = []
        return {
            f"{reference}/{name}": value.float()
            for reference, metric in references.items()
            for name, value in metric.compute().items()
        }

    def rows(
        self, levels: Sequence[Pair], clip: Sequence[str], start: Tensor
    ) -> list[dict[str, Any]]:
        """Each run's place and offsets, arguments as :meth:`update`."""
        found = rigid_offsets(levels, max_shift=self.own.max_shift, edges=self.own.edges)
        names = [f"offset_{scale}ms" for scale in self.scales]
        return [
            {"clip": name, "start": first, **dict(zip(names, offsets, strict=True))}
            for name, first, offsets in zip(
                clip, start.tolist(), found.offset.tolist(), strict=True
            )
        ]


def pair_accuracies(levels: Sequence[Pair], scales: Sequence[int]) -> dict[str, Tensor]:
    """Pair accuracy of a batch on every level by name, and ``pair_accuracy``, their mean."""
    found = [pair_accuracy(audio, points).mean().float() for points, audio in levels]
    names = [f"pair_accuracy_{scale}ms" for scale in scales]
    return {**dict(zip(names, found, strict=True)), "pair_accuracy": torch.stack(found).mean()}
