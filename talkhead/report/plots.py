"""Plots of a report, as PNG files; matplotlib is imported when the first is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import MissingDependencyError
from talkhead.report.published import TABLE_I, guidance_of, published_rows
from talkhead.report.results import MetricName, RunResult
from talkhead.report.samples import MotionSamples
from talkhead.report.tables import REFERENCE_NAMES, Cell, label
from talkhead.specs import FPS

FloatArray = NDArray[np.float32]
REAL_COLOR = "#222222"
_OURS, _SECOND = "#d1495b", "#2e6f95"
_PALETTE = ("#d1495b", "#2e6f95", "#66a182", "#edae49", "#8d6a9f", "#5d737e", "#c38d5b")


def pyplot() -> Any:
    """matplotlib.pyplot drawing into files only.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib, which is not installed; pip install 'talkhead[report]'."
        ) from error
    return plt


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure through a temporary name and free it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=130, bbox_inches="tight")
    pyplot().close(figure)
    partial.replace(path)
    return path


def _values(results: Sequence[RunResult], metric: str) -> dict[str, list[float]]:
    """Variant -> known values over seeds."""
    out: dict[str, list[float]] = {}
    for result in results:
        value = result.metrics.get(metric, math.nan)
        if not math.isnan(value):
            out.setdefault(result.variant, []).append(value)
    return out


def plot_bars(
    results: Sequence[RunResult], metric: str, path: Path, references: Sequence[str] = ("floor",)
) -> Path | None:
    """One bar a variant with its seeds as dots; references as dashed lines.

    Args:
        results: Comparable results (one group of a report).
        metric: Full name, for instance ``snd[readout]``.
        path: PNG to write.
        references: References to draw where they were measured, see ``REFERENCES``.

    Returns:
        The path, or None when no variant has the metric.
    """
    values = _values(results, metric)
    if not values:
        return None
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(1.6 + 0.9 * len(values), 3.6))
    for x, (variant, seeds) in enumerate(values.items()):
        spread = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0
        axes.bar(
            x, np.mean(seeds), 0.65, yerr=spread or None, color=color_of(variant, x), capsize=4
        )
        axes.scatter([x] * len(seeds), seeds, color=REAL_COLOR, s=12, zorder=3)
    name = MetricName.parse(metric)
    for k, reference in enumerate(references):
        found = [
            v
            for r in results
            if not math.isnan(
                v := r.metrics.get(str(MetricName(name.base, reference, name.space)), math.nan)
            )
        ]
        if found:
            style = ("--", ":", "-.")[k % 3]
            axes.axhline(np.mean(found), color="grey", ls=style, label=REFERENCE_NAMES[reference])
    axes.set_xticks(range(len(values)), list(values), rotation=25, ha="right")
    axes.set_ylabel(f"{label(name.base)} {f'[{name.space}]' if name.space else ''}".strip())
    axes.set_title(_origin(results), fontsize=8)
    axes.margins(y=0.15)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)
    return save_figure(figure, path)


def plot_guidance(results: Sequence[RunResult], space: str, path: Path) -> Path | None:
    """Var, FID_fm and SND against the guidance factor, the paper's curve beside ours.

    Returns:
        The path, or None with fewer than two guidance factors.
    """
    guided = [(guidance_of(r.variant), r) for r in results]
    scales = sorted({s for s, _ in guided if s is not None})
    if len(scales) < 2:
        return None
    plt = pyplot()
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.1))
    for axes, base in zip(panels, ("var", "fid_fm", "snd"), strict=True):
        metric = str(MetricName(base, "", space))
        per_scale = [[r.metrics.get(metric, math.nan) for s, r in guided if s == x] for x in scales]
        mean = [float(np.nanmean(v)) if np.isfinite(v).any() else math.nan for v in per_scale]
        std = [float(np.nanstd(v, ddof=1)) if np.isfinite(v).sum() > 1 else 0.0 for v in per_scale]
        axes.errorbar(scales, mean, yerr=std, color=_OURS, marker="o", capsize=3, label="ours")
        paper = [
            (float(row.method.split("=")[1]), row.values[base]) for row in published_rows(TABLE_I)
        ]
        twin = axes.twinx()
        twin.plot(*zip(*paper, strict=True), color=_SECOND, ls="--", marker="x", label="paper")
        twin.tick_params(axis="y", colors=_SECOND, labelsize=7)
        truth = [r.metrics.get(str(MetricName(base, "gt", space)), math.nan) for _, r in guided]
        if np.isfinite(truth).any():
            axes.axhline(np.nanmean(truth), color=REAL_COLOR, ls=":", label="real")
        axes.set_xlabel("guidance factor s")
        axes.set_title(label(base) + (f" [{space}]" if space else ""), fontsize=9)
        lines = [*axes.get_legend_handles_labels()[0], *twin.get_legend_handles_labels()[0]]
        axes.legend(lines, [one.get_label() for one in lines], fontsize=7, frameon=False)
    origin = _origin([r for s, r in guided if s is not None])
    figure.suptitle(f"{origin}; right axis: published, VoxCeleb2", fontsize=8, color="#444444")
    figure.tight_layout()
    return save_figure(figure, path)


@dataclass(frozen=True)
class CurvePanel:
    """One panel of :func:`plot_curves`.

    Attributes:
        heading: Above the panel.
        score: Beside its axis.
        curves: Name -> training batches -> values over seeds; every panel names the same, and one
            without values keeps its colour for the others.
        levels: Name -> height of a dashed line.
    """

    heading: str
    score: str
    curves: Mapping[str, Mapping[int, Cell]]
    levels: Mapping[str, float]


def plot_curves(panels: Sequence[CurvePanel], title: str, path: Path) -> Path:
    """Scores over training below one another: the mean over seeds, and a band of one deviation.

    Args:
        panels: At least one, from top to bottom.
        title: What is shown.
        path: PNG to write.

    Returns:
        The path.
    """
    plt = pyplot()
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(6.0, 0.9 + 1.9 * len(panels)), squeeze=False, sharex=True
    )
    for place, panel in zip(axes[:, 0], panels, strict=True):
        for x, (name, cells) in enumerate(panel.curves.items()):
            if cells:
                _curve(place, cells, color_of(name, x), name)
        for name, level in panel.levels.items():
            place.axhline(level, color=REAL_COLOR, ls="--", lw=1, label=f"{name} (test)")
        place.set_title(panel.heading, fontsize=8)
        place.set_ylabel(panel.score, fontsize=7)
        place.tick_params(labelsize=6)
        place.legend(fontsize=6, frameon=False)
    axes[-1, 0].set_xlabel("training batches", fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    return save_figure(figure, path)


def _curve(axes: Any, cells: Mapping[int, Cell], color: str, label: str) -> None:
    """Mean and band; a single step is a dot."""
    steps = list(cells)
    mean = np.array([cell.mean for cell in cells.values()])
    spread = np.nan_to_num([cell.std for cell in cells.values()])
    axes.plot(steps, mean, color=color, lw=1, marker="." if len(steps) == 1 else None, label=label)
    axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.2, lw=0)


def plot_traces(samples: Mapping[str, MotionSamples], path: Path, *, clips: int = 3) -> Path | None:
    """Some descriptors over time, real and generated, for the first clips.

    Returns:
        The path, or None without samples.
    """
    if not samples:
        return None
    plt = pyplot()
    first = next(iter(samples.values()))
    channels = _channels(first.layout)
    clips = min(clips, first.real.shape[0])
    figure, panels = plt.subplots(
        len(channels), clips, figsize=(3.4 * clips, 1.5 * len(channels)), squeeze=False, sharex=True
    )
    for row, (name, column) in enumerate(channels.items()):
        for clip in range(clips):
            axes = panels[row][clip]
            _trace(
                axes, first.real[clip], first.valid[clip], column, color=REAL_COLOR, label="real"
            )
            for x, (variant, one) in enumerate(samples.items()):
                if clip < one.generated.shape[0] and column < one.generated.shape[2]:
                    color = color_of(variant, x)
                    _trace(axes, one.generated[clip], one.valid[clip], column, color, variant)
            axes.tick_params(labelsize=6)
            if row == 0:
                axes.set_title(str(first.clips[clip]), fontsize=7)
            if clip == 0:
                axes.set_ylabel(name, fontsize=7)
    panels[0][0].legend(fontsize=6, frameon=False)
    for axes in panels[-1]:
        axes.set_xlabel("s", fontsize=7)
    figure.tight_layout()
    return save_figure(figure, path)


def plot_spectra(samples: Mapping[str, MotionSamples], path: Path) -> Path | None:
    """Mean power spectrum over clips of some descriptors, real and generated.

    Each clip is centred and seen through a Hann window, 64 frames at a time with half overlap.

    Returns:
        The path, or None when no clip has 64 valid frames.
    """
    if not samples:
        return None
    first = next(iter(samples.values()))
    channels = _channels(first.layout)
    real = mean_power(first.real, first.valid)
    if real is None:
        return None
    plt = pyplot()
    figure, panels = plt.subplots(
        1, len(channels), figsize=(2.8 * len(channels), 2.9), squeeze=False
    )
    frequency = np.fft.rfftfreq(64, 1.0 / FPS)[1:]
    for axes, (name, column) in zip(panels[0], channels.items(), strict=True):
        axes.loglog(frequency, real[1:, column], color=REAL_COLOR, label="real")
        for x, (variant, one) in enumerate(samples.items()):
            power = mean_power(one.generated, one.valid)
            if power is not None and column < power.shape[1]:
                color = color_of(variant, x)
                axes.loglog(frequency, power[1:, column] + 1e-12, color=color, lw=1, label=variant)
        axes.set_title(name, fontsize=8)
        axes.set_xlabel("Hz", fontsize=7)
        axes.tick_params(labelsize=6)
    panels[0][0].legend(fontsize=6, frameon=False)
    figure.tight_layout()
    return save_figure(figure, path)


def mean_power(motion: FloatArray, valid: NDArray[np.bool_], size: int = 64) -> FloatArray | None:
    """Welch power of motion ``(N, T, D)`` averaged over clips, ``(size / 2 + 1, D)``, or None."""
    window = np.hanning(size)[:, None]
    pieces = []
    for clip, mask in zip(motion, valid, strict=True):
        frames = clip[mask].astype(np.float64)
        for start in range(0, len(frames) - size + 1, size // 2):
            piece = frames[start : start + size]
            pieces.append(np.abs(np.fft.rfft((piece - frames.mean(0)) * window, axis=0)) ** 2)
    if not pieces:
        return None
    out: FloatArray = (np.mean(pieces, axis=0) / (window**2).sum() / FPS).astype(np.float32)
    return out


def _channels(layout: Mapping[str, slice]) -> dict[str, int]:
    """A few telling descriptors by name: pose angles, first expression, an eye, gaze, mouth."""
    wanted = {
        "pitch": ("rotation", 0),
        "yaw": ("rotation", 1),
        "roll": ("rotation", 2),
        "expression 1": ("expression", 0),
        "left eye": ("eyes", 0),
        "gaze x": ("gaze", 0),
        "mouth": ("mouth", 0),
    }
    found = {k: layout[g].start + i for k, (g, i) in wanted.items() if g in layout}
    if found:
        return found
    # A code space has no names: its first entries stand for it.
    start = min((s.start for s in layout.values()), default=0)
    width = max((s.stop for s in layout.values()), default=1) - start
    return {f"entry {i}": start + i for i in range(min(5, width))}


def _trace(
    axes: Any,
    motion: FloatArray,
    valid: NDArray[np.bool_],
    column: int,
    color: str,
    label: str,
) -> None:
    """One line over seconds."""
    line = motion[valid][:, column]
    axes.plot(np.arange(len(line)) / FPS, line, color=color, lw=0.9, label=label)


def color_of(variant: str, index: int) -> str:
    """Fixed colours for the two priors, so that all plots agree."""
    fixed = {"diffusion": _OURS, "ar": _SECOND}
    return fixed.get(variant, _PALETTE[index % len(_PALETTE)])


def _origin(results: Sequence[RunResult]) -> str:
    """Data set, split and seeds in a few words."""
    data = results[0].data
    kind = "synthetic" if data.synthetic else "real"
    seeds = len({r.seed for r in results})
    count = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return f"{data.dataset} ({kind}), {data.split}, {data.clips} clips, {count}"
