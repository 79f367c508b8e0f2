from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.jpeg import (
    Picture,
    decode_jpeg,
    encode_jpeg,
    resize_pictures,
    torchvision_decoder,
)
from talkhead.errors import DataError, ShapeError


def _picture(size: int = 48) -> Picture:
    y, x = np.mgrid[0:size, 0:size] * (255.0 / size)
    picture: Picture = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    return picture


def test_round_trip_keeps_colours_and_axes() -> None:
    picture = _picture()
    back = decode_jpeg(encode_jpeg(picture))
    assert back.shape == picture.shape
    assert np.abs(back.astype(int) - picture.astype(int)).mean() < 2.0


def test_decoders_agree() -> None:
    data = encode_jpeg(_picture())
    np.testing.assert_array_equal(decode_jpeg(data), torchvision_decoder()(data))


def test_broken_bytes_and_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="do not decode"):
        decode_jpeg(encode_jpeg(_picture())[:40])
    with pytest.raises(DataError, match="0 bytes"):
        decode_jpeg(b"")
    with pytest.raises(ShapeError, match="H, W, 3"):
        encode_jpeg(np.zeros((3, 8, 8), np.uint8))


def test_resize_averages_instead_of_picking() -> None:
    # A checkerboard of single pixels becomes grey with anti-aliasing, black or white without.
    board = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).tile(16, 16)
    small = resize_pictures(board.expand(2, 3, 32, 32), 8)
    assert small.shape == (2, 3, 8, 8)
    assert small.dtype == torch.uint8
    assert (small.float() - 127.5).abs().max() < 10
    same = board.expand(1, 3, 32, 32)
    assert resize_pictures(same, 32) is same
