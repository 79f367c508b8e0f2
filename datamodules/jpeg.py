"""JPEG bytes to uint8 pictures and back, with the fastest decoder that is installed.

``simplejpeg`` (extra ``fast``) skips a copy that torchvision's decoder makes; both wrap
libjpeg-turbo with the same settings, so they return the same pixels.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from talkhead.errors import DataError, MissingDependencyError, ShapeError

JPEG_QUALITY = 95
Picture = NDArray[np.uint8]


def _simplejpeg_decoder() -> Callable[[bytes], Picture] | None:
    """Decoder of the optional extra, or None where it is not installed."""
    try:
        simplejpeg = importlib.import_module("simplejpeg")
    except ModuleNotFoundError:
        return None

    def decode(data: bytes) -> Picture:
        picture: Picture = simplejpeg.decode_jpeg(data, colorspace="RGB")
        return picture

    return decode


def torchvision_decoder() -> Callable[[bytes], Picture]:
    """Decoder of torchvision, the fallback that is always installed.

    Raises:
        MissingDependencyError: torchvision was removed or does not match torch.
    """
    try:
        io = importlib.import_module("torchvision.io")
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            "expected torchvision for reading JPEG, but it cannot be imported; "
            "pip install talkhead again, or talkhead[fast] for simplejpeg."
        ) from error

    def decode(data: bytes) -> Picture:
        # A bytearray because torch warns about tensors over read-only memory.
        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        picture: Picture = io.decode_jpeg(raw, io.ImageReadMode.RGB).permute(1, 2, 0).numpy()
        return picture

    return decode


@functools.cache
def _decoder() -> Callable[[bytes], Picture]:
    """The fastest decoder at hand."""
    return _simplejpeg_decoder() or torchvision_decoder()


def decode_jpeg(data: bytes) -> Picture:
    """Decode one picture.

    Returns:
        ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: The bytes are not a whole JPEG picture.
    """
    try:
        return _decoder()(data)
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"expected a JPEG picture, got {len(data)} bytes that do not decode ({error}); "
            "run talkhead prepare again."
        ) from error


@functools.cache
def _splitter() -> Callable[[Picture, Picture], None]:
    """Copies a picture ``(H, W, 3)`` into planes ``(3, H, W)``."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:

        def copy(picture: Picture, planes: Picture) -> None:
            planes[...] = picture.transpose(2, 0, 1)

        return copy

    def split(picture: Picture, planes: Picture) -> None:
        # Five times faster than a strided copy, which would cost a quarter of the decoding.
        cv2.split(picture, list(planes))

    return split


def decode_planes(data: bytes, planes: Picture) -> None:
    """Decode one picture into given memory, channels first.

    Args:
        data: A whole JPEG picture.
        planes: Where to put it, ``(3, H, W)`` uint8, each plane contiguous.

    Raises:
        DataError: The bytes do not decode, or to another size.
    """
    picture = decode_jpeg(data)
    if picture.shape[:2] != planes.shape[1:]:
        raise DataError(
            f"expected a picture of {planes.shape[1:]}, got {picture.shape[:2]}; "
            "run talkhead prepare again."
        )
    _splitter()(picture, planes)


def encode_jpeg(picture: Picture, quality: int = JPEG_QUALITY) -> bytes:
    """Encode one picture with 4:2:0 chroma, as every video frame has it.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        quality: 1 to 100.

    Raises:
        ShapeError: Not an RGB picture in bytes.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ShapeError(
            f"expected a uint8 picture (H, W, 3), got {picture.dtype} {picture.shape}; "
            "convert it before writing."
        )
    from torchvision.io import encode_jpeg as encode

    channels_first = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    return bytes(encode(channels_first, quality).numpy().tobytes())


def resize_pictures(pictures: Tensor, size: int) -> Tensor:
    """Scale square pictures with anti-aliased bilinear filtering.

    Args:
        pictures: ``(n, 3, H, H)`` uint8.
        size: Wanted height and width in pixels; returned untouched when it is the present one.

    Returns:
        ``(n, 3, size, size)`` uint8.
    """
    if pictures.shape[-1] == size:
        return pictures
    # torch resizes bytes directly, rounding once at the end.
    scaled = F.interpolate(
        pictures, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return scaled.contiguous()
