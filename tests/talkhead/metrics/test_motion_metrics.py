from __future__ import annotations

import numpy as np
import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.metrics.confidence import normalised_confidence
from talkhead.metrics.diversity import DiversityRatio, diversity_ratio
from talkhead.metrics.fid_dfm import FIDdfm, fid_dfm, fid_dfm_pooled
from talkhead.metrics.fid_fm import FIDfm, FIDfmPooled, fid_fm, fid_fm_pooled
from talkhead.metrics.floor import MotionDistance, halves_floor, takes_floor
from talkhead.metrics.multimodality import Multimodality, multimodality, pairwise_distance
from talkhead.metrics.sequences import standardised
from talkhead.metrics.snd import SND, snd, snd_pooled
from talkhead.metrics.variance import Variance, motion_variance
from tests.oracles.frechet import frechet_sqrtm, pairwise_loop, snd_loop

DISTANCES: list[MotionDistance] = [fid_fm, fid_dfm, snd, fid_fm_pooled, fid_dfm_pooled, snd_pooled]


def motion(clips: int = 4, frames: int = 60, dim: int = 5, seed: int = 0) -> torch.Tensor:
    """Random walks: neighbours are close, as in real motion."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(clips, frames, dim, generator=generator, dtype=torch.float64)
    return steps.cumsum(dim=1) / 5


def padded(x: torch.Tensor, extra: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Garbage frames behind the clip, and the mask that hides them."""
    junk = torch.full((x.shape[0], extra, x.shape[2]), 1e3, dtype=x.dtype)
    valid = torch.arange(x.shape[1] + extra) < x.shape[1]
    return torch.cat([x, junk], dim=1), valid.expand(x.shape[0], -1)


def test_snd_agrees_with_scipy_clip_by_clip() -> None:
    ours, real = motion(seed=1), motion(seed=2)
    got = snd(ours, real)
    expected = [snd_loop(g.numpy(), r.numpy()) for g, r in zip(ours, real, strict=True)]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-7)
    np.testing.assert_allclose(got, fid_fm(ours, real) + fid_dfm(ours, real))


def test_shift_moves_fid_fm_by_its_square_and_fid_dfm_not_at_all() -> None:
    real = motion()
    assert fid_fm(real + 2.0, real).tolist() == pytest.approx([4.0 * 5] * 4)
    assert fid_dfm(real + 2.0, real).tolist() == pytest.approx([0.0] * 4, abs=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_real_motion_is_at_distance_zero(distance: MotionDistance) -> None:
    found = distance(motion(), motion())
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-9, rtol=0.0)


def test_a_steady_drift_costs_its_squared_speed_in_the_differences() -> None:
    real, frames = motion(), torch.arange(60.0, dtype=torch.float64)[:, None]
    drifting = real + frames * torch.tensor([0.3, -0.4, 0.0, 0.0, 1.2])
    assert fid_dfm(drifting, real).tolist() == pytest.approx([1.69] * 4)
    assert fid_dfm_pooled(drifting, real).item() == pytest.approx(1.69)
    shifted = real + 2.0
    assert snd(shifted, real).tolist() == pytest.approx([20.0] * 4)
    assert snd_pooled(shifted, real).item() == pytest.approx(20.0)


@pytest.mark.parametrize("gain", [0.0, 0.7, 2.0])
def test_larger_or_smaller_motion_costs_the_square_of_the_gain(gain: float) -> None:
    """Means and deviations ``gain`` times as large: ``(gain - 1)^2 (|mean|^2 + variance)``."""
    real = motion()
    steps = real.diff(dim=1)

    def cost(rows: torch.Tensor) -> float:
        return float((gain - 1) ** 2 * (rows.mean(0).square().sum() + rows.var(0).sum()))

    still, moving = [cost(clip) for clip in real], [cost(clip) for clip in steps]
    assert fid_fm(gain * real, real).tolist() == pytest.approx(still)
    assert fid_dfm(gain * real, real).tolist() == pytest.approx(moving)
    both = [a + b for a, b in zip(still, moving, strict=True)]
    assert snd(gain * real, real).tolist() == pytest.approx(both)
    pooled = [cost(side.reshape(-1, 5)) for side in (real, steps)]
    assert fid_fm_pooled(gain * real, real).item() == pytest.approx(pooled[0])
    assert fid_dfm_pooled(gain * real, real).item() == pytest.approx(pooled[1])
    assert snd_pooled(gain * real, real).item() == pytest.approx(sum(pooled))


def test_jitter_shows_in_the_differences() -> None:
    real = motion()
    jitter = real + 0.3 * torch.randn(real.shape, generator=torch.Generator().manual_seed(3))
    assert (fid_dfm(jitter, real) > fid_fm(jitter, real)).all()


def test_pooled_variants_use_one_gaussian() -> None:
    ours, real = motion(seed=1), motion(seed=2)
    expected = frechet_sqrtm(ours.reshape(-1, 5).numpy(), real.reshape(-1, 5).numpy())
    assert fid_fm_pooled(ours, real).item() == pytest.approx(expected, rel=1e-7)
    steps = [x.diff(dim=1).reshape(-1, 5).numpy() for x in (ours, real)]
    assert fid_dfm_pooled(ours, real).item() == pytest.approx(frechet_sqrtm(*steps), rel=1e-7)
    both = fid_fm_pooled(ours, real) + fid_dfm_pooled(ours, real)
    assert snd_pooled(ours, real).item() == pytest.approx(both.item())
    metric = FIDfmPooled(5)
    metric.update(ours, real=False)
    metric.update(real, real=True)
    assert metric.compute().item() == pytest.approx(expected, rel=1e-7)


def test_padding_never_counts() -> None:
    ours, real = motion(seed=1), motion(seed=2)
    (long, valid), (long_real, real_valid) = padded(ours), padded(real, 4)
    for distance in (fid_fm, fid_dfm, snd, fid_fm_pooled, fid_dfm_pooled):
        got = distance(long, long_real, valid, real_valid)
        torch.testing.assert_close(got, distance(ours, real))
    torch.testing.assert_close(motion_variance(long, valid), motion_variance(ours))
    torch.testing.assert_close(pairwise_distance(long, valid[0]), pairwise_distance(ours))


def test_difference_across_a_hole_does_not_count() -> None:
    real = motion(clips=1)
    broken = real.clone()
    broken[:, 30:] += 50.0
    valid = torch.ones(1, 60, dtype=torch.bool)
    valid[:, 30] = False
    assert fid_dfm(broken, real, valid).item() == pytest.approx(0.0, abs=1e-9)


def test_standardisation_makes_units_irrelevant() -> None:
    ours, real = motion(seed=1), motion(seed=2)
    unit = torch.tensor([1.0, 1000.0, 0.01, 57.3, 1.0], dtype=torch.float64)
    flat = real.reshape(-1, 5)
    plain = snd(ours, real, standard=(flat.mean(0), flat.std(0)))
    scaled_stats = ((flat * unit).mean(0), (flat * unit).std(0))
    torch.testing.assert_close(plain, snd(ours * unit, real * unit, standard=scaled_stats))


def test_an_entry_that_never_moved_in_training_is_not_blown_up() -> None:
    out = standardised(torch.ones(3, 2), (torch.zeros(2), torch.tensor([2.0, 0.0])))
    assert out.tolist() == [[0.5, 1.0]] * 3
    with pytest.raises(ShapeError, match="motion_stats"):
        standardised(torch.ones(3, 2), (torch.zeros(3), torch.ones(3)))


def test_variance_by_hand() -> None:
    clip = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    assert motion_variance(clip).tolist() == [2.0]
    assert motion_variance(clip, reduce="sum").tolist() == [4.0]
    with pytest.raises(ShapeError, match="at least 2 valid frames"):
        motion_variance(clip, torch.tensor([True, False, False]))


def test_variance_grows_with_the_square_of_the_motion_and_is_one_of_its_own_spread() -> None:
    real = motion()
    assert motion_variance(real[:, :1].expand(-1, 9, -1)).tolist() == [0.0] * 4
    torch.testing.assert_close(motion_variance(3.0 * real + 7.0), 9.0 * motion_variance(real))
    own = (real[0].mean(0), real[0].std(0))
    assert motion_variance(real[0], standard=own).tolist() == pytest.approx([1.0])
    assert motion_variance(0.5 * real[0], standard=own).tolist() == pytest.approx([0.25])


def test_metric_classes_equal_functions_for_any_batch_split_and_repeat() -> None:
    ours, real = motion(seed=1), motion(seed=2)
    names = ["a", "b", "c", "d"]
    for metric, function in ((FIDfm(), fid_fm), (FIDdfm(), fid_dfm), (SND(), snd)):
        metric.update(ours[2:], real[2:], clip=names[2:])
        metric.update(ours[:3], real[:3], clip=names[:3])  # "c" twice, as a padding sampler does
        expected = function(ours, real).mean().item()
        assert metric.compute().item() == pytest.approx(expected, rel=1e-12)
    variance = Variance()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert variance.compute().isnan()
    variance.reset()
    variance.update(ours)
    assert variance.compute().item() == pytest.approx(motion_variance(ours).mean().item())
    with pytest.raises(ShapeError, match="4 clip names"):
        variance.update(ours, clip=["only"])


def test_pairwise_distance_equals_nested_loops() -> None:
    takes = motion(clips=3, frames=7)
    assert pairwise_distance(takes).item() == pytest.approx(pairwise_loop(takes.numpy()))


def test_repeats_equally_far_from_each_other_by_hand() -> None:
    """Ten repeats that stay on ten axes are sqrt(2) apart, and one that meets itself counts 0."""
    takes = torch.eye(10)[:, None].expand(-1, 6, -1)
    assert pairwise_distance(takes).item() == pytest.approx(2**0.5)
    draws = torch.Generator().manual_seed(4)
    first, second = (torch.randperm(10, generator=draws)[:5] for _ in range(2))
    met = int((first != second).sum())
    for size in (1.0, 3.0):
        found = multimodality(
            size * takes, pairs=5, generator=torch.Generator().manual_seed(4)
        ).item()
        assert found == pytest.approx(size * 2**0.5 * met / 5)


def test_multimodality_expectation_and_limits() -> None:
    takes = motion(clips=6)
    assert multimodality(takes[:1].expand(6, -1, -1)).item() == 0.0
    generator = torch.Generator().manual_seed(0)
    draws = [multimodality(takes, pairs=3, generator=generator).item() for _ in range(800)]
    # A repeat meets itself once in K draws.
    expected = pairwise_distance(takes).item() * 5 / 6
    assert np.mean(draws) == pytest.approx(expected, rel=0.05)
    with pytest.raises(ShapeError, match="at least 2 repeats"):
        multimodality(takes[:1])


def test_multimodality_metric_does_not_depend_on_batches() -> None:
    takes = torch.stack([motion(clips=5, seed=s) for s in range(3)])
    whole, parts = Multimodality(pairs=2), Multimodality(pairs=2)
    whole.update(takes, clip=["a", "b", "c"])
    for c in (2, 0, 1):
        parts.update(takes[c], clip=["abc"[c]])
    assert whole.compute() == parts.compute()


def test_diversity_ratio_scales_with_the_spread() -> None:
    takes = motion(clips=4)
    centre = takes.mean(0)
    narrow = centre + 0.25 * (takes - centre)
    assert diversity_ratio(takes, takes).item() == pytest.approx(1.0)
    assert diversity_ratio(narrow, takes).item() == pytest.approx(0.25)
    metric = DiversityRatio()
    metric.update(narrow, takes, clip=["a"])
    assert metric.compute().item() == pytest.approx(0.25)


def test_floors_are_above_zero_and_below_wrong_motion() -> None:
    generator = torch.Generator().manual_seed(0)
    takes = torch.randn(4, 400, 5, generator=generator)
    floor = takes_floor(takes)
    assert 0.0 < floor.item() < snd(takes * 2.0, takes).mean().item()
    pairs = [snd(takes[i], takes[j]) for i in range(4) for j in range(i + 1, 4)]
    assert floor.item() == pytest.approx(torch.cat(pairs).mean().item())
    halves = halves_floor(takes, distance=fid_fm)
    torch.testing.assert_close(halves, fid_fm(takes[:, :200], takes[:, 200:]))
    with pytest.raises(ShapeError, match="at least 6 valid frames"):
        halves_floor(takes[:, :4])
    with pytest.raises(ShapeError, match="--takes 2"):
        takes_floor(takes[0])


def test_shapes_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ShapeError, match="as many clips"):
        snd(torch.zeros(2, 9, 3), torch.zeros(3, 9, 3))
    with pytest.raises(ShapeError, match="mask"):
        snd(torch.zeros(2, 9, 3), torch.zeros(2, 9, 3), torch.ones(2, 8, dtype=torch.bool))
    for distance in DISTANCES:
        with pytest.raises(ShapeError, match="as many clips"):
            distance(torch.zeros(2, 9, 3), torch.zeros(2, 9, 4))
        with pytest.raises(ShapeError, match=r"\(T, D\) or \(B, T, D\)"):
            distance(torch.zeros(9), torch.zeros(9))
        with pytest.raises(ShapeError, match="at least 2 rows"):
            distance(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.tensor([[True, False]]))
    with pytest.raises(ShapeError, match="one flag a frame"):
        multimodality(torch.zeros(3, 9, 2), torch.ones(8))
    with pytest.raises(ShapeError, match="only the number of takes may differ"):
        diversity_ratio(torch.zeros(2, 3, 9, 2), torch.zeros(1, 3, 9, 2))


def test_normalised_confidence_reproduces_the_papers_rows() -> None:
    assert round(normalised_confidence(9.23, 7.80), 2) == 0.18
    assert round(normalised_confidence(2.03, 7.35), 2) == 0.72
    assert normalised_confidence(7.35, 7.35) == 0.0
    # As far above as below, and twice as far off.
    assert normalised_confidence(6.0, 4.0) == normalised_confidence(2.0, 4.0) == 0.5
    assert normalised_confidence(8.0, 4.0) == 1.0
    with pytest.raises(ValueError, match="positive confidence"):
        normalised_confidence(1.0, 0.0)
