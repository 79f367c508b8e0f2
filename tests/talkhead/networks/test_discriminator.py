from __future__ import annotations

import pytest
import torch
from torch import nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.discriminator import PatchDiscriminator


def _small() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(width=8, layers=3)


def test_paper_size() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator().eval()
    with torch.no_grad():
        out = discriminator(torch.randn(1, 3, 112, 112))
    assert len(out) == 2
    logits, features = out[0]
    assert logits.shape[:2] == (1, 1)
    assert [f.shape[1] for f in features] == [3, 64, 128, 256, 512]
    assert [f.shape[-1] for f in features] == [112, 57, 29, 15, 16]
    # 4x4 kernels; bias on the first and last layer only.
    weights = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    assert sum(p.numel() for p in discriminator.parameters()) == 2 * weights


def test_features_begin_with_the_picture_at_each_scale() -> None:
    picture = torch.randn(2, 3, 32, 32)
    (_, fine), (_, coarse) = _small()(picture)
    assert torch.equal(fine[0], picture)
    assert torch.allclose(coarse[0][:, :, 1, 1], picture[:, :, 1:4, 1:4].mean((2, 3)), atol=1e-6)
    # At the corner the padding is not counted.
    assert torch.allclose(coarse[0][:, :, 0, 0], picture[:, :, :2, :2].mean((2, 3)), atol=1e-6)


def test_inner_layers_have_spectral_norm_one() -> None:
    discriminator = _small().train()
    for _ in range(30):
        discriminator(torch.randn(1, 3, 32, 32))
    inner = discriminator.nets[0][1][0]  # type: ignore[index]  # sequences within sequences
    assert isinstance(inner, nn.Conv2d)
    assert torch.linalg.matrix_norm(inner.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_judges_pictures_one_by_one() -> None:
    discriminator, pictures = _small().eval(), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        together = discriminator(pictures)[1][0]
        alone = torch.cat([discriminator(p[None])[1][0] for p in pictures])
    assert torch.allclose(together, alone, atol=1e-5)


def test_gradients_reach_picture_and_parameters() -> None:
    discriminator = _small()
    picture = torch.randn(2, 3, 32, 32, requires_grad=True)
    torch.stack([logits.square().sum() for logits, _ in discriminator(picture)]).sum().backward()
    assert picture.grad is not None
    assert picture.grad.abs().sum() > 0
    assert all(p.grad is not None for p in discriminator.parameters())


def test_frozen_discriminator_still_guides_the_picture() -> None:
    discriminator = _small().requires_grad_(False)
    picture = torch.randn(2, 3, 32, 32, requires_grad=True)
    discriminator(picture)[0][0].mean().backward()
    assert picture.grad is not None
    assert all(p.grad is None for p in discriminator.parameters())


def test_errors_and_spec() -> None:
    with pytest.raises(ShapeError, match=r"expected pictures \(n, 3, H, W\)"):
        _small()(torch.zeros(1, 6, 32, 32))
    with pytest.raises(ConfigError, match="at least one scale and two layers"):
        PatchDiscriminator(scales=0)
    again = PatchDiscriminator(**_small().spec)
    again.load_state_dict(_small().state_dict(), strict=True)
