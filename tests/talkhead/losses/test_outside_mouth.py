from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.losses.outside_mouth import box_mask, outside_difference, outside_perceptual_loss
from talkhead.losses.perceptual import reduced

SIDE = 32
BOXES = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.5, 0.25]])


def pictures(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(2, 3, SIDE, SIDE, generator=random, dtype=dtype) - 1


def taps(shown: Tensor) -> list[Tensor]:
    """Five activations that look at neighbours, too."""
    return [torch.nn.functional.avg_pool2d(shown * (j + 1), 3, 1, 1) for j in range(5)]


def test_a_mask_by_hand() -> None:
    mask = box_mask(torch.tensor([[0.25, 0.5, 0.75, 1.0]]), 4, 4)
    assert mask[0, 0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    assert float(box_mask(torch.tensor([[0.0, 0, 1, 1]]), 8, 6).mean()) == 1.0


def test_what_happens_in_the_mouth_costs_nothing_and_the_rest_does() -> None:
    real = pictures(0)
    inside = box_mask(BOXES, SIDE, SIDE)
    mouth, cheek = real + inside * pictures(1), real + (1 - inside) * pictures(1)
    assert float(outside_perceptual_loss(taps, mouth, real, BOXES)) == 0.0
    assert outside_difference(mouth, real, BOXES).tolist() == [0.0, 0.0]
    assert float(outside_perceptual_loss(taps, cheek, real, BOXES)) > 0.1
    torch.testing.assert_close(
        outside_difference(real + 0.25 * (1 - inside), real, BOXES), torch.tensor([0.25, 0.25])
    )


def test_equation_4_term_by_term() -> None:
    fake, real = pictures(1), pictures(0)
    kept = 1 - box_mask(BOXES, SIDE, SIDE)
    expected = torch.zeros(())
    for factor in (1, 2):
        y, d = (taps(reduced(kept * p, factor)) for p in (fake, real))
        for j in range(5):
            expected += (y[j] - d[j]).abs().mean() / (2 * 5)
    torch.testing.assert_close(outside_perceptual_loss(taps, fake, real, BOXES), expected)


def test_gradients_stay_outside_the_box() -> None:
    fake, real = pictures(1, torch.float64), pictures(0, torch.float64)
    fake.requires_grad_()
    outside_perceptual_loss(taps, fake, real, BOXES).backward()
    assert fake.grad is not None
    inside = box_mask(BOXES, SIDE, SIDE).bool().expand_as(fake.grad)
    assert not fake.grad[inside].any()
    assert (fake.grad[~inside] != 0).double().mean() > 0.9
    small = (fake.detach()[:1, :, :4, :4]).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda y: outside_difference(y, real[:1, :, :4, :4], BOXES[:1].double()), (small,)
    )


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected boxes \(n, 4\)"):
        box_mask(BOXES[:, :2], 4, 4)
    with pytest.raises(ShapeError, match="flatten clips first"):
        outside_difference(pictures(0), pictures(1), BOXES[:1])
    with pytest.raises(ConfigError, match="use fewer scales"):
        outside_perceptual_loss(taps, pictures(0), pictures(1), BOXES, scales=3)
