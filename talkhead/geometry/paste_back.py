"""Put an edited crop back where it was cut from, without a visible border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.crop import Box, Picture

FEATHER = 0.12
"""Width of the soft border, as a share of the crop's side."""


def feather_mask(side: int, feather: float = FEATHER) -> NDArray[np.float32]:
    """How much of the crop is shown: 1 inside, falling smoothly to 0 at its border.

    Along each axis the weight is ``3 u^2 - 2 u^3`` with ``u`` the distance of the pixel's centre from the
    border over the feather's width, at most 1; both axes multiply.

    Args:
        side: Side of the crop in pixels.
        feather: Width of the soft border as a share of the side, from 0 (a hard edge) to 0.5.

    Returns:
        ``(side, side)`` float32 in [0, 1].

    Raises:
        ConfigError: A feather out of range, or no pixel.
    """
    if side < 1 or not 0.0 <= feather <= 0.5:
        raise ConfigError(
            f"feather: expected a share from 0 to 0.5 of at least 1 pixel, got {feather} of {side}."
        )
    centres = np.arange(side) + 0.5
    inward = np.minimum(centres, side - centres)
    u = np.clip(inward / max(feather * side, 1e-9), 0.0, 1.0)
    weight = u * u * (3.0 - 2.0 * u)
    return np.outer(weight, weight).astype(np.float32)


class PasteBack:
    """Pastes crops of one box into frames of one size.

    The mask is made once; a frame costs one resize and one blend of the box. Pixels outside the box and on
    its border stay what they were.
    """

    def __init__(self, box: Box, width: int, height: int, feather: float = FEATHER) -> None:
        """Prepare for a box, which may reach outside the frame.

        Args:
            box: Where the crops were cut, in frame pixels (:func:`talkhead.geometry.crop.clip_box`).
            width: Width of the frames in pixels.
            height: Height of the frames in pixels.
            feather: See :func:`feather_mask`.

        Raises:
            ConfigError: As :func:`feather_mask`, or a box that lies outside the frame.
        """
        self._box, self._size = box, (height, width)
        rows = slice(max(0, box.y), min(height, box.y + box.side))
        columns = slice(max(0, box.x), min(width, box.x + box.side))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            raise ConfigError(
                f"paste-back: expected a box that meets the {width} x {height} frame, got {box.as_list()}."
            )
        self._rows, self._columns = rows, columns
        self._within = (
            slice(rows.start - box.y, rows.stop - box.y),
            slice(columns.start - box.x, columns.stop - box.x),
        )
        self._mask = feather_mask(box.side, feather)[self._within][..., None]

    def __call__(self, frame: Picture, crop: Picture) -> Picture:
        """The frame with the crop in its place.

        Args:
            frame: ``(height, width, 3)`` uint8, not changed.
            crop: ``(S, S, 3)`` uint8 of any size.

        Returns:
            ``(height, width, 3)`` uint8.

        Raises:
            ShapeError: A frame of another size, or a crop that is not a square picture.
        """
        import cv2

        if frame.shape != (*self._size, 3):
            raise ShapeError(
                f"expected frames {(*self._size, 3)}, got {frame.shape}; all frames of a video are alike."
            )
        if crop.ndim != 3 or crop.shape[0] != crop.shape[1] or crop.shape[2] != 3:
            raise ShapeError(f"expected a square crop (S, S, 3), got {crop.shape}.")
        side = self._box.side
        how = cv2.INTER_AREA if side < len(crop) else cv2.INTER_CUBIC
        placed = cv2.resize(crop, (side, side), interpolation=how)[self._within]
        out = frame.copy()
        under = frame[self._rows, self._columns].astype(np.float32)
        blended = under + self._mask * (placed.astype(np.float32) - under)
        out[self._rows, self._columns] = np.rint(blended).clip(0, 255).astype(np.uint8)
        return out
