from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.losses.motion_streams import (
    independence_loss,
    latent_regularisation,
    mean_distance,
)


def codes(seed: int = 0, rows: int = 3, frames: int = 40, dim: int = 4) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, frames, dim, generator=random, dtype=torch.float64)


def test_distances_by_hand() -> None:
    first, second = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]])
    assert float(mean_distance(first, second)) == pytest.approx((1 + 16) / 2)
    assert float(mean_distance(first, second, "l1")) == pytest.approx((1 + 4) / 2)


def test_regularisation_by_hand() -> None:
    made = torch.tensor([[[1.0], [2.0], [4.0]]])
    decoded = torch.tensor([[[0.0], [2.0], [1.0]]])
    # current frames 1, 2: (0 + 9) / 2; previous frames 0, 1: (1 + 0) / 2
    assert float(latent_regularisation(made, decoded)) == pytest.approx(4.5 + 0.5)
    assert float(latent_regularisation(made, made)) == 0.0


def test_decorrelation_by_hand() -> None:
    wave = torch.tensor([1.0, -1.0, 1.0, -1.0])
    other = torch.tensor([1.0, 1.0, -1.0, -1.0])
    same, apart = torch.stack([wave, wave], -1)[None], torch.stack([other, other], -1)[None]
    assert float(independence_loss(same, same)) == pytest.approx(1.0, abs=1e-5)
    assert float(independence_loss(same, apart)) == pytest.approx(0.0, abs=1e-6)


def test_decorrelation_knows_no_scale_nor_who_speaks_and_the_literal_form_does() -> None:
    rhythmic, pose = codes(1), codes(2)
    value = float(independence_loss(rhythmic, pose))
    assert value < 0.05
    person = 10 * codes(3, frames=1)
    assert float(independence_loss(rhythmic + person, 3 * pose + person)) == pytest.approx(value)
    shared = float(independence_loss(rhythmic, pose + 2 * rhythmic))
    assert shared > 4 * value
    literal = independence_loss(rhythmic, pose + person, "literal")
    assert float(literal) == pytest.approx(float((rhythmic - pose - person).square().mean()))
    assert float(independence_loss(rhythmic, rhythmic, "literal")) == 0.0  # equal, not independent


@pytest.mark.parametrize("kind", ["decorrelated", "literal"])
def test_gradients(kind: str) -> None:
    rhythmic, pose = codes(1, 2, 5, 2).requires_grad_(), codes(2, 2, 5, 2).requires_grad_()
    torch.autograd.gradcheck(lambda a, b: independence_loss(a, b, kind), (rhythmic, pose))  # type: ignore[arg-type]  # a parameter
    torch.autograd.gradcheck(latent_regularisation, (rhythmic, pose))
    torch.autograd.gradcheck(lambda a, b: mean_distance(a, b, "l1"), (rhythmic, pose))


def test_a_single_frame_has_no_correlation_and_no_gradient_that_is_not_finite() -> None:
    """A window of which all frames but one are known; the mean taken off leaves nothing."""
    rhythmic, pose = (codes(i, frames=1).float().requires_grad_() for i in (1, 2))
    value = independence_loss(rhythmic, pose)
    value.backward()
    assert value.item() == 0.0
    assert rhythmic.grad is not None
    assert not rhythmic.grad.any()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="of one shape"):
        mean_distance(torch.ones(2), torch.ones(3))
    with pytest.raises(ShapeError, match="with entries"):
        mean_distance(torch.ones(0), torch.ones(0))
    with pytest.raises(ConfigError, match="norm out of l2, l1"):
        mean_distance(torch.ones(2), torch.ones(2), "l3")  # type: ignore[arg-type]  # what YAML could hold
    with pytest.raises(ShapeError, match="T >= 2"):
        latent_regularisation(codes(frames=1), codes(frames=1))
    with pytest.raises(ShapeError, match="the same frames"):
        independence_loss(codes(), codes(frames=3))
    with pytest.raises(ConfigError, match="decorrelated, literal"):
        independence_loss(codes(), codes(), "equal")  # type: ignore[arg-type]  # what YAML could hold
