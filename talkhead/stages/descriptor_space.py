"""Motion codes seen as motion descriptors: fitting the read-out, and scores through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from talkhead.corpus.motion_process import CHANNELS, MotionProcess, gaussian_channels
from talkhead.corpus.truth import Truth, load_truth
from talkhead.metrics.diversity import diversity_ratio
from talkhead.metrics.sequences import Standard
from talkhead.metrics.spectrum import MAX_LAG_FRAMES, SequenceMoments, process_distance
from talkhead.metrics.true_process import true_moments, true_takes
from talkhead.networks.motion_readout import MotionReadout
from talkhead.readout import Readout
from talkhead.stages.motion_evaluation import ClipEvaluator, ClipSample, motion_scores
from talkhead.stages.whole_clips import DataView

MAX_CLIPS = 500
"""Training clips the read-out is fitted on; more change it no longer."""
TRUE_TAKES = 64
"""Takes of the true process that its diversity is measured on."""


def fit_motion_readout(data: DataView, lip_head: nn.Module) -> MotionReadout:
    """Fit codes ``cat(f_nl, f_l)`` to tracked descriptors on the training split.

    Args:
        data: Datamodule with the features ``nonlip`` and ``audio`` cached.
        lip_head: Frozen MLP_a2l.

    Returns:
        The read-out with its R^2 on the validation split.
    """

    def codes(row: Any) -> NDArray[np.float32]:
        with torch.no_grad():
            audio = data.store.window("audio", row).float()
            lip = lip_head(audio.to(next(lip_head.parameters()).device)).cpu()
        joined: NDArray[np.float32] = torch.cat([data.store.window("nonlip", row), lip], 1).numpy()
        return joined

    readout, r2 = _fit(data, codes)
    stats = data.motion_stats
    return MotionReadout.of(readout, data.motion_model, (stats.mean, stats.std), r2)


def fit_nonlip_readout(data: DataView) -> tuple[Readout, dict[str, float]]:
    """As :func:`fit_motion_readout`, from the non-lip code alone; also its validation R^2."""
    return _fit(data, lambda row: _nonlip(data, row))


def descriptor_standard(mean: NDArray[np.float32], std: NDArray[np.float32]) -> Standard:
    """Mean and deviation of the descriptors, as metrics take them; a dead one is not divided by 0."""
    return torch.as_tensor(mean).float(), torch.as_tensor(std).float().clamp_min(1e-6)


class ReadoutScores:
    """Var, FID_fm, FID_dfm, SND and Multimodality of codes read out as descriptors.

    Generated and real codes go through the same linear map, so what the map cannot see is missing on
    both sides; the descriptors are standardised by the training split.
    """

    space = "readout"

    def __init__(
        self, readout: Readout, mean: NDArray[np.float32], std: NDArray[np.float32]
    ) -> None:
        """Keep the map and the statistics of the descriptors."""
        self._readout = readout
        self._standard = descriptor_standard(mean, std)

    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores by name, ``snd[readout]`` and so on."""
        generated = self._readout.predict_tensor(sample.generated.float().cpu())
        real = self._readout.predict_tensor(sample.real.float().cpu())
        return motion_scores(generated, real, self._standard, self.space)


class TruthScores:
    """Samples against the process that drew the embedded corpus, given the same speech.

    The codes are read out as the process's own channels
    (:data:`talkhead.corpus.motion_process.CHANNELS`). Four distances of moments and spectrum
    (:func:`talkhead.metrics.spectrum.process_distance`) and the diversity ratio; all need two takes or
    more and a clip longer than the lags compared. A read-out with an R^2 below 1 shrinks the
    variance, so the ratios are read beside that R^2.
    """

    def __init__(self, readout: Readout, truths: Mapping[str, Truth]) -> None:
        """Keep the map from codes to channels and the truth of the clips to be scored."""
        self._readout, self._truths = readout, truths

    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores by name, ``process_variance_ratio[truth]`` and so on."""
        takes, frames = sample.generated.shape[:2]
        truth = self._truths.get(sample.clip)
        if truth is None or sample.variant != "model" or takes < 2 or frames <= MAX_LAG_FRAMES:
            return {}
        channels = self._readout.predict_tensor(sample.generated.float().cpu())
        features = truth.prosody.features[sample.start : sample.start + frames]
        process = MotionProcess(truth.process)
        law = true_moments(process, features)
        found = process_distance(SequenceMoments.from_takes(channels), law)
        drawn = true_takes(process, features, TRUE_TAKES, np.random.default_rng(sample.start))
        scale = (torch.zeros(len(CHANNELS)), law.autocovariance[0].sqrt().float())
        ratio = diversity_ratio(channels, drawn.float(), standard=scale)
        scores = {f"process_{name}[truth]": float(value) for name, value in found.items()}
        return {**scores, "diversity_ratio[truth]": float(ratio.mean())}


def descriptor_evaluators(
    data: DataView,
) -> tuple[list[ClipEvaluator], dict[str, float]]:
    """The evaluators a test of a prior adds, and the R^2 of the read-outs they stand on.

    Truth files are read for scoring only; without them (any real corpus) their scores are left out.
    """
    train, val, test = (_some(data.prepared.rows(s)) for s in ("train", "val", "test"))
    readout, r2 = fit_nonlip_readout(data)
    stats = data.motion_stats
    evaluators: list[ClipEvaluator] = [ReadoutScores(readout, stats.mean, stats.std)]
    scores = {f"readout_r2_{group}": value for group, value in r2.items()}
    if all(data.clip_truth_path(row).is_file() for row in (*train, *val, *test)):
        truths = {row.id: load_truth(data.clip_truth_path(row)) for row in (*train, *val, *test)}

        def channels(row: Any) -> NDArray[np.float32]:
            return gaussian_channels(truths[row.id].state.arrays())[: row.frames]

        layout = {name: slice(i, i + 1) for i, name in enumerate(CHANNELS)}
        exact = Readout.fit([_nonlip(data, r) for r in train], [channels(r) for r in train], layout)
        found = exact.r2([_nonlip(data, r) for r in val], [channels(r) for r in val])
        scores |= {f"truth_r2_{name}": value for name, value in found.items()}
        evaluators.append(TruthScores(exact, truths))
    return evaluators, scores


def _nonlip(data: DataView, row: Any) -> NDArray[np.float32]:
    codes: NDArray[np.float32] = data.store.window("nonlip", row).numpy()
    return codes


def _fit(
    data: DataView, codes: Callable[[Any], NDArray[np.float32]]
) -> tuple[Readout, dict[str, float]]:
    train, val = (_some(data.prepared.rows(split)) for split in ("train", "val"))
    motion = data.prepared.motion
    layout = data.motion_model.layout
    readout = Readout.fit([codes(r) for r in train], [np.asarray(motion(r)) for r in train], layout)
    r2 = readout.r2([codes(r) for r in val], [np.asarray(motion(r)) for r in val]) if val else {}
    return readout, r2


def _some(rows: Sequence[Any]) -> list[Any]:
    """At most :data:`MAX_CLIPS` rows, evenly spaced."""
    if len(rows) <= MAX_CLIPS:
        return list(rows)
    return [rows[int(i)] for i in np.linspace(0, len(rows) - 1, MAX_CLIPS).round()]
