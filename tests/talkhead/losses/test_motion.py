from __future__ import annotations

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.losses.motion import code_loss, velocity_loss


def test_hand_values() -> None:
    target = torch.zeros(1, 3, 2)
    predicted = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [3.0, 2.0]]])
    assert float(code_loss(predicted, target)) == pytest.approx((1 + 9 + 9 + 4) / 6)
    # differences (2, 0) and (0, 2)
    assert float(velocity_loss(predicted, target)) == pytest.approx((4 + 4) / 4)


def test_constant_offset_has_no_velocity_error() -> None:
    target = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    assert float(velocity_loss(target + 2.0, target)) == pytest.approx(0.0, abs=1e-10)
    assert float(code_loss(target + 2.0, target)) == pytest.approx(4.0)


def test_padding_counts_for_nothing_even_if_not_finite() -> None:
    generator = torch.Generator().manual_seed(1)
    predicted, target = torch.randn(2, 2, 6, 3, generator=generator)
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 4:] = False
    padded = predicted.clone()
    padded[1, 4:] = float("nan")
    padded.requires_grad_()
    code, velocity = code_loss(padded, target, valid), velocity_loss(padded, target, valid)
    errors = (predicted - target).square()
    assert code.item() == pytest.approx(
        float((errors[0].sum() + errors[1, :4].sum()) / 30), rel=1e-5
    )
    steps = ((predicted - target)[:, 1:] - (predicted - target)[:, :-1]).square()
    expected = (steps[0].sum() + steps[1, :3].sum()) / (8 * 3)
    assert velocity.item() == pytest.approx(float(expected), rel=1e-5)
    (code + velocity).backward()
    assert padded.grad is not None
    assert bool(padded.grad[valid].isfinite().all())


def test_nothing_to_measure_is_zero() -> None:
    one = torch.ones(1, 1, 2)
    assert float(velocity_loss(one, one * 2)) == 0.0
    assert float(code_loss(one, one * 2, torch.zeros(1, 1, dtype=torch.bool))) == 0.0


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(2)
    predicted = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator).requires_grad_()
    target = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    valid = torch.tensor([[True] * 4, [True, True, True, False]])
    for loss in (code_loss, velocity_loss):
        assert torch.autograd.gradcheck(lambda p, f=loss: f(p, target, valid), (predicted,))


def test_finite_in_bfloat16() -> None:
    a = torch.full((1, 4, 2), 100.0, dtype=torch.bfloat16)
    assert bool(torch.stack([code_loss(a, -a), velocity_loss(a, -a)]).isfinite().all())


def test_refuses_broadcasting() -> None:
    with pytest.raises(ShapeError, match="two code sequences"):
        code_loss(torch.zeros(2, 4, 3), torch.zeros(2, 1, 3))
    with pytest.raises(ShapeError, match="expected a mask"):
        velocity_loss(
            torch.zeros(2, 4, 3), torch.zeros(2, 4, 3), torch.ones(2, 3, dtype=torch.bool)
        )
