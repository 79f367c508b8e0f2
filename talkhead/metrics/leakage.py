"""Linear-probe leakage: how much of what a code should not hold a linear map can still read.

On the embedded corpus the true lip and non-lip state of every frame is known. A ridge regression
from the non-lip code to the lip truth that explains nothing (R^2 about 0) shows separation; an R^2
near that of the lip code itself shows leakage. Both directions are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor
from torchmetrics import Metric

from talkhead.errors import ShapeError
from talkhead.metrics.sequences import clip_key, valid_frames
from talkhead.ridge import ALPHAS, RidgeSums, fit_ridge, r_squared, total


def probe_r2(folds: Sequence[RidgeSums], alphas: Sequence[float] = ALPHAS) -> Tensor:
    """R^2 of a ridge probe on clips it has not seen.

    Each fold is predicted by a fit on the others, whose penalty is chosen among those others alone
    (nested cross-validation). Errors and variances are summed over folds, the variance around each
    fold's own mean.

    Args:
        folds: Sums of codes and truth by fold; a clip lies in one fold only.
        alphas: Penalties tried.

    Returns:
        R^2 of every truth entry, float64 ``(Q,)``: at most 1; below 0 when the probe does worse
        than the mean; NaN where an entry never varies.

    Raises:
        ShapeError: Fewer than three folds with rows.
    """
    used = [fold for fold in folds if fold.count > 0]
    if len(used) < 3:
        raise ShapeError(
            f"expected at least 3 folds with clips, got {len(used)}; probe on more clips."
        )
    errors, spreads = torch.zeros_like(used[0].y), torch.zeros_like(used[0].y)
    for i, held_out in enumerate(used):
        fitted, _ = fit_ridge(used[:i] + used[i + 1 :], alphas)
        errors = errors + fitted.squared_error(held_out)
        spreads = spreads + held_out.spread()
    return r_squared(errors, spreads)


def linear_probe(
    codes: Sequence[Tensor],
    truth: Sequence[Tensor],
    clips: Sequence[str],
    *,
    folds: int = 5,
    alphas: Sequence[float] = ALPHAS,
) -> Tensor:
    """R^2 with which the truth can be read from a code on held-out clips.

    Args:
        codes: One ``(T_i, P)`` a clip.
        truth: One ``(T_i, Q)`` a clip, for instance ``FaceState.matrix(LIP_FIELDS)``.
        clips: What must stay together in a fold: clip names, or speaker names to hold out speakers.
        folds: Number of folds; names are dealt out in sorted order.
        alphas: Penalties tried.

    Returns:
        Float64 ``(Q,)``, see :func:`probe_r2`; leakage is its mean.

    Raises:
        ShapeError: Lists differ in length, or too few clips.
    """
    if not len(codes) == len(truth) == len(clips):
        raise ShapeError(
            f"expected one code, truth and name a clip, got {len(codes)}, {len(truth)} and "
            f"{len(clips)}."
        )
    order = {name: i % folds for i, name in enumerate(sorted(set(clips)))}
    parts: dict[int, list[RidgeSums]] = {}
    for code, state, name in zip(codes, truth, clips, strict=True):
        parts.setdefault(order[name], []).append(RidgeSums.of(code, state))
    return probe_r2([total(part) for part in parts.values()], alphas)


class LinearProbe(Metric):
    """:func:`probe_r2` accumulated; a clip's fold is decided by its name alone, on every rank.

    ``compute`` gives the mean R^2 over truth entries that vary. A clip that a distributed sampler
    repeats is weighted twice, which cannot move it into another fold.
    """

    is_differentiable = False
    full_state_update = False
    sum_x: Tensor
    sum_y: Tensor

    def __init__(
        self,
        code_dim: int,
        truth_dim: int,
        folds: int = 5,
        alphas: Sequence[float] = ALPHAS,
    ) -> None:
        """Probe codes of width ``code_dim`` for ``truth_dim`` entries."""
        super().__init__()
        self.set_dtype(torch.float64)
        self.folds = folds
        self.alphas = tuple(alphas)
        shapes = {
            "count": (),
            "x": (code_dim,),
            "y": (truth_dim,),
            "xx": (code_dim, code_dim),
            "xy": (code_dim, truth_dim),
            "yy": (truth_dim,),
        }
        for name, shape in shapes.items():
            zeros = torch.zeros(folds, *shape, dtype=torch.float64)
            self.add_state(f"sum_{name}", zeros, dist_reduce_fx="sum")

    def update(
        self, codes: Tensor, truth: Tensor, clip: Sequence[str], valid: Tensor | None = None
    ) -> None:
        """Add clips.

        Args:
            codes: ``(B, T, P)``.
            truth: ``(B, T, Q)``.
            clip: ``B`` names (clips, or speakers to hold out speakers).
            valid: ``(B, T)``.

        Raises:
            ShapeError: Other shapes, or other than ``B`` names.
        """
        batch = (len(clip), *codes.shape[1:2])
        widths = (self.sum_x.shape[-1], self.sum_y.shape[-1])
        if (codes.shape, truth.shape) != ((*batch, widths[0]), (*batch, widths[1])):
            raise ShapeError(
                f"expected codes (B, T, {widths[0]}), truth (B, T, {widths[1]}) and B names, got "
                f"{tuple(codes.shape)}, {tuple(truth.shape)} and {len(clip)}; give one name a clip."
            )
        if valid is not None and valid.shape != batch:
            raise ShapeError(
                f"expected a mask {batch}, got {tuple(valid.shape)}; one flag a frame."
            )
        for b, name in enumerate(clip):
            mask = None if valid is None else valid[b]
            sums = RidgeSums.of(valid_frames(codes[b], mask), valid_frames(truth[b], mask))
            fold = clip_key(name) % self.folds
            for field in fields(RidgeSums):
                getattr(self, f"sum_{field.name}")[fold] += getattr(sums, field.name).to(
                    self.device
                )

    def compute_per_entry(self) -> Tensor:
        """R^2 of every truth entry, ``(Q,)``, of the data on this rank."""
        sums = [
            RidgeSums(**{f.name: getattr(self, f"sum_{f.name}")[k] for f in fields(RidgeSums)})
            for k in range(self.folds)
        ]
        return probe_r2(sums, self.alphas)

    def compute(self) -> Tensor:
        """Mean R^2, float64 scalar."""
        return self.compute_per_entry().nanmean()
