from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.losses.lip_sync import EPS, cosine_bce, lip_sync_loss, one_minus_cosine

RIGHT, UP = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]])
HALF = torch.tensor([[1.0, math.sqrt(3.0)]])  # 60 degrees from RIGHT: cosine 1/2
YES, NO = torch.tensor([1.0]), torch.tensor([0.0])


def test_values_by_hand() -> None:
    for match in (YES, NO):
        assert cosine_bce(RIGHT, HALF, match).item() == pytest.approx(math.log(2))
        assert one_minus_cosine(RIGHT, HALF, match).item() == pytest.approx(0.5)
    assert cosine_bce(RIGHT, RIGHT, YES).item() == pytest.approx(-math.log(1 - EPS), abs=1e-6)
    assert cosine_bce(RIGHT, UP, YES).item() == pytest.approx(-math.log(EPS))
    assert one_minus_cosine(RIGHT, -RIGHT, YES).item() == pytest.approx(2.0)
    assert one_minus_cosine(RIGHT, -RIGHT, NO).item() == 0.0


def test_bce_is_torchs_own_inside_the_clamp() -> None:
    random = torch.Generator().manual_seed(0)
    audio, video = torch.rand(2, 7, 5, generator=random)
    match = torch.tensor([1, 0, 1, 1, 0, 0, 1])
    cosine = torch.cosine_similarity(audio, video)
    wanted = torch.nn.functional.binary_cross_entropy(cosine, match.float())
    torch.testing.assert_close(cosine_bce(audio, video, match), wanted)
    torch.testing.assert_close(lip_sync_loss(audio, video, match == 1), wanted)
    # The length of an embedding does not matter.
    torch.testing.assert_close(cosine_bce(3 * audio, 0.1 * video, match), wanted)


@pytest.mark.parametrize("loss", [cosine_bce, one_minus_cosine])
def test_gradients(loss: object) -> None:
    random = torch.Generator().manual_seed(1)
    audio, video = torch.rand(2, 4, 3, generator=random, dtype=torch.float64).requires_grad_()
    match = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)

    def of(a: Tensor, v: Tensor) -> Tensor:
        return lip_sync_loss(a, v, match, "bce" if loss is cosine_bce else "one_minus_cosine")

    assert torch.autograd.gradcheck(
        of, (audio.detach().requires_grad_(), video.detach().requires_grad_())
    )


def test_opposite_embeddings_are_not_stuck() -> None:
    audio = torch.tensor([[1.0, -0.5]], requires_grad=True)
    cosine_bce(audio, torch.tensor([[-1.0, 0.2]]), YES).backward()
    assert audio.grad is not None
    assert audio.grad.abs().max() > 1


def test_half_precision_is_computed_in_full() -> None:
    audio, video = torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    for loss in (cosine_bce, one_minus_cosine):
        value = loss(audio, video, torch.ones(5))
        assert value.dtype == torch.float32
        assert value.isfinite()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="n verdicts"):
        cosine_bce(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3))
    with pytest.raises(ShapeError, match="at least one pair"):
        one_minus_cosine(torch.ones(0, 3), torch.ones(0, 3), torch.ones(0))
