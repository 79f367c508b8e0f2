"""The motion process keeps its own law: moments, spectrum, likelihood, explained share."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from talkhead.corpus.drives import prosody_drives
from talkhead.corpus.motion_process import (
    CHANNELS,
    GAZE_LIMIT,
    LIMITS,
    MotionParams,
    MotionProcess,
    gaussian_channels,
    soft_limit,
)
from talkhead.corpus.prosody import measure_prosody
from talkhead.corpus.sentences import sample_utterance
from talkhead.corpus.state import NONLIP_FIELDS, FaceState
from talkhead.errors import ConfigError, ShapeError

HEAD = ("pitch", "yaw", "roll", "brow_left", "brow_right")


@cache
def _features(count: int) -> tuple[NDArray[np.float32], ...]:
    """Prosody of some corpus speech."""
    rng = np.random.default_rng(11)
    voices = ("en-us", "en-gb+f2", "en-gb-x-rp+m3", "en-us-nyc+f4", "en-gb-scotland+m7")
    waves = (sample_utterance(rng, 6.0, voices[i % 5]).speech.wave for i in range(count))
    return tuple(measure_prosody(w).features for w in waves)


@cache
def _residuals() -> NDArray[np.float64]:
    """Sampled motion without rest, side and speech, ``(400, 150, 8)``."""
    process = MotionProcess()
    features = _features(1)[0]
    takes = process.sample(features, np.random.default_rng(0), takes=400)
    return np.stack([t.channels() - process.mean(features, t.side) for t in takes])


@pytest.mark.parametrize("lag", [0, 1, 5, 25])
def test_autocovariance_of_samples(lag: int) -> None:
    x = _residuals()
    ahead, behind = x[:, lag:], x[:, : x.shape[1] - lag]
    measured = np.einsum("ntc,ntd->cd", ahead, behind) / ahead[..., 0].size
    process = MotionProcess()
    spread = np.sqrt(np.diag(process.residual_covariance))
    scale = spread[:, None] * spread
    assert measured / scale == pytest.approx(process.autocovariance(lag) / scale, abs=0.12)


def test_variance_at_lag_zero_and_in_the_spectrum_agree() -> None:
    process = MotionProcess()
    assert process.autocovariance(0) == pytest.approx(process.residual_covariance)
    assert process.autocovariance(3) == pytest.approx(process.autocovariance(-3))
    hz = (np.arange(20_000) + 0.5) / 20_000 * 25 - 12.5
    power = process.spectrum(hz).mean(0) * 25
    assert power == pytest.approx(np.diag(process.residual_covariance), rel=1e-3)


def test_spectrum_of_samples() -> None:
    """Averaged periodograms; a window keeps the slow part from leaking upwards."""
    x = _residuals()
    window = np.hanning(x.shape[1])
    measured = np.abs(np.fft.rfft(x * window[:, None], axis=1)) ** 2
    measured = measured.mean(0) / (25 * (window**2).sum())
    hz = np.fft.rfftfreq(x.shape[1], 1 / 25)
    band = (hz > 0.4) & (hz < 2.5)
    expected = MotionProcess().spectrum(hz)
    assert np.log(measured[band] / expected[band]) == pytest.approx(0, abs=0.4)
    assert np.log(measured[band] / expected[band]).mean() == pytest.approx(0, abs=0.1)


def test_total_variance_is_the_written_one() -> None:
    process = MotionProcess()
    rng = np.random.default_rng(5)
    found = np.concatenate(
        [t.channels() for f in _features(12) for t in process.sample(f, rng, takes=10)]
    )
    assert found.var(0) == pytest.approx(process.variance(), rel=0.25)


def test_explained_share_is_what_a_regression_finds() -> None:
    process = MotionProcess()
    rng = np.random.default_rng(6)
    design, targets = [], []
    for features in _features(12):
        for take in process.sample(features, rng, takes=10):
            design.append(prosody_drives(features))
            targets.append(take.channels())
    x = np.concatenate(design)
    y = np.concatenate(targets)
    fit = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    share = 1 - ((y - fit) ** 2).sum(0) / (y**2).sum(0)
    for i, name in enumerate(CHANNELS):
        assert share[i] == pytest.approx(process.explained_share(name), abs=0.08)
    assert all(0.25 <= process.explained_share(name) <= 0.35 for name in HEAD)


def test_log_likelihood_is_the_mixture_of_two_joint_normals() -> None:
    process = MotionProcess()
    features = _features(1)[0][:12]
    motion = process.sample(features, np.random.default_rng(3))[0].channels()
    joint = np.block([[process.autocovariance(i - j) for j in range(12)] for i in range(12)])
    scores = [
        multivariate_normal(process.mean(features, side).ravel(), joint).logpdf(motion.ravel())
        for side in (-1, 1)
    ]
    expected = logsumexp(scores) - np.log(2)
    assert process.log_likelihood(motion, features) == pytest.approx(expected, rel=1e-5)


def test_true_motion_scores_above_wrong_ones() -> None:
    process = MotionProcess()
    features = _features(1)[0]
    rng = np.random.default_rng(4)
    motion = process.sample(features, rng)[0].channels()
    true = process.log_likelihood(motion, features)
    assert true > process.log_likelihood(motion[rng.permutation(len(motion))], features) + 100
    assert true > process.log_likelihood(motion, np.roll(features, 40, axis=0)) + 10
    assert true > process.log_likelihood(1.3 * motion, features)


def test_same_speech_has_motions_of_two_kinds() -> None:
    process = MotionProcess()
    takes = process.sample(_features(1)[0], np.random.default_rng(8), takes=200)
    yaw = np.array([t.rotation[:, 1].mean() for t in takes])
    sides = np.array([t.side for t in takes])
    assert 70 < (sides == 1).sum() < 130
    gap = yaw[sides == 1].mean() - yaw[sides == -1].mean()
    assert gap == pytest.approx(2 * process.side_offset[1], rel=0.25)
    marginal = process.mean(_features(1)[0])
    both = [process.mean(_features(1)[0], side) for side in (-1, 1)]
    assert marginal == pytest.approx((both[0] + both[1]) / 2)


def test_head_is_smooth_and_ranges_hold() -> None:
    takes = MotionProcess().sample(_features(1)[0], np.random.default_rng(9), takes=50)
    for take in takes:
        channels = take.channels()
        assert (np.abs(channels) <= LIMITS + 1e-6).all()
        assert np.abs(take.gaze).max() <= GAZE_LIMIT + 1e-6
        assert take.lids.min() >= 0
        assert take.lids.max() <= 1.3
    rotation = np.stack([t.rotation for t in takes])
    speed = np.diff(rotation, axis=1)
    jerkiness = np.diff(speed, axis=1).std() / speed.std()
    assert jerkiness < 0.5  # white jitter of the angle has sqrt(3)
    assert np.degrees(speed.std()) * 25 < 20


def test_parts_make_a_face_state() -> None:
    take = MotionProcess().sample(_features(1)[0], np.random.default_rng(1))[0]
    fields = FaceState.neutral(150).arrays() | take.fields()
    state = FaceState(**fields)
    assert set(take.fields()) == set(NONLIP_FIELDS)
    assert state.frames == 150
    assert gaussian_channels(state.arrays()) == pytest.approx(take.channels())
    for name, value in take.fields().items():
        assert value.dtype == np.float32
        assert value.shape == getattr(FaceState.neutral(150), name).shape


def test_same_generator_same_motion() -> None:
    first, again, other = (
        MotionProcess().sample(_features(1)[0], np.random.default_rng(s))[0] for s in (1, 1, 2)
    )
    assert np.array_equal(first.channels(), again.channels())
    assert first.blinks == again.blinks
    assert not np.array_equal(first.channels(), other.channels())


def test_soft_limit_is_the_identity_inside() -> None:
    values = np.linspace(-3, 3, 101)
    limited = soft_limit(values, 1.0)
    inside = np.abs(values) <= 0.8
    assert np.array_equal(limited[inside], values[inside])
    assert (np.diff(limited) >= 0).all()
    assert np.abs(limited).max() <= 1.0


def test_personal_styles_differ_and_survive_json() -> None:
    first, second = (MotionParams.personal(np.random.default_rng(s)) for s in (0, 1))
    assert first != second
    assert MotionParams.from_json(first.to_json()) == first
    assert MotionProcess(first).explained_share("yaw") == MotionProcess().explained_share("yaw")


def test_bad_requests_are_named() -> None:
    with pytest.raises(ConfigError, match="8 rest values"):
        MotionProcess(MotionParams(rest=(0.0,)))
    with pytest.raises(ConfigError, match="nose"):
        MotionProcess().explained_share("nose")
    with pytest.raises(ShapeError, match="one row for each"):
        MotionProcess().log_likelihood(np.zeros((5, 8)), np.zeros((6, 4)))
