from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.losses.adversarial import (
    MODES,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)


def _logits(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def test_hinge_by_hand() -> None:
    real, fake = [_logits(2.0, 0.5), _logits(-1.0)], [_logits(-2.0, 0.0), _logits(1.0)]
    # Scale 1: (0 + .5)/2 + (0 + 1)/2 = .75; scale 2: 2 + 2 = 4; their mean.
    assert discriminator_loss(real, fake).item() == pytest.approx((0.75 + 4.0) / 2)
    # Scale 1: -(-2 + 0)/2 = 1; scale 2: -1.
    assert generator_loss(fake).item() == pytest.approx(0.0)


def test_log_by_hand() -> None:
    real, fake = [_logits(1.5)], [_logits(-0.5)]
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    expected = -math.log(sigmoid(1.5)) - math.log(1 - sigmoid(-0.5))
    assert discriminator_loss(real, fake, mode="log").item() == pytest.approx(expected)
    assert generator_loss(fake, mode="log").item() == pytest.approx(-math.log(sigmoid(-0.5)))


def test_least_squares_by_hand() -> None:
    real, fake = [_logits(1.0, 3.0)], [_logits(-1.0, 0.5)]
    # Real: (0 + 4) / 2; generated, towards 0: (1 + 1/4) / 2, towards 1: (4 + 1/4) / 2.
    loss = discriminator_loss(real, fake, mode="least_squares")
    assert loss.item() == pytest.approx(2.0 + 0.625)
    assert generator_loss(fake, mode="least_squares").item() == pytest.approx(2.125)
    assert discriminator_loss([_logits(1.0)], [_logits(0.0)], mode="least_squares").item() == 0
    assert generator_loss([_logits(1.0)], mode="least_squares").item() == 0


def test_a_sure_discriminator_has_no_hinge_loss_and_its_generator_still_learns() -> None:
    fake = _logits(-30.0).requires_grad_(True)
    assert discriminator_loss([_logits(30.0)], [fake]).item() == 0
    for mode in ("hinge", "log"):
        (slope,) = torch.autograd.grad(generator_loss([fake], mode=mode), fake)
        assert slope.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("mode", MODES)
def test_gradcheck_order_and_bfloat16(mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (
        torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    real.requires_grad_(True)
    fake.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda r, f: discriminator_loss([r], [f], mode=mode), (real, fake)
    )
    assert torch.autograd.gradcheck(lambda f: generator_loss([f, 2 * f], mode=mode), (fake,))
    flipped = discriminator_loss([real.flip(0)], [fake.flip(3)], mode=mode)
    assert torch.allclose(flipped, discriminator_loss([real], [fake], mode=mode))
    half = discriminator_loss(
        [50 * real.to(torch.bfloat16)], [50 * fake.to(torch.bfloat16)], mode=mode
    )
    assert torch.isfinite(half)


def test_coarse_scales_count_as_much_as_fine_ones() -> None:
    fine, coarse = torch.full((1, 1, 8, 8), 1.0), torch.full((1, 1, 2, 2), 3.0)
    assert generator_loss([fine, coarse]).item() == pytest.approx(-2.0)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="expected one of hinge, log, least_squares, got 'wgan'"):
        generator_loss([_logits(1.0)], mode="wgan")
    with pytest.raises(ShapeError, match=r"got \[1, 2\]"):
        discriminator_loss([_logits(1.0)], [_logits(1.0), _logits(1.0)])
    with pytest.raises(ShapeError, match="positive number of scales"):
        generator_loss([])


def test_r1_of_a_linear_judge_is_its_squared_weight() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    pictures = torch.randn(5, 2, 1, 1, requires_grad=True)
    score = (pictures.flatten(1) * weight).sum(1)
    assert float(r1_penalty([score[:, None]], pictures).detach()) == pytest.approx(25.0)
    # Neither more patches of the same score nor another scale change it.
    scales = [score[:, None].expand(-1, 6), score[:, None]]
    penalty = r1_penalty(scales, pictures)
    assert float(penalty.detach()) == pytest.approx(25.0)
    penalty.backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 2 * weight.detach())
    with pytest.raises(ShapeError, match="require gradients"):
        r1_penalty([score[:, None]], pictures.detach())
