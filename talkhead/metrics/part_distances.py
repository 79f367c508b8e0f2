"""How far eyes, irises, expression and pose of generated faces are from the real ones (paper 1, Table 4).

| name | of | distance | perfect |
|---|---|---|---|
| B_d | 32 lid points | NME in the picture plane | 0 |
| G_d | 10 iris points | NME in the picture plane | 0 |
| E_d | expression coefficients | L2 | 0 |
| P_d | pitch, yaw and roll | L2 | 0 |

All are 0 for equal faces, lower is better, and none has an upper bound. Frames are compared one by one, so
that they suit a generator that was told the real motion (reenactment), not one that invents its own.

B_d and G_d need landmarks of the generated video. :func:`reading_distance` asks a trained network
(:class:`~talkhead.networks.gaze.GazeNet`) instead, which sees pixels; its numbers have other units.

The caption of the paper's table lists "poses and expressions" for E_d and P_d in the reverse order; E is
expression (reference-facts 8.6). "L2 distance" is not defined there. A P_d of 0.0019 read as a Euclidean
distance would be 0.11 degrees, less than a real head turns from one frame to the next, so the printed
numbers are probably mean squares: ``form="mean_square"`` computes those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import (
    EYE_OUTER,
    LIPS_INNER,
    LIPS_OUTER,
    PICTURE_LEFT_EYE,
    PICTURE_LEFT_IRIS,
    PICTURE_RIGHT_EYE,
    PICTURE_RIGHT_IRIS,
)
from talkhead.metrics.sequences import PerClipMetric, Standard, standardised, valid_frames
from talkhead.networks.gaze import EYES as READ_EYES
from talkhead.networks.gaze import GAZE as READ_GAZE
from talkhead.networks.gaze import GazeNet
from talkhead.specs import N_LANDMARKS

EYES = (*PICTURE_LEFT_EYE.tolist(), *PICTURE_RIGHT_EYE.tolist())
IRISES = (*PICTURE_LEFT_IRIS.tolist(), *PICTURE_RIGHT_IRIS.tolist())
MOUTH = (*LIPS_OUTER.tolist(), *LIPS_INNER.tolist())

Part = Literal["eyes", "irises", "mouth"]
"""Landmarks of :class:`PartError`: B_d, G_d and, for the lip-only half of the table, the lips."""
Form = Literal["euclidean", "mean_square"]
"""``euclidean``: length of the difference vector; ``mean_square``: mean of its squared entries."""
Read = Literal["gaze", "eyes"]
"""What :func:`reading_distance` compares."""

_POINTS: dict[Part, tuple[int, ...]] = {"eyes": EYES, "irises": IRISES, "mouth": MOUTH}
_READ: dict[Read, slice] = {"gaze": READ_GAZE, "eyes": READ_EYES}
_CHUNK = 64


def normalised_mean_error(
    generated: Tensor, real: Tensor, points: tuple[int, ...], valid: Tensor | None = None
) -> Tensor:
    """Mean distance of some landmarks, in units of the real face's distance of outer eye corners.

    ``NME = mean_{t,i} |g_ti - r_ti| / |r_t,left - r_t,right|``, in the picture plane. Nothing is aligned
    first: a head in the wrong place costs as well.

    Args:
        generated: ``(T, 478, C)`` or ``(B, T, 478, C)`` with ``C`` 2 or 3, any unit, the same as
            ``real``'s.
        real: The same frames of the real video.
        points: Landmarks compared, such as :data:`EYES`.
        valid: Mask ``(T,)`` or ``(B, T)`` of frames that count.

    Returns:
        One distance a clip, float64 ``(B,)``.

    Raises:
        ShapeError: Shapes differ or are not of 478 landmarks, a clip has no valid frame, or valid frames
            hold values that are not finite or eye corners in one place.

    Source: paper 1 supplement I.5; the normaliser is that of H3R on 300W (reference-facts 8.6).
    """
    if (
        generated.shape != real.shape
        or real.ndim not in (3, 4)
        or real.shape[-2] != N_LANDMARKS
        or real.shape[-1] not in (2, 3)
    ):
        raise ShapeError(
            f"expected two tracks (T, {N_LANDMARKS}, 3) or (B, T, {N_LANDMARKS}, 3), got "
            f"{tuple(generated.shape)} and {tuple(real.shape)}; track the same frames of both videos."
        )
    values = [
        _clip_error(ours[..., :2], theirs[..., :2], points)
        for ours, theirs in _clips(generated, real, valid, axes=3)
    ]
    return torch.stack(values)


def _clip_error(generated: Tensor, real: Tensor, points: tuple[int, ...]) -> Tensor:
    """NME of the frames ``(n, 478, 2)`` of one clip."""
    left, right = EYE_OUTER.tolist()
    unit = (real[:, left] - real[:, right]).norm(dim=-1)
    index = torch.tensor(points, device=real.device)
    apart = (generated[:, index] - real[:, index]).norm(dim=-1)
    if not bool((unit > 0).all()) or not bool(apart.isfinite().all()):
        raise ShapeError(
            "expected finite landmarks with two eyes apart in every valid frame; mask the frames where "
            "tracking failed."
        )
    error: Tensor = (apart / unit[:, None]).mean()
    return error


def _clips(
    generated: Tensor, real: Tensor, valid: Tensor | None, axes: int
) -> list[tuple[Tensor, Tensor]]:
    """Valid frames of every clip in float64, of sequences with ``axes`` axes a clip."""
    if valid is not None and valid.shape != real.shape[: real.ndim - axes + 1]:
        raise ShapeError(
            f"expected a mask {tuple(real.shape[: real.ndim - axes + 1])}, got {tuple(valid.shape)}; one "
            "flag a frame."
        )
    ours, theirs = generated.double(), real.double()
    if real.ndim == axes:
        ours, theirs = ours[None], theirs[None]
        valid = None if valid is None else valid[None]
    found = []
    for b in range(len(theirs)):
        mask = None if valid is None else valid[b]
        clip = valid_frames(ours[b], mask), valid_frames(theirs[b], mask)
        if not len(clip[1]):
            raise ShapeError(
                f"expected at least one valid frame a clip, got none in clip {b}; leave such clips out."
            )
        found.append(clip)
    return found


def blink_distance(generated: Tensor, real: Tensor, valid: Tensor | None = None) -> Tensor:
    """``B_d``: :func:`normalised_mean_error` of the 32 lid points; lower is better, 0 is perfect.

    Source: paper 1 Table 4; reference-facts 8.6. Deviates: lid contours of the 478-point mesh.
    """
    return normalised_mean_error(generated, real, EYES, valid)


def gaze_distance(generated: Tensor, real: Tensor, valid: Tensor | None = None) -> Tensor:
    """``G_d``: :func:`normalised_mean_error` of the 10 iris points; lower is better, 0 is perfect.

    Source: paper 1 Table 4; reference-facts 8.6, which leave the iris points open.
    """
    return normalised_mean_error(generated, real, IRISES, valid)


def mouth_distance(generated: Tensor, real: Tensor, valid: Tensor | None = None) -> Tensor:
    """:func:`normalised_mean_error` of the 40 lip points; lower is better, 0 is perfect."""
    return normalised_mean_error(generated, real, MOUTH, valid)


def descriptor_distance(
    generated: Tensor, real: Tensor, valid: Tensor | None = None, *, form: Form = "euclidean"
) -> Tensor:
    """``E_d`` or ``P_d``: mean over frames of the L2 distance of some descriptors.

    Args:
        generated: ``(T, D)`` or ``(B, T, D)``: expression columns for ``E_d``, rotation for ``P_d``. With
            the coefficients of :class:`~talkhead.geometry.deep3d.Deep3DTrack` they are in the paper's
            space; with the suite's own descriptors values do not compare with the paper's.
        real: The same frames of the real video.
        valid: Mask ``(T,)`` or ``(B, T)`` of frames that count.
        form: See :data:`Form`.

    Returns:
        One distance a clip, float64 ``(B,)``; lower is better, 0 is perfect.

    Raises:
        ShapeError: Shapes differ, or a clip has no valid frame.

    Source: paper 1 Table 4 and supplement I.5; reference-facts 8.6.
    """
    if generated.shape != real.shape or real.ndim not in (2, 3):
        raise ShapeError(
            f"expected two sequences (T, D) or (B, T, D), got {tuple(generated.shape)} and "
            f"{tuple(real.shape)}; compare the same frames of both videos."
        )
    values = []
    for ours, theirs in _clips(generated, real, valid, axes=2):
        apart = ours - theirs
        each = apart.norm(dim=-1) if form == "euclidean" else apart.square().mean(dim=-1)
        values.append(each.mean())
    return torch.stack(values)


@torch.no_grad()
def reading_distance(
    network: GazeNet,
    generated: Tensor,
    real: Tensor,
    generated_landmarks: Tensor,
    real_landmarks: Tensor,
    *,
    part: Read = "gaze",
) -> Tensor:
    """``G_d`` or ``B_d`` by a network that looks at pixels: mean distance of what it reads.

    Args:
        network: Trained, in eval mode; :func:`talkhead.checkpoint.load_component` gives such.
        generated: Pictures of one clip ``(T, 3, H, W)`` in [-1, 1].
        real: The same frames of the real video.
        generated_landmarks: ``(T, 478, 3)`` in crop units of the generated pictures; those of the real
            ones make a misplaced eye count as well.
        real_landmarks: ``(T, 478, 3)`` of the real pictures.
        part: ``gaze``: iris offset, right and down, over half the eye width; ``eyes``: opening of both
            eyes over the eye width.

    Returns:
        Float64 ``(1,)``, mean over frames of the Euclidean distance; lower is better, 0 is perfect.

    Raises:
        ShapeError: Pictures differ in shape, or landmarks do not fit.

    Source: ours. Numbers of different networks do not compare: print the distance of real pictures from
        their own re-encoding beside it.
    """
    if generated.shape != real.shape:
        raise ShapeError(
            f"expected pictures of one shape, got {tuple(generated.shape)} and {tuple(real.shape)}."
        )
    sides = [
        torch.cat(
            [
                network.read(pictures[i : i + _CHUNK], points[i : i + _CHUNK])
                for i in range(0, len(pictures), _CHUNK)
            ]
        )
        for pictures, points in ((generated, generated_landmarks), (real, real_landmarks))
    ]
    return distance_of_readings(*sides, part=part)


def distance_of_readings(
    generated: Tensor, real: Tensor, valid: Tensor | None = None, *, part: Read = "gaze"
) -> Tensor:
    """:func:`reading_distance` of what was read before.

    Args:
        generated: ``(T, 4)`` or ``(B, T, 4)``, as :meth:`GazeNet.read` gives it.
        real: The same frames of the real video.
        valid: Mask ``(T,)`` or ``(B, T)`` of frames that count.
        part: ``gaze`` in half eye widths, or ``eyes`` in eye widths.

    Returns:
        One distance a clip, float64 ``(B,)``; lower is better, 0 is perfect.

    Raises:
        ShapeError: Shapes differ, or a clip has no valid frame.
    """
    columns = _READ[part]
    return descriptor_distance(generated[..., columns], real[..., columns], valid)


class PartError(PerClipMetric):
    """Mean over clips of :func:`normalised_mean_error`: B_d for ``eyes``, G_d for ``irises``."""

    higher_is_better = False

    def __init__(self, part: Part = "eyes") -> None:
        """Choose the landmarks."""
        super().__init__()
        self.points = _POINTS[part]

    def update(
        self,
        generated: Tensor,
        real: Tensor,
        valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add clips; arguments as in :func:`normalised_mean_error`, plus the clip names."""
        self.add_clips(normalised_mean_error(generated, real, self.points, valid), clip)


class DescriptorDistance(PerClipMetric):
    """Mean over clips of :func:`descriptor_distance`: E_d of expression, P_d of rotation columns."""

    higher_is_better = False

    def __init__(self, standard: Standard | None = None, form: Form = "euclidean") -> None:
        """See :func:`talkhead.metrics.sequences.standardised` and :data:`Form`."""
        super().__init__(standard)
        self.form: Form = form

    def update(
        self,
        generated: Tensor,
        real: Tensor,
        valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add clips; arguments as in :func:`descriptor_distance`, plus the clip names."""
        ours, theirs = (standardised(side, self.standard) for side in (generated, real))
        self.add_clips(descriptor_distance(ours, theirs, valid, form=self.form), clip)


class ReadingDistance(PerClipMetric):
    """Mean over clips of :func:`reading_distance`."""

    higher_is_better = False

    def __init__(self, network: GazeNet, part: Read = "gaze") -> None:
        """Keep the network, which is neither trained nor synchronised here."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.part: Read = part

    def update(
        self,
        generated: Tensor,
        real: Tensor,
        generated_landmarks: Tensor,
        real_landmarks: Tensor,
        clip: str | None = None,
    ) -> None:
        """Add one clip; arguments as in :func:`reading_distance`, plus its name."""
        value = reading_distance(
            self.network, generated, real, generated_landmarks, real_landmarks, part=self.part
        )
        self.add_clips(value, None if clip is None else [clip])


def motion_share(generated: Tensor, real: Tensor) -> Tensor:
    """How much moves, relative to the real video: ratio of the standard deviations over time.

    Args:
        generated: ``(T, D)``.
        real: ``(T, D)``.

    Returns:
        Scalar float64: root of the ratio of the variances summed over ``D``; 0 is still, 1 as lively as
        the real video.

    Raises:
        ShapeError: Not two sequences of the same width and at least two frames.
    """
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise ShapeError(
            f"expected two sequences (T, D), got {tuple(generated.shape)} and {tuple(real.shape)}."
        )
    if min(len(generated), len(real)) < 2:
        raise ShapeError(
            "expected at least 2 frames to see motion in, got fewer; use longer clips."
        )
    spread = real.double().var(0).sum().clamp_min(1e-12)
    return (generated.double().var(0).sum() / spread).sqrt()
