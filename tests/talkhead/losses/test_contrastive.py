from __future__ import annotations

import math

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.losses.contrastive import (
    InfoNCE,
    Mining,
    gather_with_grad,
    inverse_distance_loss,
    margin_loss,
    triplet_loss,
)
from tests.oracles.contrastive import (
    distance_info_nce,
    inverse_distance,
    margin_contrast,
    symmetric_info_nce,
    triplets,
)

MININGS: tuple[Mining, ...] = ("all", "hard", "semi_hard")


def _features(
    seed: int = 0, b: int = 2, n: int = 5, d: int = 6
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    make = lambda: torch.randn(b, n, d, generator=generator, dtype=torch.float64)  # noqa: E731
    return make(), make()


def test_hand_computed_value() -> None:
    # Two orthogonal pairs, scale 1: -log(e / (e + 1)) in every row and column.
    pairs = torch.eye(2)[None]
    loss = InfoNCE(learn_temperature=False)(pairs, 3.0 * pairs)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    loss = InfoNCE(initial_temperature=0.5)(pairs, pairs)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_bare_cosine_cannot_fall_below_its_floor() -> None:
    # One positive at +1 and N - 1 negatives at -1 at best: the floor quoted in the docstring.
    assert math.log(1 + 287 * math.exp(-2)) == pytest.approx(3.69, abs=0.01)
    features = torch.eye(64)[None]
    loss = InfoNCE(learn_temperature=False)(features, features)
    assert loss.item() > math.log(1 + 63 * math.exp(-2))
    assert InfoNCE()(features, features).item() < 0.01


@pytest.mark.parametrize("min_gap", [0, 1, 3])
def test_matches_the_slow_loop(min_gap: int) -> None:
    audio, visual = _features()
    frames = torch.tensor([[0, 1, 2, 9, 20], [4, 4, 7, 30, 2]])
    loss = InfoNCE().double()
    found = loss(audio, visual, frames, min_gap=min_gap).item()
    slow = symmetric_info_nce(audio, visual, 1 / 0.07, frames, min_gap)
    assert found == pytest.approx(slow, rel=1e-6)


def test_invariant_to_order_scale_and_direction() -> None:
    audio, visual = _features()
    loss = InfoNCE()
    base = loss(audio, visual)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(loss(audio[:, order], visual[:, order]), base)
    assert torch.allclose(loss(5 * audio, 0.1 * visual), base)
    assert torch.allclose(loss(visual, audio), base)
    assert not torch.allclose(loss(audio[:, order], visual), base)


def test_videos_are_scored_apart() -> None:
    audio, visual = _features()
    loss = InfoNCE()
    halves = [loss(audio[i : i + 1], visual[i : i + 1]) for i in range(2)]
    assert torch.allclose(loss(audio, visual), torch.stack(halves).mean())


def test_near_windows_are_no_negatives() -> None:
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    frames = torch.tensor([[10, 11, 40]])
    loss = InfoNCE()
    assert loss(features, features).item() > 0.3
    assert loss(features, features, frames, min_gap=2).item() < 1e-4
    # A window is never masked from itself, even if every other one is.
    assert loss(features, features, frames, min_gap=1000).item() == 0


def test_scale_is_limited_but_can_come_back() -> None:
    loss = InfoNCE()
    assert loss.scale.item() == pytest.approx(1 / 0.07)
    assert loss.log_scale is not None
    with torch.no_grad():
        loss.log_scale.fill_(20.0)
    audio, visual = _features()
    loss(audio, visual).backward()
    assert loss.scale.item() == pytest.approx(100.0)
    assert loss.log_scale.grad is not None
    assert loss.log_scale.grad.abs() > 0
    assert list(InfoNCE(learn_temperature=False).parameters()) == []


def test_gradcheck() -> None:
    audio, visual = _features(b=1, n=3, d=4)
    audio.requires_grad_(True)
    visual.requires_grad_(True)
    loss = InfoNCE(initial_temperature=0.7).double()
    assert torch.autograd.gradcheck(lambda a, v: loss(a, v), (audio, visual))
    # Each direction of the inverse distance holds its query fixed, so only one side is checked.
    fixed = inverse_distance_loss(audio.detach(), visual)
    (slope,) = torch.autograd.grad(fixed, visual)
    step = torch.zeros_like(visual)
    step[0, 1, 2] = 1e-6
    a, v = audio.detach(), visual.detach()
    first = lambda x: inverse_distance(a, x)  # noqa: E731
    assert slope[0, 1, 2].item() == pytest.approx(
        (first(v + step) - first(v - step)) / 2e-6, rel=1e-4
    )


def test_finite_in_bfloat16_at_full_scale() -> None:
    audio, visual = (x.to(torch.bfloat16).requires_grad_(True) for x in _features())
    loss = InfoNCE(initial_temperature=0.01)(audio, visual)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert audio.grad is not None
    assert torch.isfinite(audio.grad).all()


def test_inverse_distance_matches_the_slow_loop_and_survives_equal_features() -> None:
    audio, visual = _features()
    slow = inverse_distance(audio, visual) + inverse_distance(visual, audio)
    assert inverse_distance_loss(audio, visual).item() == pytest.approx(slow, rel=1e-5)
    equal = audio.float().requires_grad_(True)
    loss = inverse_distance_loss(equal, equal.detach())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert equal.grad is not None
    assert torch.isfinite(equal.grad).all()


def test_errors() -> None:
    audio, visual = _features()
    with pytest.raises(ShapeError, match="same shape"):
        InfoNCE()(audio, visual[:, :4])
    with pytest.raises(ShapeError, match="one video a row"):
        inverse_distance_loss(audio[0], visual[0])
    with pytest.raises(ShapeError, match=r"min_gap 2 needs frame_index \(2, 5\)"):
        InfoNCE()(audio, visual, min_gap=2)


def test_gather_without_ranks_is_the_identity() -> None:
    rows = torch.randn(3, 2)
    assert gather_with_grad(rows) is rows


def test_info_nce_by_distance_by_hand() -> None:
    # Distances 0 on the diagonal, 2 off it: -log(1 / (1 + e^-2)) in every row and column.
    pairs = torch.tensor([[[0.0], [2.0]]])
    loss = InfoNCE(learn_temperature=False, similarity="distance")
    assert loss(pairs, pairs).item() == pytest.approx(math.log(1 + math.exp(-2)))
    scaled = InfoNCE(initial_temperature=0.5, similarity="distance")
    assert scaled(pairs, pairs).item() == pytest.approx(math.log(1 + math.exp(-4)), rel=1e-5)


@pytest.mark.parametrize("min_gap", [0, 3])
def test_info_nce_by_distance_matches_the_slow_loop(min_gap: int) -> None:
    audio, visual = _features()
    frames = torch.tensor([[0, 1, 2, 9, 20], [4, 4, 7, 30, 2]])
    loss = InfoNCE(learn_temperature=False, similarity="distance")
    slow = distance_info_nce(audio, visual, frames, min_gap)
    assert loss(audio, visual, frames, min_gap=min_gap).item() == pytest.approx(slow)
    # Unlike the cosine, a distance grows with the features but not with a common shift of them.
    assert torch.allclose(loss(audio + 3, visual + 3), loss(audio, visual))
    assert not torch.allclose(loss(2 * audio, 2 * visual), loss(audio, visual))


def test_margin_by_hand() -> None:
    audio, visual = torch.tensor([[[0.0], [4.0]]]), torch.tensor([[[1.0], [4.0]]])
    # True pairs 1 and 0 apart, false ones 4 and 3: (1 + 0) / 2 and, at margin 5, (1 + 4) / 2.
    assert margin_loss(audio, visual, margin=5.0).item() == pytest.approx((0.5 + 2.5) / 2)
    assert margin_loss(audio, visual, margin=3.0).item() == pytest.approx(0.25)
    assert margin_loss(audio, audio, margin=4.0).item() == 0.0


@pytest.mark.parametrize("min_gap", [0, 3])
def test_margin_matches_the_slow_loop(min_gap: int) -> None:
    audio, visual = _features()
    frames = torch.tensor([[0, 1, 2, 9, 20], [4, 4, 7, 30, 2]])
    found = margin_loss(audio, visual, frames, margin=4.0, min_gap=min_gap).item()
    assert found == pytest.approx(margin_contrast(audio, visual, frames, 4.0, min_gap))


def test_distance_losses_have_right_gradients_and_stay_finite_for_equal_features() -> None:
    audio, visual = (x.requires_grad_() for x in _features())
    info_nce = InfoNCE(learn_temperature=False, similarity="distance")
    assert torch.autograd.gradcheck(info_nce, (audio, visual))
    assert torch.autograd.gradcheck(lambda a, v: margin_loss(a, v, margin=3.0), (audio, visual))
    equal = torch.ones(1, 4, 3, requires_grad=True)
    for loss in (info_nce(equal, equal), margin_loss(equal, equal)):
        (gradient,) = torch.autograd.grad(loss, equal)
        assert bool(torch.isfinite(gradient).all())
    half = [x.detach().bfloat16() for x in (audio, visual)]
    assert bool(torch.isfinite(info_nce(*half)))
    assert bool(torch.isfinite(margin_loss(*half)))


def test_margin_needs_negatives_and_frame_numbers() -> None:
    audio, visual = _features()
    with pytest.raises(ShapeError, match="at least 9 frames apart as negatives, got none"):
        margin_loss(audio, visual, torch.arange(5).expand(2, 5), min_gap=9)
    with pytest.raises(ShapeError, match="needs frame_index"):
        margin_loss(audio, visual, min_gap=2)
    with pytest.raises(ShapeError, match="one video a row"):
        margin_loss(audio[0], visual[0])


def test_triplets_by_hand() -> None:
    audio, visual = torch.tensor([[[0.0], [4.0]]]), torch.tensor([[[1.0], [4.0]]])
    # Anchors and their costs at margin 3.5: sounds 3.5 + 1 - 4 and 3.5 + 0 - 3, pictures 3.5 + 1 - 3 and
    # 3.5 + 0 - 4, of which the last is below 0.
    assert triplet_loss(audio, visual, margin=3.5).item() == pytest.approx((0.5 + 0.5 + 1.5) / 4)
    assert triplet_loss(audio, visual, margin=2.0).item() == 0.0
    same = torch.ones(2, 5, 3)
    for mining in MININGS:
        assert triplet_loss(same, same, margin=0.3, mining=mining).item() == pytest.approx(0.3)


@pytest.mark.parametrize("gaps", [(0, 99), (3, 99), (0, 18), (2, 28)])
@pytest.mark.parametrize("mining", MININGS)
def test_triplets_match_the_slow_loop(mining: Mining, gaps: tuple[int, int]) -> None:
    audio, visual = _features()
    frames = torch.tensor([[0, 3, 6, 9, 20], [4, 8, 12, 30, 2]])
    found = triplet_loss(
        audio, visual, frames, margin=1.0, mining=mining, min_gap=gaps[0], max_gap=gaps[1]
    )
    assert found.item() == pytest.approx(triplets(audio, visual, frames, 1.0, mining, gaps))
    if gaps == (0, 99):
        assert triplet_loss(audio, visual, margin=1.0, mining=mining).item() == found.item()


@pytest.mark.parametrize("mining", MININGS)
def test_triplets_have_right_gradients_and_stay_finite(mining: Mining) -> None:
    audio, visual = (x.requires_grad_() for x in _features(b=1, n=4))
    assert torch.autograd.gradcheck(
        lambda a, v: triplet_loss(a, v, margin=2.0, mining=mining), (audio, visual)
    )
    equal = torch.ones(1, 4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(triplet_loss(equal, equal, mining=mining), equal)
    assert bool(torch.isfinite(gradient).all())
    half = [x.detach().bfloat16() for x in (audio, visual)]
    assert bool(torch.isfinite(triplet_loss(*half, mining=mining)))


def test_triplets_need_false_partners_and_frame_numbers() -> None:
    audio, visual = _features()
    with pytest.raises(ShapeError, match="others 9 to any number of frames away, got none"):
        triplet_loss(audio, visual, torch.arange(5).expand(2, 5), min_gap=9)
    with pytest.raises(ShapeError, match="others 3 to 2 frames away, got none"):
        triplet_loss(audio, visual, torch.arange(5).expand(2, 5), min_gap=3, max_gap=2)
    with pytest.raises(ShapeError, match=r"max_gap 4 needs frame_index \(2, 5\), got None"):
        triplet_loss(audio, visual, max_gap=4)
    with pytest.raises(ShapeError, match="one video a row"):
        triplet_loss(audio[0], visual[0])
