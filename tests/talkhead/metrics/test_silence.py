from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.silence import (
    SilenceMotion,
    mouth_speed,
    silence_motion,
    silent_frames,
)
from talkhead.specs import FPS, SAMPLES_PER_FRAME
from tests.oracles.landmarks import mouth_speed_loop
from tests.talkhead.metrics.landmark_faces import noisy, still


def tone(levels_db: list[float]) -> Tensor:
    """A wave whose frame ``t`` has an RMS of ``levels_db[t]``."""
    phase = torch.arange(SAMPLES_PER_FRAME, dtype=torch.float64) * (
        2 * math.pi * 10 / SAMPLES_PER_FRAME
    )
    frames = [math.sqrt(2.0) * 10 ** (level / 20) * phase.sin() for level in levels_db]
    return torch.cat(frames)


def runs(flags: Tensor) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.int().numpy(), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def chewing(frames: int, step: float = 0.01) -> Tensor:
    """A face whose lower lip moves down by ``step`` outer-eye distances and up again, in turns."""
    track = still(frames)
    track[1::2, 55:60, 1] += 0.25 * step
    return track


CHEWING_SPEED = FPS * 0.01 * (5 * 15 + 15 * 5) / 20**2
"""Five of the 20 points jump a step: mean-free 15/20 of it, and the others 5/20."""


def test_pauses_are_found_at_their_frames() -> None:
    speech, pause, stop = [-20.0, -26.0] * 10, [-50.0] * 8, [-50.0] * 3
    wave = tone([*speech, *pause, *speech, *stop, *speech, *pause])
    assert runs(silent_frames(wave)) == [(20, 28), (71, 79)]
    # Recorded 20 dB quieter, the same frames are silent.
    assert torch.equal(silent_frames(0.1 * wave), silent_frames(wave))
    noise = 10 ** (-40 / 20) * torch.randn(len(wave), generator=torch.Generator().manual_seed(0))
    assert torch.equal(silent_frames(wave + noise), silent_frames(wave))


@pytest.mark.parametrize(("level", "quiet"), [(-48.0, False), (-52.0, True)])
def test_with_clean_pauses_quiet_is_two_fifths_of_the_way_up(level: float, quiet: bool) -> None:
    """From a noise floor of -70 dB to speech at -20 dB, that is -50 dB."""
    wave = tone([-20.0] * 20 + [-70.0] * 10 + [-20.0] * 20 + [level] * 5)
    assert runs(silent_frames(wave)) == [(20, 30), (50, 55)][: 1 + quiet]


@pytest.mark.parametrize(("level", "quiet"), [(-37.0, False), (-39.0, True)])
def test_in_noise_quiet_is_18_db_below_the_speech(level: float, quiet: bool) -> None:
    wave = tone([-20.0] * 40 + [level] * 10)
    assert runs(silent_frames(wave)) == [(40, 50)][: int(quiet)]


def test_speech_without_pause_and_sound_without_speech() -> None:
    assert not silent_frames(tone([-20.0, -25.0, -30.0] * 10)).any()
    assert not silent_frames(tone([-20.0] * 30)).any()
    assert silent_frames(torch.zeros(10 * SAMPLES_PER_FRAME)).all()
    assert silent_frames(tone([-61.0] * 10)).all()


def test_waves_of_one_batch_do_not_know_each_other() -> None:
    waves = torch.stack([tone([-20.0] * 10 + [-55.0] * 10), tone([-40.0] * 20)])
    both = silent_frames(waves)
    assert [runs(row) for row in both] == [[(10, 20)], []]
    longer = torch.cat([waves[0], torch.ones(SAMPLES_PER_FRAME - 1)])
    assert torch.equal(silent_frames(longer), both[0])
    assert silent_frames(torch.zeros(SAMPLES_PER_FRAME)).tolist() == [
        False
    ]  # too short for a pause
    with pytest.raises(ShapeError, match="mono"):
        silent_frames(torch.zeros(SAMPLES_PER_FRAME - 1))
    with pytest.raises(ShapeError, match="mono"):
        silent_frames(torch.zeros(1, 2, 6400))


def test_speed_agrees_with_plain_loops() -> None:
    track = noisy(1, 7, seed=4)[0]
    expected = mouth_speed_loop(track[..., :2].numpy(), FPS)
    np.testing.assert_allclose(mouth_speed(track).numpy(), expected, rtol=1e-9)
    both = mouth_speed(torch.stack([still(7), track]))
    np.testing.assert_allclose(both.numpy(), [[0.0] * 6, expected], rtol=1e-9)
    with pytest.raises(ShapeError, match="ibug_points"):
        mouth_speed(torch.zeros(5, 478, 3))


def test_speed_by_hand_and_blind_to_the_head() -> None:
    track = chewing(6)
    assert mouth_speed(track).tolist() == pytest.approx([CHEWING_SPEED] * 5, rel=1e-9)
    angle = torch.linspace(-0.4, 0.5, 6, dtype=torch.float64)
    size = torch.linspace(0.7, 1.6, 6, dtype=torch.float64)
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=-1).view(6, 2, 2)
    moved = size[:, None, None] * (track[..., :2] @ turn) + angle[:, None, None]
    torch.testing.assert_close(mouth_speed(moved), mouth_speed(track))


def test_silence_motion_by_hand() -> None:
    track, silent = chewing(20), torch.arange(20) < 10
    assert silence_motion(track, silent).tolist() == pytest.approx([CHEWING_SPEED])
    assert silence_motion(still(20), silent).tolist() == [0.0]
    # Twice the motion is twice the score.
    assert silence_motion(chewing(20, 0.02), silent).item() == pytest.approx(2 * CHEWING_SPEED)


def test_motion_in_speech_and_beside_it_does_not_count() -> None:
    """Silent from 8 to 21, at rest from 10 to 18: the five other steps inside the silence move."""
    track, silent = chewing(30), (torch.arange(30) >= 8) & (torch.arange(30) < 22)
    track[10:19] = still(9)
    for guard, moving, steps in ((0, 5, 13), (1, 3, 11), (2, 1, 9), (3, 0, 7)):
        got = silence_motion(track, silent, guard_frames=guard).item()
        assert got == pytest.approx(CHEWING_SPEED * moving / steps, abs=1e-12)


def test_the_ends_of_a_clip_need_no_guard() -> None:
    track = still(21)
    track[:2], track[-2:] = chewing(2), chewing(2)
    everywhere = torch.ones(21, dtype=torch.bool)
    # One step at each end moves, and so does the one into the still part from the left.
    got = silence_motion(track, everywhere).item()
    assert got == pytest.approx(CHEWING_SPEED * 3 / 20)


def test_steps_next_to_invalid_frames_do_not_count() -> None:
    track, silent = still(20), torch.ones(20, dtype=torch.bool)
    track[9] = torch.nan
    valid = torch.arange(20) != 9
    assert silence_motion(track, silent, valid).tolist() == [0.0]
    with pytest.raises(ShapeError, match="finite"):
        silence_motion(track, silent)


def test_a_clip_without_silence_has_no_value_and_does_not_count() -> None:
    clips = torch.stack([chewing(20), still(20), chewing(20, 0.03)])
    silent = torch.stack([torch.ones(20), torch.zeros(20), torch.ones(20)]).bool()
    values = silence_motion(clips, silent)
    assert values.isnan().tolist() == [False, True, False]
    metric = SilenceMotion()
    metric.update(clips, silent, clip=["a", "b", "c"])
    assert metric.compute().item() == pytest.approx(2 * CHEWING_SPEED)
    with pytest.raises(ShapeError, match="clip names"):
        metric.update(clips, silent, clip=["a", "b"])
    unnamed = SilenceMotion(guard_frames=0)
    unnamed.update(clips, silent)
    assert unnamed.compute().item() == pytest.approx(2 * CHEWING_SPEED)


def test_the_class_does_not_depend_on_the_batch_split() -> None:
    clips, names = noisy(4, 20, seed=6), ["a", "b", "c", "d"]
    silent = torch.arange(20).expand(4, -1) < torch.tensor([[20], [15], [3], [10]])
    metric = SilenceMotion()
    metric.update(clips[2:], silent[2:], clip=names[2:])
    metric.update(clips[:3], silent[:3], clip=names[:3])
    expected = silence_motion(clips, silent).nanmean().item()
    assert metric.compute().item() == pytest.approx(expected, rel=1e-12)


def test_refuses_what_does_not_fit() -> None:
    silent = torch.ones(6, dtype=torch.bool)
    with pytest.raises(ShapeError, match="same frames"):
        silence_motion(still(), silent[:5])
    with pytest.raises(ShapeError, match="guard"):
        silence_motion(still(), silent, guard_frames=-1)
    with pytest.raises(ShapeError, match="ibug_points"):
        silence_motion(torch.zeros(6, 478, 3), silent)
    blind = still()
    blind[:, 45] = blind[:, 36]
    with pytest.raises(ShapeError, match="two eyes"):
        silence_motion(blind, silent)
