from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from talkhead.errors import ShapeError
from talkhead.jpeg import jpeg_artefacts


def _picture(channels: int, height: int = 48, width: int = 64) -> Tensor:
    """Smooth colours with some grain, in whole levels."""
    g = torch.Generator().manual_seed(2)
    coarse = torch.rand(1, channels, 5, 6, generator=g)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    grain = 0.06 * torch.randn(1, channels, height, width, generator=g)
    return ((smooth * 0.7 + 0.15 + grain).clamp(0, 1) * 255).round() / 255


def _through_a_file(picture: Tensor, quality: int) -> Tensor:
    encoded = encode_jpeg((picture[0] * 255).round().to(torch.uint8), quality=quality)
    decoded: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    return decoded[None].float() / 255


@pytest.mark.parametrize("quality", [10, 50, 70, 85, 99])
def test_grey_pictures_are_what_a_real_file_holds(quality: int) -> None:
    grey = _picture(1).expand(1, 3, 48, 64)
    real = _through_a_file(grey, quality)
    error = (jpeg_artefacts(grey, torch.tensor([float(quality)])) - real).abs() * 255
    # A file holds whole levels. Coefficients midway between two steps fall on either side of the
    # encoder's integer arithmetic, which shows in the few blocks that have one.
    assert float(error.median()) < 0.5
    assert float((error < 1.0).float().mean()) > 0.8
    assert float(error.mean()) < 0.1 * float((grey - real).abs().mean()) * 255 + 0.3


@pytest.mark.parametrize("quality", [50, 85])
def test_colours_are_close_to_a_real_file(quality: int) -> None:
    colour = _picture(3)
    ours = jpeg_artefacts(colour, torch.tensor([float(quality)]))
    real = _through_a_file(colour, quality)
    lost = float((real - colour).abs().mean())
    assert float((ours - real).abs().mean()) < 0.35 * lost  # libjpeg smooths the chroma it enlarges


def test_lower_quality_loses_more_and_each_picture_has_its_own() -> None:
    three = _picture(3).expand(3, 3, 48, 64)
    out = jpeg_artefacts(three, torch.tensor([20.0, 60.0, 95.0]))
    lost = (out - three).abs().mean((1, 2, 3)).tolist()
    assert lost == sorted(lost, reverse=True)
    alone = jpeg_artefacts(three[:1], torch.tensor([60.0]))
    torch.testing.assert_close(out[1:2], alone)


def test_any_size_and_type() -> None:
    odd = _picture(3, 31, 45)
    out = jpeg_artefacts(odd.to(torch.bfloat16), torch.tensor([80.0]))
    assert out.shape == odd.shape
    assert out.dtype == torch.bfloat16
    assert 0 <= float(out.min()) <= float(out.max()) <= 1


def test_refuses_other_shapes() -> None:
    with pytest.raises(ShapeError, match="expected pictures"):
        jpeg_artefacts(torch.zeros(2, 3, 8, 8), torch.ones(1))
