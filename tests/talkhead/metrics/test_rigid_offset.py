from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.metrics.retrieval import pair_accuracy
from talkhead.metrics.rigid_offset import (
    Edges,
    Pair,
    RigidOffset,
    chance_offset,
    frame_ms,
    rigid_offsets,
)
from tests.oracles.sync import balanced_offset

WINDOWS = (76, 36, 16)
RUNS = [f"speaker{i}/clip@{80 * i}" for i in range(7)]
EVERY: tuple[Edges, ...] = ("drop", "zeros", "balanced")


def content(*shape: int, seed: int = 0) -> Tensor:
    """Unit vectors."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def run(runs: int, late: int = 0, seed: int = 0, windows: tuple[int, ...] = WINDOWS) -> list[Pair]:
    """Points and sound that comes ``late`` frames of the level late."""
    out = []
    for level, count in enumerate(windows):
        whole = content(runs, count + 40, 32, seed=seed + level)
        out.append((whole[:, 20 : 20 + count], whole[:, 20 - late : 20 - late + count]))
    return out


def noise(runs: int, seed: int) -> list[Pair]:
    return [
        (content(runs, n, 32, seed=seed + i), content(runs, n, 32, seed=seed + i + 50))
        for i, n in enumerate(WINDOWS)
    ]


@pytest.mark.parametrize("edges", EVERY)
def test_perfect_sync_has_no_offset_and_full_confidence(edges: Edges) -> None:
    found = rigid_offsets(run(2), edges=edges)
    assert found.offset.tolist() == [[0, 0, 0]] * 2
    assert (found.confidence > 0.5).all()


@pytest.mark.parametrize("edges", EVERY)
@pytest.mark.parametrize("late", [-9, -1, 1, 4, 9])
def test_late_sound_is_found_in_frames_of_every_level(late: int, edges: Edges) -> None:
    assert rigid_offsets(run(3, late), edges=edges).offset.tolist() == [[late] * 3] * 3


def test_balanced_equals_the_plain_loop() -> None:
    points, audio = noise(1, seed=3)[2]
    assert int(rigid_offsets([(points, audio)], edges="balanced").offset) == balanced_offset(
        points[0], audio[0], 15
    )


def test_where_noise_is_found_depends_on_the_ends() -> None:
    """Over many unrelated runs: evenly when balanced, at the outer offsets when dropped."""
    unrelated = noise(600, seed=1)
    mean = {e: rigid_offsets(unrelated, edges=e).offset.abs().double().mean(0) for e in EVERY}
    # Even guesses have a standard error of 4.5 / sqrt(600) = 0.18.
    assert mean["balanced"].tolist() == pytest.approx([chance_offset()] * 3, abs=0.75)
    assert mean["drop"][2] > 10
    assert mean["drop"][0] < mean["drop"][1] < mean["drop"][2]
    # Zeros are nearer than the sqrt(2) between unrelated unit vectors.
    assert (mean["zeros"] > 14).all()


def test_chance_is_the_mean_of_even_guesses() -> None:
    assert chance_offset(15) == pytest.approx(sum(abs(d) for d in range(-15, 16)) / 31)
    assert chance_offset(1) == pytest.approx(2 / 3)
    assert [frame_ms(level) for level in range(3)] == [40, 80, 160]


def test_the_metric_is_the_mean_of_absolute_values_in_frames_and_milliseconds() -> None:
    metric = RigidOffset()
    for late in (-2, 4, 0):
        metric.update(run(1, late, seed=late + 9), [f"run{late}"])
    out = {name: value.item() for name, value in metric.compute().items()}
    spread = math.sqrt(((2 - 2) ** 2 + (4 - 2) ** 2 + (0 - 2) ** 2) / 3)
    for scale, ms in (("200ms", 40), ("400ms", 80), ("800ms", 160)):
        assert out[f"offset_{scale}"] == pytest.approx(2.0)
        assert out[f"offset_in_ms_{scale}"] == pytest.approx(2.0 * ms)
        assert out[f"offset_std_{scale}"] == pytest.approx(spread)
        assert out[f"confidence_{scale}"] > 0.5
    assert len(out) == 15


def test_pair_accuracy_is_the_mean_over_runs() -> None:
    metric, levels = RigidOffset(), noise(3, seed=2)
    metric.update(levels)
    out = metric.compute()
    for scale, (points, audio) in zip(("200ms", "400ms", "800ms"), levels, strict=True):
        expected = pair_accuracy(audio, points).mean()
        torch.testing.assert_close(out[f"pair_accuracy_{scale}"], expected)
    perfect = RigidOffset()
    perfect.update(run(2))
    assert perfect.compute()["pair_accuracy_800ms"] == 1.0


def test_every_level_may_have_a_largest_offset_of_its_own() -> None:
    levels = run(2, late=3)
    assert rigid_offsets(levels, max_shift=(15, 3, 2)).offset[:, :2].tolist() == [[3, 3]] * 2
    for reach in (2, 15):
        alone = rigid_offsets(levels[2:], max_shift=reach)
        both = rigid_offsets(levels[1:], max_shift=(9, reach))
        assert torch.equal(both.offset[:, 1:], alone.offset)
        assert torch.equal(both.confidence[:, 1:], alone.confidence)
    metric = RigidOffset(max_shift=[4, 3, 2])
    metric.update(noise(9, seed=1))
    assert metric.distinct()[:, :3].abs().amax(dim=0).le(torch.tensor([4, 3, 2])).all()


def test_batches_names_and_repeats_change_nothing() -> None:
    levels = noise(7, seed=5)
    whole, split = RigidOffset(edges="balanced"), RigidOffset(edges="balanced")
    whole.update(levels, RUNS)
    for rows in ([6, 2], [0, 2], [5, 1, 4, 3]):
        split.update([(p[rows], a[rows]) for p, a in levels], [RUNS[i] for i in rows])
    expected = {k: v.item() for k, v in whole.compute().items()}
    assert {k: v.item() for k, v in split.compute().items()} == expected
    with pytest.raises(ShapeError, match="expected 7 clip names, got 1"):
        whole.update(levels, RUNS[:1])


def test_no_run_is_no_number() -> None:
    with warnings.catch_warnings():
        # Computing without an update is the case under test.
        warnings.simplefilter("ignore", UserWarning)
        out = RigidOffset(levels=2).compute()
    assert len(out) == 10
    assert all(math.isnan(value.item()) for value in out.values())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least one level"):
        rigid_offsets([])
    with pytest.raises(ShapeError, match=r"with T > 15, got \(1, 15, 32\)"):
        rigid_offsets(run(1, windows=(15,)))
    with pytest.raises(ShapeError, match="embeddings of 3 levels, got 2"):
        RigidOffset().update(run(1)[:2])
    with pytest.raises(ShapeError, match=r"as many runs on every level, got \[2, 2, 1\]"):
        rigid_offsets([*run(2)[:2], run(1)[2]])
    with pytest.raises(ShapeError, match=r"one max_shift for each of 3 levels, got \[15, 15\]"):
        RigidOffset(max_shift=(15, 15))
    with pytest.raises(ConfigError, match="one of drop, zeros, balanced, got 'mirror'"):
        RigidOffset(edges="mirror")  # type: ignore[arg-type]  # the case under test
