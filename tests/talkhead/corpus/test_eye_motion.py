"""Blinks come at the written rate with the written shape; the eyes jump and follow."""

import numpy as np
import pytest

from talkhead.corpus.eye_motion import (
    BLINK_TEMPLATE,
    EyeParams,
    blink_hazard,
    lid_openings,
    sample_blinks,
    sample_gaze,
)


def test_blink_rate_is_that_of_a_renewal_process() -> None:
    """Discrete: mean gap = refractory frames - 1 + 1 / chance."""
    hazard = np.full(200_000, 0.4)
    blinks = np.array(sample_blinks(hazard, 0.6, np.random.default_rng(0)))
    gaps = np.diff(blinks)
    assert gaps.min() >= 15
    assert gaps.mean() == pytest.approx(14 + 1 / (1 - np.exp(-0.4 / 25)), rel=0.03)


def test_default_rate_is_human() -> None:
    params = EyeParams()
    hazard = blink_hazard(params, np.zeros(150_000))
    blinks = sample_blinks(hazard, params.blink_refractory_s, np.random.default_rng(1))
    assert 14 <= len(blinks) / 100 <= 20  # 100 minutes


def test_pauses_raise_the_hazard() -> None:
    params = EyeParams(blink_rate_hz=0.3)
    hazard = blink_hazard(params, np.array([-0.5, 0.0, 1.5, 9.0]))
    assert hazard[1] == pytest.approx(0.3)
    assert hazard[2] / hazard[0] == pytest.approx(np.exp(0.7))
    assert hazard[3] == pytest.approx(0.3 * np.exp(0.35 * 3))


def test_lids_follow_the_template_and_the_gaze() -> None:
    params = EyeParams(lid_follow=0.2)
    gaze = np.zeros((30, 2))
    gaze[20:, 1] = 0.5
    lids = lid_openings(params, gaze, [5, 27], rest=1.0)
    assert lids[5:12, 0] == pytest.approx(BLINK_TEMPLATE)
    assert 6 <= len(BLINK_TEMPLATE) <= 8
    assert lids[20:27] == pytest.approx(0.9)
    assert lids[27:, 1] == pytest.approx(0.9 * BLINK_TEMPLATE[:3])
    assert lids.max() <= 1.3


def test_eyes_counter_the_head() -> None:
    params = EyeParams(saccade_rate_hz=0.0, drift=0.0, camera_share=1.0)
    yaw = np.linspace(-0.3, 0.3, 50)
    gaze = sample_gaze(params, np.full(50, 0.1), yaw, np.random.default_rng(0))
    assert np.diff(gaze[:, 0]) == pytest.approx(params.yaw_coupling * np.diff(yaw))
    level = sample_gaze(params, np.zeros(50), yaw, np.random.default_rng(0))
    assert gaze[:, 1] - level[:, 1] == pytest.approx(-0.1 * params.yaw_coupling)


def test_gaze_jumps_then_rests() -> None:
    params = EyeParams()
    still = np.zeros(5000)
    gaze = sample_gaze(params, still, still, np.random.default_rng(2))
    step = np.abs(np.diff(gaze, axis=0)).max(1)
    jumps = step > 0.1
    assert 0.01 < jumps.mean() < 0.1
    assert np.median(step) < 0.02
    assert gaze.std(0) == pytest.approx(np.sqrt(0.4) * np.array([0.3, 0.14]), rel=0.35)
