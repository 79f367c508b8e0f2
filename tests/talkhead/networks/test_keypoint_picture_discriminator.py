from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.keypoint_maps import keypoint_spots
from talkhead.networks.keypoint_picture_discriminator import KeypointPictureDiscriminator


def _small(**options: Any) -> KeypointPictureDiscriminator:
    torch.manual_seed(0)
    values: dict[str, Any] = {"keypoints": 3, "width": 4, "max_width": 8, "blocks": 2, **options}
    return KeypointPictureDiscriminator(**values)


def _input(n: int = 2, side: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pictures = 2 * torch.rand(n, 3, side, side, generator=generator) - 1
    return pictures, torch.rand(n, 3, 2, generator=generator) - 0.5


def _convolution(discriminator: KeypointPictureDiscriminator, block: int) -> nn.Conv2d:
    found = next(m for m in discriminator.blocks[block].modules() if isinstance(m, nn.Conv2d))
    assert isinstance(found, nn.Conv2d)
    return found


def test_published_size() -> None:
    with torch.device("meta"):
        discriminator = KeypointPictureDiscriminator()
        ((logits, features),) = discriminator(torch.empty(2, 3, 256, 256), torch.empty(2, 10, 2))
    assert [tuple(f.shape[1:]) for f in features] == [
        (64, 253, 253), (128, 123, 123), (256, 58, 58), (512, 26, 26)
    ]  # fmt: skip
    assert logits.shape == (2, 1, 26, 26)
    # 4x4 kernels with bias, affine norms in blocks 2 to 4, and the 1x1 at the end.
    widths = [13, 64, 128, 256, 512]
    convolutions = sum(16 * a * b + b for a, b in itertools.pairwise(widths))
    count = sum(p.numel() for p in discriminator.parameters())
    assert count == convolutions + 2 * (128 + 256 + 512) + 513


def test_spots_are_further_channels_of_the_picture() -> None:
    """The first block against a convolution of picture and spots put together by hand."""
    discriminator = _small()
    pictures, points = _input()
    ((_, features),) = discriminator(pictures, points)
    conv = _convolution(discriminator, 0)
    shown = torch.cat([pictures, keypoint_spots(points, 16, 16, 0.01)], dim=1)
    torch.testing.assert_close(features[0], nn.functional.leaky_relu(conv(shown), 0.2))


def test_the_judgement_depends_on_where_the_keypoints_are() -> None:
    discriminator, (pictures, points) = _small().eval(), _input()
    alone = _small(keypoints=0).eval()
    assert torch.equal(alone(_input()[0])[0][0], alone(_input()[0], torch.zeros(2, 0, 2))[0][0])
    with torch.no_grad():
        here, there = (discriminator(pictures, p)[0][0] for p in (points, points.flip(1)))
        assert (here - there).abs().max() > 1e-3
        assert alone(pictures, points[:, :0])[0][0].shape == here.shape
        one = torch.cat(
            [discriminator(p[None], q[None])[0][0] for p, q in zip(*_input(), strict=True)]
        )
    torch.testing.assert_close(one, here)


@pytest.mark.parametrize(("blocks", "side"), [(1, 5), (2, 13), (3, 29), (4, 61)])
def test_the_smallest_picture_leaves_four_patches(blocks: int, side: int) -> None:
    discriminator = _small(blocks=blocks)
    ((logits, features),) = discriminator(*_input(1, side))
    assert logits.shape[2:] == (2, 2)
    assert len(features) == blocks
    with pytest.raises(ShapeError, match=f"at least {side} pixels"):
        discriminator(*_input(1, side - 1))


def test_spectral_norm_on_request() -> None:
    discriminator = _small(spectral=True).train()
    for _ in range(30):
        discriminator(*_input())
    for weight in (_convolution(discriminator, 1).weight, discriminator.last.weight):
        assert isinstance(weight, Tensor)
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
    plain = _convolution(_small(), 1).weight
    assert torch.linalg.matrix_norm(plain.flatten(1), 2).item() != pytest.approx(1, abs=0.02)


def test_gradients_reach_picture_and_parameters() -> None:
    discriminator, (pictures, points) = _small(), _input()
    pictures.requires_grad_(True)
    discriminator(pictures, points)[0][0].square().sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert all(p.grad is not None for p in discriminator.parameters())


def test_errors_and_spec() -> None:
    pictures, points = _input()
    with pytest.raises(ShapeError, match=r"expected pictures \(n, 3, H, W\)"):
        _small()(pictures[:, :2], points)
    with pytest.raises(ShapeError, match="those of the very pictures"):
        _small()(pictures, points[:1])
    with pytest.raises(ShapeError, match="those of the very pictures"):
        _small()(pictures, points[:, :2])
    with pytest.raises(ConfigError, match="above 0"):
        _small(blocks=0)
    again = KeypointPictureDiscriminator(**_small().spec)
    again.load_state_dict(_small().state_dict(), strict=True)
