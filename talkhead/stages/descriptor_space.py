"""Motion codes seen as motion descriptors: fitting the read-out, and scores through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from talkhead.corpus.motion_process import MotionProcess
from talkhead.corpus.truth import Truth, load_truth
from talkhead.geometry.motion import MotionModel
from talkhead.metrics.diversity import diversity_ratio
from talkhead.metrics.spectrum import MAX_LAG_FRAMES, SequenceMoments, process_distance
from talkhead.networks.motion_readout import MotionReadout
from talkhead.readout import Readout
from talkhead.stages.motion_evaluation import ClipSample, motion_scores

MAX_CLIPS = 500
"""Training clips the read-out is fitted on; more change it no longer."""
TRUE_TAKES = 64
"""Takes of the true process that its diversity is measured on."""
ROTATION = slice(0, 3)


class PreparedView(Protocol):
    """What is asked of a prepared set (``datamodules.shards.PreparedSet``)."""

    def rows(self, split: str | None = None) -> list[Any]: ...

    def motion(self, clip: Any) -> NDArray[np.float32]: ...


class FeatureView(Protocol):
    """What is asked of the feature cache (``datamodules.features.FeatureStore``)."""

    def window(self, name: str, row: Any) -> Tensor: ...


class DataView(Protocol):
    """What is asked of the datamodule (``datamodules.base.TalkheadDataModule``)."""

    @property
    def prepared(self) -> PreparedView: ...

    @property
    def store(self) -> FeatureView: ...

    @property
    def motion_model(self) -> MotionModel: ...

    @property
    def motion_stats(self) -> Any: ...

    def clip_truth_path(self, row: Any) -> Path: ...


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
    return _fit(data, lambda row: data.store.window("nonlip", row).numpy())


class ReadoutScores:
    """Var, FID_fm, FID_dfm, SND and Multimodality of codes read out as descriptors.

    Generated and real codes go through the same linear map, so what the map cannot see is missing on
    both sides; the descriptors are standardised by the training split.
    """

    space = "readout"

    def __init__(self, readout: Readout, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        """Keep the map and the statistics of the descriptors."""
        self._readout = readout
        self._standard = (torch.as_tensor(mean).float(), torch.as_tensor(std).float().clamp_min(1e-6))

    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores by name, ``snd[readout]`` and so on."""
        generated = self._readout.predict_tensor(sample.generated.float().cpu())
        real = self._readout.predict_tensor(sample.real.float().cpu())
        return motion_scores(generated, real, self._standard, self.space)


class TruthScores:
    """Sampled head rotation against the process that drew the embedded corpus, given the same speech.

    The codes are read out as rotations in radians. Four distances of moments and spectrum
    (:func:`talkhead.metrics.spectrum.process_distance`) and the diversity ratio; all need two takes or
    more and a clip longer than the lags compared. A read-out with an R^2 below 1 shrinks the
    variance, so the ratios are read beside that R^2.
    """

    def __init__(self, readout: Readout, truth_of: Callable[[str], Path | None]) -> None:
        """Keep the map; ``truth_of`` gives a clip's truth file, None where there is none."""
        self._readout, self._truth_of = readout, truth_of
        self._truths: dict[str, Truth] = {}

    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores by name, ``process_variance_ratio[readout]`` and so on."""
        takes, frames = sample.generated.shape[:2]
        if sample.variant != "model" or takes < 2 or frames <= MAX_LAG_FRAMES:
            return {}
        truth = self._truth(sample.clip)
        if truth is None:
            return {}
        rotation = self._readout.predict_tensor(sample.generated.float().cpu())[..., ROTATION]
        features = truth.prosody.features[sample.start : sample.start + frames]
        process = MotionProcess(truth.process)
        found = process_distance(SequenceMoments.from_takes(rotation), true_moments(process, features))
        rng = np.random.default_rng(sample.start)
        drawn = [take.rotation for take in process.sample(features, rng, TRUE_TAKES)]
        ratio = diversity_ratio(rotation, torch.from_numpy(np.stack(drawn)).float())
        scores = {f"process_{name}[readout]": float(value) for name, value in found.items()}
        return {**scores, "diversity_ratio[readout]": float(ratio.mean())}

    def _truth(self, clip: str) -> Truth | None:
        if clip not in self._truths:
            path = self._truth_of(clip)
            if path is None or not path.is_file():
                return None
            self._truths[clip] = load_truth(path)
        return self._truths[clip]


def true_moments(process: MotionProcess, features: NDArray[np.floating[Any]]) -> SequenceMoments:
    """Closed-form moments of the true rotation given the speech.

    The side a take prefers is constant within it, so its squared offset adds to the autocovariance at
    every lag.
    """
    lags = [np.diag(process.autocovariance(lag))[ROTATION] for lag in range(MAX_LAG_FRAMES + 1)]
    covariance = np.stack(lags) + np.square(process.side_offset[ROTATION])
    mean = process.mean(features)[:, ROTATION]
    return SequenceMoments(torch.from_numpy(mean.copy()), torch.from_numpy(covariance))


def descriptor_evaluators(
    data: DataView,
) -> tuple[list[Callable[[ClipSample], Mapping[str, float]]], dict[str, float]]:
    """The evaluators a test of a prior adds, and the R^2 of the read-out they stand on."""
    readout, r2 = fit_nonlip_readout(data)
    stats = data.motion_stats
    rows = {row.id: row for row in data.prepared.rows()}

    def truth_of(clip: str) -> Path | None:
        return data.clip_truth_path(rows[clip]) if clip in rows else None

    scores = [ReadoutScores(readout, stats.mean, stats.std), TruthScores(readout, truth_of)]
    return list(scores), r2


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
