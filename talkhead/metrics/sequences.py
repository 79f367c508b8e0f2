"""What every motion metric shares: masks, standardisation, differences and per-clip accumulation.

Motion travels as ``(..., T, D)``: ``T`` frames of ``D`` descriptors (or code entries), with an
optional mask ``(..., T)`` that is False on padding. All sums run in float64: a per-video Frechet
distance is the small difference of large traces.

Standardisation: paper 1 measures 3 pose angles (radians) and 64 expression coefficients as they
come, so the tiny angles hardly count. Our descriptors mix radians, picture widths and unit-variance
expression entries; reported numbers therefore divide by the training split's mean and standard
deviation, ``standard=(mean, std)``. That deviates from the paper, and absolute values are not
comparable with its tables; orderings are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from talkhead.errors import ShapeError

Standard = tuple[Tensor, Tensor]
"""Mean ``(D,)`` and standard deviation ``(D,)`` of the training split."""

STD_FLOOR = 1e-6
_KEY_BITS = 52  # integers below 2**53 are exact in float64, the one dtype of the list states


def standardised(motion: Tensor, standard: Standard | None = None) -> Tensor:
    """Motion in float64, minus the mean and divided by the deviation where ``standard`` is given.

    Args:
        motion: ``(..., T, D)``.
        standard: ``(mean, std)``, each ``(D,)``; a deviation below 1e-6 counts as 1, so that an
            entry that never moved in training is not blown up.

    Raises:
        ShapeError: The last axes differ.
    """
    values = motion.to(torch.float64)
    if standard is None:
        return values
    mean, std = (s.to(values) for s in standard)
    if mean.shape != values.shape[-1:] or std.shape != mean.shape:
        raise ShapeError(
            f"expected mean and std of shape ({values.shape[-1]},), got {tuple(mean.shape)} and "
            f"{tuple(std.shape)}; use the motion_stats of the same prepared set."
        )
    return (values - mean) / torch.where(std < STD_FLOOR, torch.ones_like(std), std)


def valid_frames(sequence: Tensor, valid: Tensor | None) -> Tensor:
    """Frames of one sequence ``(T, D)`` whose mask ``(T,)`` is True, ``(n, D)``."""
    return sequence if valid is None else sequence[valid.bool()]


def frame_differences(sequence: Tensor, valid: Tensor | None = None) -> Tensor:
    """First differences of one sequence, ``(n, D)``; a pair counts when both frames are valid."""
    steps = sequence[1:] - sequence[:-1]
    return steps if valid is None else steps[valid[1:].bool() & valid[:-1].bool()]


def as_batch(motion: Tensor, valid: Tensor | None, name: str) -> tuple[Tensor, Tensor | None]:
    """One clip ``(T, D)`` or many ``(B, T, D)`` as ``(B, T, D)`` with a mask ``(B, T)`` or None.

    Raises:
        ShapeError: Another number of axes, or a mask that does not fit.
    """
    if motion.ndim not in (2, 3):
        raise ShapeError(
            f"expected {name} motion (T, D) or (B, T, D), got {tuple(motion.shape)}; "
            "put takes and clips on one batch axis."
        )
    if valid is not None and valid.shape != motion.shape[:-1]:
        raise ShapeError(
            f"expected a {name} mask {tuple(motion.shape[:-1])}, got {tuple(valid.shape)}; "
            "one flag a frame."
        )
    if motion.ndim == 3:
        return motion, valid
    return motion[None], None if valid is None else valid[None]


def paired_clips(
    generated: Tensor,
    real: Tensor,
    valid: Tensor | None = None,
    real_valid: Tensor | None = None,
    standard: Standard | None = None,
) -> list[tuple[Tensor, Tensor | None, Tensor, Tensor | None]]:
    """Checked, standardised clips as ``(generated, its mask, real, its mask)``.

    Args:
        generated: ``(T, D)`` or ``(B, T, D)``.
        real: ``(T', D)`` or ``(B, T', D)``; lengths may differ.
        valid: Mask of ``generated``; also of ``real`` when ``real_valid`` is absent.
        real_valid: Mask of ``real``.
        standard: See :func:`standardised`.

    Raises:
        ShapeError: Clip counts or widths differ, or masks do not fit.
    """
    if real_valid is None and valid is not None:
        real_valid = valid
    ours, ours_valid = as_batch(generated, valid, "generated")
    theirs, theirs_valid = as_batch(real, real_valid, "real")
    if ours.shape[0] != theirs.shape[0] or ours.shape[-1] != theirs.shape[-1]:
        raise ShapeError(
            f"expected as many clips and descriptors on both sides, got {tuple(ours.shape)} "
            f"generated and {tuple(theirs.shape)} real; compare clip by "
            "clip in the same descriptor layout."
        )
    ours, theirs = standardised(ours, standard), standardised(theirs, standard)
    return [
        (
            ours[b],
            None if ours_valid is None else ours_valid[b],
            theirs[b],
            None if theirs_valid is None else theirs_valid[b],
        )
        for b in range(ours.shape[0])
    ]


def clip_key(clip: str) -> int:
    """Stable 52-bit key of a clip name, equal on all ranks and in all processes."""
    digest = hashlib.blake2b(clip.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _KEY_BITS)


class PerClipRows(Metric):
    """Several numbers a clip, kept until they are asked for; the base of metrics that need all of them.

    Clips may arrive in any order, batch size or rank. A named clip counts once, as a distributed sampler
    repeats some to fill the last batch; without names every row counts.
    """

    is_differentiable = False
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, width: int) -> None:
        """Set up for ``width`` numbers a clip."""
        super().__init__()
        self.set_dtype(torch.float64)
        self.width = width
        # One dimension, because torchmetrics gives a rank without clips an empty tensor of that shape.
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def add_rows(self, values: Tensor, clip: Sequence[str] | None) -> None:
        """Store ``(B, width)`` numbers under ``B`` names, or None.

        Raises:
            ShapeError: Another number of names.
        """
        if clip is not None and len(clip) != len(values):
            raise ShapeError(
                f"expected {len(values)} clip names, got {len(clip)}; give one name a row."
            )
        keys = [-1] * len(values) if clip is None else [clip_key(name) for name in clip]
        named = torch.tensor(keys, dtype=torch.float64, device=values.device)
        added = torch.cat([named[:, None], values.double()], dim=1)
        self.rows.append(added.detach().to(self.device).flatten())

    def distinct(self) -> Tensor:
        """Float64 ``(n, width)``, each named clip once, in an order that no rank or batch changes."""
        rows = _flat(self.rows).to(self.device, torch.float64).reshape(-1, self.width + 1).tolist()
        named = {row[0]: row for row in rows if row[0] >= 0}
        kept = sorted([*named.values(), *(row for row in rows if row[0] < 0)])
        table = torch.tensor(kept, dtype=torch.float64, device=self.device)
        return table.reshape(-1, self.width + 1)[:, 1:]


class PerClipMetric(Metric):
    """Mean over clips of one number a clip; the base of the per-video metrics.

    Clips may arrive in any order, batch size or rank. Give ``update`` the clip names and a clip
    that a distributed sampler repeats to fill the last batch counts once; without names every row
    counts. The standard's mean and deviation move with the module.

    The list states are float64 and one-dimensional because torchmetrics fills in for a rank without
    data with an empty one-dimensional tensor of the metric's dtype, which must match.
    """

    is_differentiable = False
    full_state_update = False
    values: list[Tensor]
    keys: list[Tensor]
    mean: Tensor
    std: Tensor

    def __init__(self, standard: Standard | None = None) -> None:
        """See the class; ``standard`` is the ``(mean, std)`` of :func:`standardised`."""
        super().__init__()
        self.set_dtype(torch.float64)
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("keys", default=[], dist_reduce_fx="cat")
        self.standardise = standard is not None
        mean, std = standard if standard is not None else (torch.zeros(0), torch.ones(0))
        self.register_buffer("mean", mean.detach().clone().double(), persistent=False)
        self.register_buffer("std", std.detach().clone().double(), persistent=False)

    @property
    def standard(self) -> Standard | None:
        """Mean and deviation on this metric's device, or None."""
        return (self.mean, self.std) if self.standardise else None

    def add_clips(self, values: Tensor, clip: Sequence[str] | None) -> None:
        """Store one value a clip.

        Args:
            values: ``(B,)``.
            clip: ``B`` names, or None.

        Raises:
            ShapeError: Numbers of names and values differ.
        """
        if clip is not None and len(clip) != values.numel():
            raise ShapeError(
                f"expected {values.numel()} clip names, got {len(clip)}; give one name a row."
            )
        keys = [-1] * values.numel() if clip is None else [clip_key(c) for c in clip]
        self.values.append(values.detach().to(self.device, torch.float64).reshape(-1))
        self.keys.append(torch.tensor(keys, dtype=torch.float64, device=self.device))

    def compute(self) -> Tensor:
        """Mean over distinct clips, float64 scalar; NaN when no clip was seen."""
        values, keys = _flat(self.values), _flat(self.keys)
        if values.numel() == 0:
            return torch.full((), float("nan"), dtype=torch.float64, device=self.device)
        per_key = {int(k): v for k, v in zip(keys.tolist(), values.tolist(), strict=True) if k >= 0}
        anonymous = values[keys < 0].tolist()
        # Sorted before summing: the result must not depend on which rank saw a clip first.
        kept = sorted([*per_key.values(), *anonymous])
        return torch.tensor(kept, dtype=torch.float64, device=self.device).mean()


def _flat(state: list[Tensor] | Tensor) -> Tensor:
    """A list state as one tensor; after a sync torchmetrics has already joined it."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.zeros(0, dtype=torch.float64)
