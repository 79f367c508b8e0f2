"""A face ready to be animated, found in a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.batch import to_float
from talkhead.errors import DataError
from talkhead.geometry.crop import Box, clip_box, crop_frame, to_crop_units
from talkhead.landmarks.base import Landmarker

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Portrait:
    """A face ready to be animated.

    Attributes:
        picture: Square crop at output size, ``(H, H, 3)`` uint8.
        landmarks: ``(478, 3)`` in crop units.
    """

    picture: Picture
    landmarks: NDArray[np.float32]


def find_portrait(
    picture: Picture, landmarker: Landmarker, size: int, face_share: float
) -> Portrait:
    """The largest face of a picture, cropped as the training data were.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        landmarker: Face mesh tracker.
        size: Side of the crop in pixels.
        face_share: The crop policy of the checkpoint, see :attr:`Talker.face_share`.

    Raises:
        DataError: No face is found.
    """
    faces = landmarker.detect(picture)
    height, width = picture.shape[:2]
    if not faces:
        raise no_face("the portrait", width, height)
    box: Box = clip_box(faces[0][None], width, height, face_share)
    return Portrait(crop_frame(picture, box, size), to_crop_units(faces[0], box))


def no_face(what: str, width: int, height: int) -> DataError:
    """What to say about a picture or video of ``width`` x ``height`` pixels without a face."""
    return DataError(
        f"no face found in {what} ({width} x {height} pixels); expected one clearly visible, roughly "
        "frontal face at least 60 pixels wide."
    )


def resized(picture: Picture, side: int) -> Picture:
    """A square picture as it is drawn, ``(side, side, 3)``, at the size it is shown."""
    if len(picture) == side:
        return np.ascontiguousarray(picture)
    import cv2

    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def as_batch(picture: Picture, side: int, device: torch.device) -> Tensor:
    """A square picture as an encoder's input ``(1, 3, side, side)``."""
    import cv2

    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return to_float(torch.from_numpy(small).permute(2, 0, 1)[None].to(device))
