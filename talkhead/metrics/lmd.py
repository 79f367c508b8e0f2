"""LMD: how far lips or faces are from the real ones, as seen or turned to the front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.frontal import frontalised
from talkhead.geometry.points68 import MOUTH, N_POINTS
from talkhead.metrics.landmark_tracks import Unit, in_unit, landmark_tracks
from talkhead.metrics.sequences import PerClipMetric

Region = Literal["mouth", "face"]
View = Literal["picture", "frontal"]

_POINTS: dict[Region, slice] = {"mouth": MOUTH, "face": slice(0, N_POINTS)}


def landmark_distance(
    generated: Tensor,
    real: Tensor,
    valid: Tensor | None = None,
    *,
    region: Region = "mouth",
    view: View = "picture",
    unit: Unit = "px256",
    centred: bool = True,
) -> Tensor:
    """Mean distance between the same landmarks of generated and real frames.

    ``LMD = mean_t 1/N sum_i |(g_ti - g_t) - (r_ti - r_t)|`` with ``g_t``, ``r_t`` the means over
    the ``N`` points of the region. 0 is perfect, lower is better, there is no upper bound. Moving
    every centred point by 0.01 crop widths costs 2.56 px.

    Args:
        generated: 68 points, ``(T, 68, C)`` or ``(B, T, 68, C)`` in crop space
            (:mod:`talkhead.metrics.landmark_tracks`).
        real: The same frames of the real video.
        valid: Mask ``(T,)`` or ``(B, T)`` of frames that count.
        region: ``"mouth"`` (points 48-67) or ``"face"`` (all 68).
        view: ``"picture"`` compares x and y as seen; ``"frontal"`` first turns both faces about the
            vertical axis (:func:`talkhead.geometry.frontal.frontalised`) and compares x, y and z.
        unit: Pixels of a 256-pixel crop, or the real face's distance of outer eye corners in the
            same frame, measured in the coordinates compared.
        centred: Take each region's mean off first. Without it, where the head is counts as well.

    Returns:
        One distance a clip, float64 ``(B,)``.

    Raises:
        ShapeError: Shapes differ or are not of 68 points, a clip has no valid frame, or the frontal
            view is asked of points without depth.

    Source: Chen et al. (2019), ATVG, which sums over the points instead; per-point mean as in EAT
        (M-LMD, F-LMD), whose values ControlTalk's tables resemble; MS-Sync section 4.2 and Table 1
        for the frontal view, whose norm, centring and unit are not published. Deviates: videos of
        different length are refused, not resampled.
    """
    if generated.shape != real.shape:
        raise ShapeError(
            f"expected the same frames and points on both sides, got {tuple(generated.shape)} and "
            f"{tuple(real.shape)}; cut both videos to the frames they share."
        )
    ours = landmark_tracks(generated, valid, "generated")
    theirs = landmark_tracks(real, valid, "real")
    values = []
    for b, ((g, kept), (r, _)) in enumerate(zip(ours, theirs, strict=True)):
        if not bool(kept.any()):
            raise ShapeError(
                f"expected at least one valid frame a clip, got none in clip {b}; leave such clips out."
            )
        sides = [frontalised(x[kept]) if view == "frontal" else x[kept][..., :2] for x in (g, r)]
        apart = _region_distance(sides[0], sides[1], region, centred)
        values.append(in_unit(apart, sides[1], unit).mean())
    return torch.stack(values)


def _region_distance(ours: Tensor, theirs: Tensor, region: Region, centred: bool) -> Tensor:
    """Mean point distance of every frame, ``(T, 68, C)`` twice -> ``(T,)`` crop widths."""
    difference = (ours - theirs)[:, _POINTS[region]]
    if centred:
        # The difference of the means is the mean of the differences.
        difference = difference - difference.mean(dim=1, keepdim=True)
    distance: Tensor = difference.norm(dim=-1).mean(dim=-1)
    return distance


def m_lmd(
    generated: Tensor, real: Tensor, valid: Tensor | None = None, *, unit: Unit = "px256"
) -> Tensor:
    """M-LMD: :func:`landmark_distance` of the mouth as seen, mean-free; also the plain LMD."""
    return landmark_distance(generated, real, valid, region="mouth", unit=unit)


def f_lmd(
    generated: Tensor, real: Tensor, valid: Tensor | None = None, *, unit: Unit = "px256"
) -> Tensor:
    """F-LMD: :func:`landmark_distance` of all 68 points as seen, mean-free."""
    return landmark_distance(generated, real, valid, region="face", unit=unit)


def frontal_lmd(
    generated: Tensor, real: Tensor, valid: Tensor | None = None, *, unit: Unit = "px256"
) -> Tensor:
    """MS-Sync's LMD: :func:`landmark_distance` of the mouth turned to the front, mean-free."""
    return landmark_distance(generated, real, valid, region="mouth", view="frontal", unit=unit)


class LandmarkDistance(PerClipMetric):
    """Mean over clips of :func:`landmark_distance`."""

    higher_is_better = False

    def __init__(
        self,
        region: Region = "mouth",
        view: View = "picture",
        unit: Unit = "px256",
        centred: bool = True,
    ) -> None:
        """See :func:`landmark_distance`."""
        super().__init__()
        self.region: Region = region
        self.view: View = view
        self.unit: Unit = unit
        self.centred = centred

    def update(
        self,
        generated: Tensor,
        real: Tensor,
        valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add clips; arguments as in :func:`landmark_distance`, plus the clip names."""
        values = landmark_distance(
            generated,
            real,
            valid,
            region=self.region,
            view=self.view,
            unit=self.unit,
            centred=self.centred,
        )
        self.add_clips(values, clip)
