from __future__ import annotations

import math
import statistics
import warnings

import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError, SpecError
from talkhead.metrics.offset import estimate_offset, offset_scores
from talkhead.metrics.sync_scores import (
    SyncOffsetAccuracy,
    SyncScore,
    sync_distances,
    sync_scores,
)
from tests.oracles.sync import mean_distances, scores

CLIPS = [f"speaker{i}/clip" for i in range(7)]


def embeddings(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    # One dimension, three windows, one shift each way: zeros stand in at the ends.
    visual = torch.tensor([[1.0], [4.0], [6.0]])
    audio = torch.tensor([[3.0], [5.0], [6.0]])
    found = sync_distances(visual, audio, max_shift=1)
    by_hand = [(1 + 1 + 1) / 3, (2 + 1 + 0) / 3, (4 + 2 + 6) / 3]
    assert found[0].tolist() == pytest.approx(by_hand, abs=1e-5)
    result = sync_scores(visual, audio, max_shift=1)
    # The shifts -1 and 0 tie but for the 1e-6; the median of 1, 1 and 4 is 1.
    assert result.lse_d.item() == pytest.approx(1.0, abs=1e-5)
    assert result.lse_c.item() == pytest.approx(0.0, abs=1e-5)


def test_the_example_of_the_docstring() -> None:
    assert scores([5.0, 2.0, 6.0]) == (0, 2.0, 3.0)
    visual, audio = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    result = sync_scores(visual, audio, max_shift=1)
    assert result.lse_d.item() == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize(("windows", "max_shift"), [(1, 2), (9, 4), (40, 15)])
def test_equals_the_plain_loop(windows: int, max_shift: int) -> None:
    visual, audio = embeddings(windows, 6), embeddings(windows, 6, seed=1)
    slow = mean_distances(visual, audio, max_shift)
    assert sync_distances(visual, audio, max_shift=max_shift)[0].tolist() == pytest.approx(slow)
    offset, lse_d, lse_c = scores(slow)
    result = sync_scores(visual, audio, max_shift=max_shift)
    assert result.offset.tolist() == [offset]
    assert result.lse_d.item() == pytest.approx(lse_d)
    assert result.lse_c.item() == pytest.approx(lse_c)


def test_perfect_sync_is_as_close_as_can_be() -> None:
    visual = embeddings(60, 16)
    result = sync_scores(visual, visual)
    assert result.offset.item() == 0
    assert result.lse_d.item() == pytest.approx(1e-6 * math.sqrt(16))
    # Unrelated unit Gaussians are sqrt(2 D) apart on average (a little less: a concave root).
    assert 0.9 * math.sqrt(32) < result.lse_c.item() < math.sqrt(32)


@pytest.mark.parametrize("late", [-15, -4, -1, 0, 1, 7, 15])
def test_late_sound_has_a_negative_offset(late: int) -> None:
    content = embeddings(160, 8)
    visual, audio = content[20:140], content[20 - late : 140 - late]
    result = sync_scores(visual, audio)
    assert result.offset.item() == -late
    # The suite's own measure has the opposite sign: by how much the sound lags.
    assert estimate_offset(offset_scores(audio, visual))[0].item() == late


@pytest.mark.parametrize("late", [-2, 0, 1, 3])
def test_scores_of_orthogonal_windows_by_hand(late: int) -> None:
    """Unrelated unit vectors are sqrt(2) apart, the zeros beyond the ends 1."""
    windows, reach = 12, 3
    content = torch.eye(windows + 2 * reach, dtype=torch.float64)
    visual, audio = content[reach:-reach], content[reach - late : reach - late + windows]
    distances = [
        (abs(s) + (0.0 if s == late else 2**0.5) * (windows - abs(s))) / windows
        for s in range(-reach, reach + 1)
    ]
    nearest, median = abs(late) / windows, statistics.median(distances)
    assert sync_distances(visual, audio, max_shift=reach)[0].tolist() == pytest.approx(
        distances, abs=1e-5
    )
    for scale in (1.0, 3.0):
        result = sync_scores(scale * visual, scale * audio, max_shift=reach)
        assert result.offset.item() == -late
        assert result.lse_d.item() == pytest.approx(scale * nearest, abs=1e-4)
        assert result.lse_c.item() == pytest.approx(scale * (median - nearest), abs=1e-4)


def test_what_only_the_pictures_hold_adds_to_the_distance_and_takes_confidence() -> None:
    windows, reach, strange = 12, 3, 0.75
    visual = torch.cat([torch.eye(windows), torch.full((windows, 1), strange)], dim=1).double()
    audio = torch.cat([torch.eye(windows), torch.zeros(windows, 1)], dim=1).double()
    result = sync_scores(visual, audio, max_shift=reach)
    # Of the shifts 0, -1, 1, -2, 2, -3 and 3, the median distance is that of two frames.
    median = (2 * (1 + strange**2) ** 0.5 + 10 * (2 + strange**2) ** 0.5) / windows
    assert result.offset.item() == 0
    assert result.lse_d.item() == pytest.approx(strange, abs=1e-5)
    assert result.lse_c.item() == pytest.approx(median - strange, abs=1e-5)


def test_an_offset_of_minus_one_is_sound_found_one_window_further_on() -> None:
    visual = embeddings(80, 8)
    audio = torch.cat([torch.zeros(1, 8), visual[:-1]])
    assert torch.equal(audio[5], visual[4])
    assert sync_scores(visual, audio).offset.item() == -1


def test_scale_rotation_and_order_of_dimensions() -> None:
    visual, audio = embeddings(50, 8).double(), embeddings(50, 8, seed=1).double()
    base = sync_distances(visual, audio)
    torch.testing.assert_close(sync_distances(3 * visual, 3 * audio), 3 * base, atol=1e-4, rtol=0)
    turn = torch.linalg.qr(embeddings(8, 8, seed=2).double()).Q
    turned = sync_distances(visual @ turn, audio @ turn)
    torch.testing.assert_close(turned, base, atol=1e-4, rtol=0)
    assert torch.equal(sync_distances(visual.flip(1), audio.flip(1))[0].argmin(), base[0].argmin())


def test_zero_padding_favours_outer_shifts_of_long_embeddings() -> None:
    """The known bias: with sound unlike the pictures, silence is nearest, so the offset is extreme."""
    visual, audio = torch.ones(20, 4), -torch.ones(20, 4)
    result = sync_scores(visual, audio)
    assert result.offset.item() == 15
    # At a shift of 15 of 20 windows, 15 meet zeros (distance 2) and 5 their opposite (distance 4).
    assert result.lse_d.item() == pytest.approx((15 * 2 + 5 * 4) / 20, abs=1e-5)


def test_batches_are_scored_clip_by_clip() -> None:
    visual, audio = embeddings(4, 30, 5), embeddings(4, 30, 5, seed=1)
    together = sync_distances(visual, audio)
    for b in range(4):
        torch.testing.assert_close(sync_distances(visual[b], audio[b])[0], together[b])


@pytest.mark.parametrize(
    ("visual", "audio"),
    [
        ((8, 4), (9, 4)),
        ((8, 4), (8, 5)),
        ((0, 4), (0, 4)),
        ((1, 2, 8, 4), (1, 2, 8, 4)),
        ((4,), (4,)),
    ],
)
def test_other_shapes_are_refused(visual: tuple[int, ...], audio: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected visual and audio embeddings .* got .*; score"):
        sync_scores(torch.zeros(visual), torch.zeros(audio))


def test_the_metric_is_the_mean_over_clips_with_absolute_offsets() -> None:
    content = embeddings(2, 100, 8)
    metric = SyncScore()
    # Two frames late and two early: the absolute value comes before the mean.
    metric.update(content[:, 10:90], torch.stack([content[0, 8:88], content[1, 12:92]]))
    metric.update(content[:1, 10:90], content[:1, 10:90])
    out = metric.compute()
    assert out["absolute_offset"].item() == pytest.approx(4 / 3)
    assert out["within"].item() == pytest.approx(1 / 3)
    parts = [
        sync_scores(content[0, 10:90], content[0, 8:88]),
        sync_scores(content[1, 10:90], content[1, 12:92]),
        sync_scores(content[0, 10:90], content[0, 10:90]),
    ]
    for name in ("lse_d", "lse_c"):
        mean = sum(getattr(part, name).item() for part in parts) / 3
        assert out[name].item() == pytest.approx(mean)
    assert "n_c" not in out


def test_relative_confidence_uses_the_mean_over_clips() -> None:
    visual, audio = embeddings(3, 40, 8), embeddings(3, 40, 8, seed=1)
    plain = SyncScore()
    plain.update(visual, audio)
    confidence = plain.compute()["lse_c"].item()
    relative = SyncScore(training_confidence=2.0 * confidence)
    relative.update(visual, audio)
    assert relative.compute()["n_c"].item() == pytest.approx(0.5)
    wrong = SyncScore(training_confidence=0.0)
    wrong.update(visual, audio)
    with pytest.raises(SpecError, match="positive confidence"):
        wrong.compute()


def test_no_clip_is_no_number() -> None:
    with warnings.catch_warnings():
        # Computing without an update is the case under test.
        warnings.simplefilter("ignore", UserWarning)
        out = SyncScore().compute()
    assert all(math.isnan(value.item()) for value in out.values())


def test_a_repeated_clip_counts_once_and_names_must_fit() -> None:
    visual, audio = embeddings(3, 40, 8), embeddings(3, 40, 8, seed=1)
    once, twice = SyncScore(), SyncScore()
    once.update(visual, audio, CLIPS[:3])
    twice.update(visual[:2], audio[:2], CLIPS[:2])
    twice.update(visual[[2, 0]], audio[[2, 0]], [CLIPS[2], CLIPS[0]])
    assert {k: v.item() for k, v in twice.compute().items()} == {
        k: v.item() for k, v in once.compute().items()
    }
    with pytest.raises(ShapeError, match="expected 3 clip names, got 1"):
        once.update(visual, audio, CLIPS[:1])


def test_batch_size_and_order_change_nothing() -> None:
    visual, audio = embeddings(7, 40, 8), embeddings(7, 40, 8, seed=1)
    whole, split = SyncScore(training_confidence=3.0), SyncScore(training_confidence=3.0)
    whole.update(visual, audio, CLIPS)
    for rows in ([6, 2], [0], [5, 1, 4, 3]):
        split.update(visual[rows], audio[rows], [CLIPS[i] for i in rows])
    expected = {k: v.item() for k, v in whole.compute().items()}
    assert {k: v.item() for k, v in split.compute().items()} == expected


def test_offset_accuracy_knows_late_sound_as_positive() -> None:
    content = embeddings(120, 8)
    metric = SyncOffsetAccuracy(tolerance=1)
    for late in range(-10, 11):
        metric.update(
            content[None, 20 - late : 100 - late], content[None, 20:100], torch.tensor([late])
        )
    out = metric.compute()
    assert out["within"].item() == 1.0
    assert out["mean_error"].item() == 0.0
    metric.update(content[None, 20:100], content[None, 20:100], torch.tensor([4]))
    assert metric.compute()["mean_error"].item() == pytest.approx(4 / 22)
    with pytest.raises(ShapeError, match="cut the clips instead"):
        metric.update(
            content[None], content[None], torch.tensor([0]), torch.ones(1, 120, dtype=torch.bool)
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_are_scored_in_double(dtype: torch.dtype) -> None:
    visual, audio = embeddings(30, 8).to(dtype), embeddings(30, 8, seed=1).to(dtype)
    found = sync_distances(visual, audio)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, sync_distances(visual.double(), audio.double()))
