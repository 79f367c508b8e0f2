from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.losses.sync import SampledInfoNCE, av_sync_loss, av_sync_terms, sampled_info_nce
from tests.oracles import av_sync


def rows(seed: int = 0, runs: int = 3, windows: int = 6, dim: int = 5) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, runs, windows, dim, generator=random)
    return first, second


@pytest.mark.parametrize("from_others", [False, True])
@pytest.mark.parametrize(("scale", "min_gap"), [(1.0, 1), (14.3, 3)])
def test_all_candidates_are_those_of_the_plain_loop(
    from_others: bool, scale: float, min_gap: int
) -> None:
    audio, points = rows()
    options = {"from_others": from_others, "scale": scale, "min_gap": min_gap}
    found = sampled_info_nce(audio, points, **options)  # type: ignore[arg-type]  # one of each type
    expected = av_sync.info_nce_of_all(audio, points, **options)  # type: ignore[arg-type]  # as above
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_floor_of_the_bare_cosine_and_chance() -> None:
    """With N = 12, ln(1 + 12 e^-2) is the best there is, and ln 13 chance (reference-facts 6.4)."""
    audio = torch.zeros(1, 13, 2)
    audio[..., 0] = 1.0
    points = -audio
    points[:, 4, 0] = 1.0
    # Only window 4 agrees with its sound; the others see it and eleven like their own.
    other = -math.log(math.exp(-1) / (12 * math.exp(-1) + math.e))
    expected = (math.log(1 + 12 * math.exp(-2)) + 12 * other) / 13
    assert float(sampled_info_nce(audio, points, 12)) == pytest.approx(expected, rel=1e-6)
    for others in (False, True):
        same = torch.ones(5, 13, 3)
        found = float(sampled_info_nce(same, same, 12, from_others=others, scale=30.0))
        assert found == pytest.approx(math.log(13), rel=1e-6)


def marked(runs: int, windows: int) -> tuple[Tensor, Tensor]:
    """Anchors that look at every candidate through a dimension of its own."""
    count = runs * windows
    points = torch.eye(count).reshape(runs, windows, count)
    return torch.ones(runs, windows, count, requires_grad=True), points


@pytest.mark.parametrize(
    ("from_others", "min_gap", "count"), [(False, 1, 4), (False, 3, 3), (True, 1, 7)]
)
def test_draws_are_distinct_and_allowed(from_others: bool, min_gap: int, count: int) -> None:
    runs, windows = 3, 8
    audio, points = marked(runs, windows)
    seen = torch.zeros(runs, windows, runs, windows)
    for seed in range(40):
        random = torch.Generator().manual_seed(seed)
        loss = sampled_info_nce(
            audio, points, count, from_others=from_others, min_gap=min_gap, generator=random
        )
        (slope,) = torch.autograd.grad(loss, audio)
        # The true candidate pulls, the drawn ones push, and the many others lie between.
        middle, top = slope.median(dim=-1, keepdim=True)[0], slope.amax(dim=-1, keepdim=True)
        drawn = (slope > (middle + top) / 2).unflatten(-1, (runs, windows))
        assert drawn.sum(dim=(-2, -1)).eq(count).all()
        seen += drawn
    for b in range(runs):
        for t in range(windows):
            for c in range(runs):
                for u in range(windows):
                    may = c != b if from_others else c == b and abs(u - t) >= min_gap
                    # Every one that may be drawn is, in 40 draws.
                    assert bool(seen[b, t, c, u] > 0) is may


def test_draws_follow_the_generator() -> None:
    audio, points = rows(windows=9)
    found = [
        float(sampled_info_nce(audio, points, 3, generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]
    torch.manual_seed(1)
    assert float(sampled_info_nce(audio, points, 3)) == found[0]


def test_the_mean_of_all_draws_is_fair() -> None:
    """With one false candidate, the expectation is the mean over all of them."""
    audio, points = rows(runs=1, windows=4)
    cosines = (F.normalize(audio, dim=-1) @ F.normalize(points, dim=-1).transpose(1, 2))[0]
    pairs = [
        math.log(1 + math.exp(float(cosines[t, u] - cosines[t, t])))
        for t in range(4)
        for u in range(4)
        if t != u
    ]
    many = (audio.expand(3000, -1, -1), points.expand(3000, -1, -1))
    random = torch.Generator().manual_seed(0)
    found = float(sampled_info_nce(*many, 1, generator=random))
    assert found == pytest.approx(sum(pairs) / len(pairs), abs=0.01)


@pytest.mark.parametrize("negatives", [None, 3])
def test_gradients_reach_everything(negatives: int | None) -> None:
    audio, points = (x.double().requires_grad_() for x in rows(runs=2))
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def loss(a: Tensor, x: Tensor, s: Tensor) -> Tensor:
        random = torch.Generator().manual_seed(0)
        return sampled_info_nce(a, x, negatives, scale=s, min_gap=2, generator=random)

    assert torch.autograd.gradcheck(loss, (audio, points, scale))
    assert sampled_info_nce(audio.bfloat16(), points.bfloat16()).dtype == torch.float32


def test_wrong_numbers_are_refused() -> None:
    audio, points = rows()
    with pytest.raises(ShapeError, match="at least 6 false candidates for each anchor, got 5"):
        sampled_info_nce(audio, points, 6)
    with pytest.raises(ShapeError, match="at least 13 false candidates for each anchor, got 12"):
        sampled_info_nce(audio, points, 13, from_others=True)
    with pytest.raises(ShapeError, match="at least 1 false candidates for each anchor, got 0"):
        sampled_info_nce(audio[:1], points[:1], from_others=True)
    with pytest.raises(ShapeError, match="one shape and a gap of at least 1"):
        sampled_info_nce(audio, points[:, 1:])
    with pytest.raises(ShapeError, match="and 0; keep one run a row"):
        sampled_info_nce(audio, points, min_gap=0)


def test_terms_are_those_of_the_plain_loop() -> None:
    levels = [rows(seed, windows=count) for seed, count in enumerate((7, 3, 1))]
    expected = av_sync.sync_terms(levels)
    assert av_sync_terms(levels).tolist() == pytest.approx(expected, rel=1e-5)
    assert float(av_sync_loss(levels)) == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert float(av_sync_loss(levels, "sum")) == pytest.approx(sum(expected), rel=1e-5)
    alone = {"mean": expected[1], "sum": expected[1], "share": expected[1] / 3}
    for reduction, value in alone.items():
        found = av_sync_loss(levels, reduction, [1])  # type: ignore[arg-type]  # its three values
        assert float(found) == pytest.approx(value, rel=1e-5)


def test_in_step_is_minus_one_and_opposite_one() -> None:
    points, _ = rows()
    assert float(av_sync_loss([(points, 3 * points)] * 4)) == pytest.approx(-1.0)
    assert float(av_sync_loss([(points, 3 * points)] * 4, "sum")) == pytest.approx(-4.0)
    assert float(av_sync_loss([(points, -points)])) == pytest.approx(1.0)


def test_gradients_of_the_loss() -> None:
    levels = [tuple(x.double().requires_grad_() for x in rows(seed, 1, 2)) for seed in (0, 1)]

    def loss(*parts: Tensor) -> Tensor:
        return av_sync_loss([(parts[0], parts[1]), (parts[2], parts[3])])

    assert torch.autograd.gradcheck(loss, (*levels[0], *levels[1]))


def test_levels_that_do_not_belong_together_are_refused() -> None:
    points, audio = rows()
    with pytest.raises(ShapeError, match="on at least one level, got none"):
        av_sync_loss([])
    with pytest.raises(ShapeError, match=r"\(3, 6, 5\), \(3, 5, 5\)"):
        av_sync_loss([(points, audio), (points, audio[:, 1:])])
    with pytest.raises(ShapeError, match="long enough for the levels"):
        av_sync_loss([(points[:, :0], audio[:, :0])])


def test_the_module_draws_in_training_and_takes_all_in_evaluation() -> None:
    audio, points = rows(windows=9)
    made = SampledInfoNCE(negatives=2, min_gap=3, temperature=0.5)
    torch.manual_seed(4)
    trained = made(audio, points)
    random = torch.Generator().manual_seed(4)
    expected = sampled_info_nce(audio, points, 2, scale=2.0, min_gap=3, generator=random)
    assert torch.equal(trained, expected)
    assert list(made.parameters()) == []
    # Neither draws nor the other runs of the batch matter to what is compared between epochs.
    for one in (made.eval(), SampledInfoNCE(48, from_others=True, temperature=0.5).eval()):
        assert torch.equal(one(audio, points), sampled_info_nce(audio, points, scale=2.0))
        alone = torch.stack([one(audio[b : b + 1], points[b : b + 1]) for b in range(3)])
        torch.testing.assert_close(alone.mean(), one(audio, points))


def test_a_learned_scale_starts_at_the_temperature_and_is_limited() -> None:
    audio, points = rows()
    made = SampledInfoNCE(negatives=4, temperature=0.07, learn_temperature=True)
    assert made.scale.item() == pytest.approx(1 / 0.07)
    made(audio, points).backward()
    assert made.log_scale is not None
    assert made.log_scale.grad is not None
    with torch.no_grad():
        made.log_scale.fill_(9.0)
    made(audio, points)
    assert made.scale.item() == pytest.approx(100.0)
