from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from talkhead.audit.pictures import differing_bits, grey, picture_hashes, sharpness
from talkhead.errors import ShapeError


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(n: int = 3, side: int = 64) -> Tensor:
    """Pictures with structure in all of the lowest frequencies."""
    small = noise(n, 1, 10, 10)
    big = torch.nn.functional.interpolate(small, (side, side), mode="bicubic")
    return 128 + 40 * big[:, 0]


@pytest.mark.parametrize("wave", [0.2, 1.0, math.pi])
def test_sharpness_of_a_grating_is_the_response_of_the_laplacian(wave: float) -> None:
    x = 100 * torch.cos(wave * torch.arange(40, dtype=torch.float64))
    across, down = x.expand(30, 40), x[:30, None].expand(30, 40)
    expected = 2 * (1 - math.cos(wave))
    found = sharpness(torch.stack([across, down]))
    assert found.tolist() == pytest.approx([expected] * 2)


def test_sharpness_of_noise_and_of_nothing() -> None:
    # Four neighbours of weight 1 and a middle of -4: the variances add up to 20.
    assert float(sharpness(50 * noise(1, 300, 300))) == pytest.approx(math.sqrt(20), rel=0.01)
    assert float(sharpness(torch.full((1, 9, 9), 77.0))) == 0.0


def test_sharpness_ignores_light_and_falls_with_blur() -> None:
    picture = smooth(1) + 10 * noise(1, 64, 64)
    assert float(sharpness(0.5 * picture + 30)) == pytest.approx(float(sharpness(picture)))
    values = [float(sharpness(picture))]
    for _ in range(3):
        picture = torch.nn.functional.avg_pool2d(picture[:, None], 3, 1, 1)[:, 0]
        values.append(float(sharpness(picture)))
    assert values == sorted(values, reverse=True)
    assert values[1] < 0.5 * values[0]


def test_grey_is_the_luma_of_rgb() -> None:
    pictures = torch.tensor([[255, 0, 0], [0, 255, 0], [10, 20, 30]], dtype=torch.uint8)
    found = grey(pictures[:, :, None, None])[:, 0, 0]
    assert found.tolist() == pytest.approx([76.245, 149.685, 0.299 * 10 + 0.587 * 20 + 0.114 * 30])


def test_hash_is_the_sign_of_the_lowest_frequencies() -> None:
    """Against scipy's DCT; pictures of 32 pixels are not shrunk."""
    pictures = 128 + 30 * noise(5, 32, 32)
    for word, picture in zip(picture_hashes(pictures), pictures.numpy(), strict=True):
        waves = dctn(picture, norm="ortho")[1:9, 1:9].ravel()
        # torch takes the lower of the two middle values of 64.
        middle = np.sort(waves)[31]
        assert int(word) == int("".join("1" if v > middle else "0" for v in waves), 2)


def test_hash_survives_light_scale_and_blur_but_not_another_picture() -> None:
    pictures = smooth()
    base = picture_hashes(pictures)
    assert (picture_hashes(0.6 * pictures + 20) == base).all()
    larger = torch.nn.functional.interpolate(pictures[:, None], (160, 160), mode="bilinear")[:, 0]
    assert (differing_bits(base, picture_hashes(larger)) <= 3).all()
    assert (differing_bits(base, base[[1, 2, 0]]) > 16).all()
    assert (differing_bits(base, picture_hashes(pictures.flip(-1))) > 16).all()


def test_differing_bits_are_counted() -> None:
    a = np.array([0, 5, 2**31, 2**32 - 1], np.uint32)
    b = np.array([0, 6, 0, 0], np.uint32)
    expected = [(int(x) ^ int(y)).bit_count() for x, y in zip(a, b, strict=True)]
    assert differing_bits(a, b).tolist() == expected == [0, 2, 1, 32]
    wide = differing_bits(a.astype(np.uint64) << np.uint64(32), b.astype(np.uint64))
    assert wide.tolist() == [0, 4, 1, 32]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="n, 3, H, W"):
        grey(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ShapeError, match="3 pixels"):
        sharpness(torch.zeros(1, 2, 9))
    with pytest.raises(ShapeError, match="n, H, W"):
        picture_hashes(torch.zeros(4, 4))
