from __future__ import annotations

import numpy as np
import pytest
import torch

from talkhead.corpus.motion_process import CHANNELS, MotionProcess
from talkhead.corpus.prosody import PROSODY_FEATURES
from talkhead.metrics.diversity import diversity_ratio
from talkhead.metrics.spectrum import SequenceMoments, process_distance
from talkhead.metrics.true_process import true_moments, true_takes

LAGS = 30


@pytest.fixture(scope="module")
def speech() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(150, len(PROSODY_FEATURES)))


@pytest.fixture(scope="module")
def takes(speech: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> torch.Tensor:
    return true_takes(MotionProcess(), speech, 200, np.random.default_rng(0))


def test_closed_form_agrees_with_many_takes(
    speech: np.ndarray[tuple[int, ...], np.dtype[np.float64]], takes: torch.Tensor
) -> None:
    assert takes.shape == (200, 150, len(CHANNELS))
    true = true_moments(MotionProcess(), speech, LAGS)
    out = process_distance(SequenceMoments.from_takes(takes, LAGS), true)
    assert out["mean_error"] < 0.15
    assert out["variance_ratio"].item() == pytest.approx(1.0, abs=0.06)
    assert out["log_spectral_distance"] < 0.8
    assert out["autocorrelation_distance"] < 0.04


def test_a_sampler_that_always_takes_one_side_is_found_out(
    speech: np.ndarray[tuple[int, ...], np.dtype[np.float64]], takes: torch.Tensor
) -> None:
    process = MotionProcess()
    side = true_takes(process, speech, 60, np.random.default_rng(1))
    centre = torch.from_numpy(process.mean(speech)).float()
    yaw = CHANNELS.index("yaw")
    one_sided = side[(side - centre)[..., yaw].mean(1) > 0]
    true = true_moments(process, speech, LAGS)
    got = process_distance(SequenceMoments.from_takes(one_sided, LAGS), true)
    fair = process_distance(SequenceMoments.from_takes(side, LAGS), true)
    assert got["variance_ratio"] < fair["variance_ratio"] - 0.03
    assert got["mean_error"] > fair["mean_error"]


def test_true_takes_have_the_true_diversity(takes: torch.Tensor) -> None:
    scale = takes.flatten(0, 1).std(0)
    ratio = diversity_ratio(takes[:40], takes[40:80], standard=(torch.zeros(8), scale))
    assert ratio.item() == pytest.approx(1.0, abs=0.1)
