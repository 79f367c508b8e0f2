"""Motion of the head alone: the 31 points of brows, nose and eyes over time, without lips and jaw."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.frontal import frontalised
from talkhead.geometry.points68 import EYE_OUTER, RIGID, check_points, inter_ocular

N_RIGID = RIGID.stop - RIGID.start

Frame = Literal["motion", "place", "crop"]
"""What is taken off a track: its mean shape and place, its place alone, or nothing."""
View = Literal["picture", "frontal"]


def rigid_tracks(
    points: Tensor, *, frame: Frame = "motion", view: View = "picture", coordinates: int = 2
) -> Tensor:
    """The rigid points of tracks of 68, relative to the track and to the size of the face.

    - ``frame="motion"``: ``(p_ti - mean_t p_ti) / e``, how far each point is from where it usually is,
      in eye distances ``e``; the shape of the face is gone.
    - ``frame="place"``: ``(p_ti - mean_tj p_tj) / e``, with the shape.
    - ``frame="crop"``: as it comes, in crop widths.

    ``e`` is the distance of the outer eye corners in the coordinates used, averaged over the track.

    Args:
        points: ``(..., T, 68, 3)`` or, for two coordinates in the picture, ``(..., T, 68, 2)``.
        frame: See above.
        view: ``"frontal"`` first turns every frame about the vertical axis until the outer eye corners
            are equally deep (:func:`talkhead.geometry.frontal.frontalised`), which takes the yaw out.
        coordinates: 2 (x and y) or 3.

    Returns:
        ``(..., T, 31 * coordinates)``, the type of ``points``.

    Raises:
        ShapeError: Not 68 points, too few coordinates, no frame, or outer eye corners at one place.

    Source: MS-Sync section 4.3 (31 landmarks, lips and jaw left out; points 17-47 by their number,
        reference-facts 6.8). How they were normalised is not published: the frames are ours.
    """
    check_points(points, "..., T")
    if points.shape[-1] not in (2, 3) or points.shape[-1] < coordinates or coordinates < 2:
        raise ShapeError(
            f"expected points with x, y and for {coordinates} coordinates enough of them, got "
            f"{tuple(points.shape)}; pass three coordinates, or ask for 2."
        )
    if points.shape[-3] == 0:
        raise ShapeError(f"expected at least one frame, got {tuple(points.shape)}.")
    if view == "frontal":
        points = frontalised(points, EYE_OUTER)
    points = points[..., :coordinates]
    rigid = points[..., RIGID, :]
    if frame != "crop":
        eyes = inter_ocular(points).mean(dim=-1)[..., None, None, None]
        if not bool((eyes > 0).all()):
            raise ShapeError(
                "expected two eyes apart from each other, got outer eye corners at one place; leave "
                "out the clips where tracking failed."
            )
        axes = (-3,) if frame == "motion" else (-3, -2)
        rigid = (rigid - rigid.mean(dim=axes, keepdim=True)) / eyes
    return rigid.flatten(-2)


def mirrored_tracks(tracks: Tensor, *, frame: Frame = "motion", coordinates: int = 2) -> Tensor:
    """Tracks of the mirrored picture: points change sides, ``x`` its sign or, in crop widths, to ``1 - x``.

    Args:
        tracks: ``(..., 31 * coordinates)`` from :func:`rigid_tracks`.
        frame: The frame they are in.
        coordinates: 2 or 3.

    Returns:
        As ``tracks``; mirroring twice changes nothing.
    """
    points = tracks.unflatten(-1, (N_RIGID, coordinates))[..., _MIRROR, :]
    sign = points.new_tensor([-1.0, 1.0, 1.0][:coordinates])
    edge = points.new_tensor([1.0 if frame == "crop" else 0.0, 0.0, 0.0][:coordinates])
    mirrored: Tensor = (points * sign + edge).flatten(-2)
    return mirrored


def _mirror_order() -> list[int]:
    """For each rigid point its partner on the other side, counted from 17."""
    partner = {17 + i: 26 - i for i in range(10)}  # brows
    partner |= {i: i for i in range(27, 31)} | {31 + i: 35 - i for i in range(5)}  # nose
    for left, right in ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)):
        partner |= {left: right, right: left}
    return [partner[RIGID.start + i] - RIGID.start for i in range(N_RIGID)]


_MIRROR = _mirror_order()
