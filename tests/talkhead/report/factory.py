"""Results with known numbers for the report's tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from talkhead.report.results import DataInfo, RunResult
from talkhead.report.samples import FloatArray, MotionSamples

LAYOUT = {
    "rotation": slice(0, 3),
    "translation": slice(3, 5),
    "scale": slice(5, 6),
    "expression": slice(6, 10),
    "eyes": slice(10, 12),
    "gaze": slice(12, 14),
    "mouth": slice(14, 15),
}


def result(
    variant: str = "diffusion",
    seed: int = 0,
    metrics: Mapping[str, float] | None = None,
    *,
    stage: str = "motion_diffusion",
    fingerprint: str = "abc123abc123abc123",
    extractor: str = "mediapipe",
    synthetic: bool = True,
) -> RunResult:
    return RunResult(
        stage=stage,
        variant=variant,
        seed=seed,
        data=DataInfo("embedded", synthetic, "test", 12, 1800, fingerprint),
        extractor=extractor,
        command="talkhead test --config=x.yaml",
        checkpoint={"path": "last.ckpt", "digest": "d"},
        config_digest="c",
        metrics=metrics if metrics is not None else prior_metrics(2.0 + 0.1 * seed),
        per_clip=[{"clip": "a", "snd[readout]": 2.0}],
    )


def prior_metrics(snd: float, var: float = 1.0) -> dict[str, float]:
    return {
        "var[readout]": var,
        "fid_fm[readout]": 0.75 * snd,
        "fid_dfm[readout]": 0.25 * snd,
        "snd[readout]": snd,
        "gt/var[readout]": 1.2,
        "floor/snd[readout]": 0.5,
        "mean/snd[readout]": 9.0,
        "loss": 0.3,
    }


def samples(seed: int, clips: int = 3, frames: int = 80, spread: float = 1.0) -> MotionSamples:
    rng = np.random.default_rng(seed)

    def walk(size: float, source: np.random.Generator) -> FloatArray:
        steps = source.normal(size=(clips, frames, 15)).astype(np.float32)
        smooth = np.cumsum(steps, axis=1)
        centred: FloatArray = size * (smooth - smooth.mean(1, keepdims=True)) / 8
        return centred.astype(np.float32)

    valid = np.ones((clips, frames), np.bool_)
    valid[-1, 70:] = False
    return MotionSamples(
        generated=walk(spread, rng),
        real=walk(1.0, np.random.default_rng(123)),
        valid=valid,
        clips=[f"s{i}/c0" for i in range(clips)],
        layout=LAYOUT,
    )


def write_study(folder: Path, *, with_samples: bool = True) -> None:
    """Two priors with three seeds, two guidance factors with one."""
    for seed in range(3):
        place = folder / "diffusion" / f"seed{seed}"
        result("diffusion", seed, prior_metrics(2.0 + 0.1 * seed, 1.1)).write(
            place / "metrics.json"
        )
        if with_samples:
            samples(seed).write(place / "samples.npz")
        place = folder / "ar" / f"seed{seed}"
        worse = result("ar", seed, prior_metrics(4.0 + 0.3 * seed, 2.0), stage="motion_ar")
        worse.write(place / "metrics.json")
        if with_samples:
            samples(10 + seed, spread=2.0).write(place / "samples.npz")
    for factor in ("0", "2.5", "10"):
        name = f"guidance_{factor}"
        guided = result(name, 0, prior_metrics(3.0 + float(factor) / 5))
        guided.write(folder / name / "seed0" / "metrics.json")
