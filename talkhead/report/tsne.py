"""t-SNE of motion: clouds of real and generated frames side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talkhead.report.plots import REAL_COLOR, color_of, pyplot, save_figure
from talkhead.report.samples import FloatArray, MotionSamples

TSNE_SAMPLES = 2000
"""Frames in a t-SNE picture, all clouds together (the paper draws 5000 a method)."""
TSNE_STEPS = 500
"""Half of scikit-learn's default; the clouds' outlines have settled by then."""
MIN_POINTS = 30
"""Fewer points in all have no distribution to look at."""
REAL = "real"

_GRID = 50
_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


def plot_tsne(
    samples: Mapping[str, MotionSamples], groups: Sequence[str], title: str, path: Path
) -> Path | None:
    """t-SNE of descriptor groups, real motion against each variant in its own panel.

    Args:
        samples: Variant -> samples of the same clips.
        groups: Descriptor groups joined for the embedding, for instance ``("rotation",)``.
        title: What is shown.
        path: PNG to write.

    Returns:
        The path, or None when a group is missing or there are too few frames.

    Source: paper 1 figures 4 and VI to XIII.
    """
    frames = TSNE_SAMPLES // (len(samples) + 1)
    clouds = embed_clouds(samples, groups, frames)
    if clouds is None:
        return None
    title = f"t-SNE of {title}, {frames} frames a cloud at most"
    return draw_clouds(clouds, {name: name for name in clouds if name != REAL}, title, path)


def embed_clouds(
    samples: Mapping[str, MotionSamples], groups: Sequence[str], frames: int
) -> dict[str, FloatArray] | None:
    """Frames of all variants and the real ones, embedded together so that they share their axes.

    Args:
        samples: Variant -> samples of the same clips; those without the groups are left out.
        groups: Descriptor groups joined for the embedding.
        frames: Frames drawn from each cloud at most.

    Returns:
        :data:`REAL` and the variants -> points ``(n, 2)``, or None when there are too few frames.
    """
    from sklearn.manifold import TSNE

    usable = {k: s for k, s in samples.items() if all(g in s.layout for g in groups)}
    if not usable:
        return None
    rng = np.random.default_rng(0)
    clouds = [_draw(_joined(next(iter(usable.values())), groups, real=True), frames, rng)]
    clouds += [_draw(_joined(s, groups, real=False), frames, rng) for s in usable.values()]
    points = np.concatenate(clouds)
    if len(points) < MIN_POINTS:
        return None
    # Scaled by the real frames: the pictures compare shapes of clouds, not units.
    points = (points - clouds[0].mean(0)) / np.maximum(clouds[0].std(0), 1e-6)
    perplexity = min(30.0, (len(points) - 1) / 3.0)
    # A fixed exact start keeps the picture the same from run to run.
    tsne = TSNE(perplexity=perplexity, init="pca", max_iter=TSNE_STEPS, random_state=0)
    flat = tsne.fit_transform(points)
    parts = np.split(flat, np.cumsum([len(c) for c in clouds])[:-1])
    return dict(zip([REAL, *usable], parts, strict=True))


def draw_clouds(
    clouds: Mapping[str, FloatArray], panels: Mapping[str, str], title: str, path: Path
) -> Path:
    """One panel a method: the real frames in grey, its own in colour with lines of equal density.

    Args:
        clouds: :func:`embed_clouds`.
        panels: Heading -> variant, or :data:`REAL` for the real frames alone; a variant without a cloud
            leaves its panel empty but for the word "missing".
        title: What is shown.
        path: PNG to write.

    Returns:
        The path.
    """
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.2 * len(panels), 3.4), squeeze=False, sharex=True, sharey=True
    )
    for x, (panel, (heading, variant)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        panel.scatter(*clouds[REAL].T, s=3, color=REAL_COLOR, alpha=0.25, lw=0, label=REAL)
        color = REAL_COLOR if variant == REAL else color_of(variant, x)
        if variant not in clouds:
            panel.text(0.5, 0.5, "missing", transform=panel.transAxes, ha="center")
        elif variant != REAL:
            panel.scatter(*clouds[variant].T, s=3, color=color, alpha=0.5, lw=0, label=variant)
        if variant in clouds:
            _contours(panel, clouds[variant], color)
        panel.legend(fontsize=7, markerscale=4, loc="upper right")
        panel.set_title(heading, fontsize=8)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    return save_figure(figure, path)


def _contours(panel: Any, cloud: FloatArray, color: str) -> None:
    """Lines around the densest tenth, three tenths and so on of a cloud."""
    from sklearn.neighbors import KernelDensity

    if len(cloud) < 3 or not np.ptp(cloud, axis=0).all():
        return
    # Scott's rule for two dimensions.
    width = float(cloud.std(0).mean()) * len(cloud) ** (-1.0 / 6.0)
    density = KernelDensity(bandwidth=width).fit(cloud)
    low, high = cloud.min(0) - 2 * width, cloud.max(0) + 2 * width
    x, y = np.meshgrid(*(np.linspace(a, b, _GRID) for a, b in zip(low, high, strict=True)))
    height = density.score_samples(np.stack([x.ravel(), y.ravel()], 1)).reshape(x.shape)
    levels = np.unique(np.quantile(density.score_samples(cloud), _LEVELS))
    shown = levels[levels < height.max()]
    # Logarithms are mostly negative, and negative levels would be dashed.
    panel.contour(x, y, height, levels=shown, colors=color, linewidths=0.6, linestyles="solid")


def _joined(samples: MotionSamples, groups: Sequence[str], *, real: bool) -> FloatArray:
    out: FloatArray = np.concatenate([samples.group(g, real=real) for g in groups], axis=1)
    return out


def _draw(points: FloatArray, limit: int, rng: np.random.Generator) -> FloatArray:
    """At most ``limit`` rows, without replacement."""
    if len(points) <= limit:
        return points
    drawn: FloatArray = points[rng.permutation(len(points))[:limit]]
    return drawn
