"""Augmentation that takes identity out of the motion encoder's input, or shows clips in another look.

All functions work on batches of float pictures in [-1, 1], draw separate numbers for every picture
(:func:`another_look`: every clip) from a ``torch.Generator`` (or torch's global one),
and run on the pictures' device.

Source: LPD's recipe and PC-AVS' channel gain (reference-facts 1.3). The drawn pixel operations run in
one fixed order, that of :data:`talkhead.pixel_ops.PIXEL_OPS`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.pixel_ops import COLOUR_OPS, PIXEL_OPS, PixelOp, Rng, coin, uniform

MAX_PIXEL_OPS = 5
MAX_ZOOM, MAX_SHIFT = 0.15, 0.05


def augment_pose_input(
    pictures: Tensor, generator: Rng = None, *, pixel: bool = True, squeeze: bool = True
) -> Tensor:
    """Pictures for the motion encoder: other colours and sharpness, another aspect ratio.

    Args:
        pictures: ``(n, 3, H, W)`` in [-1, 1].
        generator: Source of randomness.
        pixel: Apply 0 to 5 pixel operations to each picture.
        squeeze: Scale width and height apart (see :func:`squeeze_aspect`).

    Returns:
        New pictures of the same shape in [-1, 1].

    Raises:
        ShapeError: Not float RGB pictures.
    """
    _check(pictures)
    if pixel:
        pictures = pixel_noise(pictures, generator)
    return squeeze_aspect(pictures, generator) if squeeze else pictures


def pixel_noise(
    pictures: Tensor, generator: Rng = None, operations: Mapping[str, PixelOp] = PIXEL_OPS
) -> Tensor:
    """0 to 5 different operations on each picture, number and choice uniform.

    Args:
        pictures: ``(n, 3, H, W)`` in [-1, 1].
        generator: Source of randomness.
        operations: What to choose from.

    Returns:
        New pictures in [-1, 1].

    Raises:
        ShapeError: Not float RGB pictures.
    """
    _check(pictures)
    n = len(pictures)
    count = (uniform(n, 0.0, MAX_PIXEL_OPS + 1.0, pictures, generator)).floor()
    # The rank of independent uniform numbers is a random order of the operations.
    order = uniform(n * len(operations), 0.0, 1.0, pictures, generator).view(n, -1).argsort(1)
    chosen = order.argsort(1) < count[:, None]
    x = (pictures + 1.0) / 2.0
    for i, operation in enumerate(operations.values()):
        (rows,) = chosen[:, i].nonzero(as_tuple=True)
        if len(rows) > 0:  # every operation on every picture would cost five times as much
            x = x.index_copy(0, rows, operation(x[rows], generator).clamp(0.0, 1.0))
    return x * 2.0 - 1.0


def another_look(clips: Tensor, generator: Rng = None) -> Tensor:
    """Other colours, place, size and side for each clip, the same for all of its frames.

    Every clip is mirrored with probability 0.5, enlarged or shrunk by up to 15 %, shifted by up to 5 % of
    the side, and goes through 0 to 5 of ``COLOUR_OPS``. What moves within a clip moves as before.

    Args:
        clips: ``(B, T, 3, H, W)`` in [-1, 1].
        generator: Source of randomness.

    Returns:
        New clips of the same shape in [-1, 1].

    Raises:
        ShapeError: Not clips of float RGB pictures.
    """
    rows, frames = _check_clips(clips)
    theta = clips.new_zeros(rows, 2, 3)
    size = 1.0 / uniform(rows, 1.0 - MAX_ZOOM, 1.0 + MAX_ZOOM, clips, generator)
    theta[:, 0, 0] = torch.where(coin(rows, 0.5, clips, generator), -size, size)
    theta[:, 1, 1] = size
    theta[:, :, 2] = 2.0 * uniform(2 * rows, -MAX_SHIFT, MAX_SHIFT, clips, generator).view(rows, 2)
    moved = _sample(clips.flatten(0, 1), theta.repeat_interleave(frames, 0))
    return _recoloured(moved.unflatten(0, (rows, frames)), frames, generator)


def shared_look(
    clips: Tensor, landmarks: Tensor, generator: Rng = None, *, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Other colours and the other side for each clip, the same for all of its frames, with landmarks.

    Every clip is mirrored with probability 0.5 and goes through 0 to 5 of ``COLOUR_OPS``.

    Args:
        clips: ``(B, T, 3, H, W)`` in [-1, 1].
        landmarks: ``(B, ..., P, 3)`` in crop units, of one frame of each clip or of several.
        generator: Source of randomness.
        order: For each landmark the one on its place in the mirrored face, ``(P,)``; None: mirrored
            landmarks keep their order, so that the left eye's points are then on the right eye.

    Returns:
        New clips in [-1, 1] and their landmarks; one at x = 0.2 of a mirrored clip is at 0.8.

    Raises:
        ShapeError: Not clips of float RGB pictures, or not as many landmark sets.
    """
    rows, frames = _check_clips(clips)
    if landmarks.ndim < 3 or len(landmarks) != rows:
        raise ShapeError(f"expected landmarks ({rows}, points, 3), got {tuple(landmarks.shape)}.")
    turned = coin(rows, 0.5, clips, generator)
    clips = torch.where(turned[:, None, None, None, None], clips.flip(-1), clips)
    mirrored = landmarks.clone()
    mirrored[..., 0] = 1.0 - landmarks[..., 0]
    if order is not None:
        mirrored = mirrored[..., order, :]
    sides = turned.view(-1, *(1,) * (landmarks.ndim - 1))
    return _recoloured(clips, frames, generator), torch.where(sides, mirrored, landmarks)


def squeeze_aspect(
    pictures: Tensor, generator: Rng = None, *, low: float = 0.8, high: float = 1.2, p: float = 0.5
) -> Tensor:
    """Scale width and height independently about the centre, reflecting at the border.

    Args:
        pictures: ``(n, 3, H, W)``.
        generator: Source of randomness.
        low: Smallest factor.
        high: Largest factor; above 1 enlarges.
        p: Share of pictures that are scaled.

    Returns:
        New pictures of the same shape.
    """
    _check(pictures)
    n = len(pictures)
    factors = uniform(2 * n, low, high, pictures, generator).view(n, 2)
    factors = torch.where(coin(n, p, pictures, generator)[:, None], factors, 1.0)
    theta = pictures.new_zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = (1.0 / factors).unbind(1)
    return _sample(pictures, theta)


def shared_shift(
    pictures: Tensor,
    landmarks: Tensor,
    generator: Rng = None,
    *,
    limit: float = 0.05,
    p: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Shift pictures and their landmarks together; use the result as input and as target.

    Shifting the motion encoder's input alone would teach it to forget where the head is.

    Args:
        pictures: ``(n, 3, H, W)``.
        landmarks: ``(n, P, 3)`` in crop units.
        generator: Source of randomness.
        limit: Largest shift on either axis, in picture sides.
        p: Share of pictures that are shifted.

    Returns:
        Shifted pictures and landmarks; a landmark at x = 0.5 with a shift of 0.05 moves to 0.55.

    Raises:
        ShapeError: Not float RGB pictures, or not as many landmark sets.
    """
    _check(pictures)
    n = len(pictures)
    if landmarks.ndim != 3 or len(landmarks) != n:
        raise ShapeError(f"expected landmarks ({n}, points, 3), got {tuple(landmarks.shape)}.")
    shift = uniform(2 * n, -limit, limit, pictures, generator).view(n, 2)
    shift = torch.where(coin(n, p, pictures, generator)[:, None], shift, 0.0)
    theta = pictures.new_zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1.0
    theta[:, :, 2] = -2.0 * shift
    moved = landmarks.clone()
    moved[..., :2] += shift[:, None].to(landmarks)
    return _sample(pictures, theta), moved


def _sample(pictures: Tensor, theta: Tensor) -> Tensor:
    """Resample by affine maps ``(n, 2, 3)`` of the output grid, reflecting at the border."""
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def _recoloured(clips: Tensor, frames: int, generator: Rng) -> Tensor:
    """Clips ``(B, T, 3, H, W)`` in other colours, drawn once for each."""
    # One tall picture a clip, so that one draw serves all its frames.
    tall = rearrange(clips, "b t c h w -> b c (t h) w")
    return rearrange(pixel_noise(tall, generator, COLOUR_OPS), "b c (t h) w -> b t c h w", t=frames)


def _check_clips(clips: Tensor) -> tuple[int, int]:
    """Clips and frames of a batch of clips."""
    if clips.ndim != 5:
        raise ShapeError(f"expected clips (B, T, 3, H, W), got {tuple(clips.shape)}.")
    _check(clips[:, 0])
    return clips.shape[0], clips.shape[1]


def _check(pictures: Tensor) -> None:
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
        raise ShapeError(
            f"expected float pictures (n, 3, H, W) in [-1, 1], got {pictures.dtype} "
            f"{tuple(pictures.shape)}; convert with talkhead.batch.to_float."
        )
