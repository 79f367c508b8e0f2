"""Rows of frames, one row a method: drawn from motion descriptors, or taken from videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.geometry import face_topology as topology
from talkhead.geometry.motion import MotionModel
from talkhead.report.contact_sheet import Picture, evenly
from talkhead.report.plots import REAL_COLOR, color_of, pyplot, save_figure
from talkhead.report.samples import FloatArray
from talkhead.report.tsne import REAL
from talkhead.specs import FPS, N_LANDMARKS

_RINGS = (
    topology.FACE_OVAL,
    topology.LIPS_OUTER,
    topology.LIPS_INNER,
    topology.PICTURE_LEFT_EYE,
    topology.PICTURE_RIGHT_EYE,
    topology.PICTURE_LEFT_BROW,
    topology.PICTURE_RIGHT_BROW,
    topology.PICTURE_LEFT_IRIS[1:],
    topology.PICTURE_RIGHT_IRIS[1:],
)


@dataclass(frozen=True)
class Strip:
    """One row of the picture.

    Attributes:
        name: Its heading.
        variant: What its colour is chosen by; :data:`talkhead.report.tsne.REAL` for real motion.
        motion: Valid descriptors of one clip, ``(T, D)``, or None when nothing is known.
        pictures: Frames ``(n, H, W, 3)`` uint8 shown in place of drawn faces, or None.
    """

    name: str
    variant: str
    motion: FloatArray | None = None
    pictures: Picture | None = None


def descriptor_faces(motion: FloatArray, layout: Mapping[str, slice]) -> NDArray[np.float32] | None:
    """Landmarks of the canonical face moved by descriptors, expression left out.

    Pose, place, lids, gaze and mouth opening are as described; the expression basis is not kept beside
    samples, so brows and lip corners rest.

    Args:
        motion: ``(T, D)``, not standardised.
        layout: Descriptor group -> columns.

    Returns:
        Crop space, ``(T, 478, 3)``, or None when the layout is not that of motion descriptors, as that of
        a code space is not.
    """
    expression = layout.get("expression", slice(0, 0))
    count = expression.stop - expression.start
    if count < 1:
        return None
    size = N_LANDMARKS * 3
    model = MotionModel(np.zeros(size, np.float32), np.zeros((count, size), np.float32), count)
    if dict(layout) != model.layout:
        return None
    return model.decode(motion, topology.canonical_landmarks())


def rotation_speed(motion: FloatArray, layout: Mapping[str, slice]) -> NDArray[np.float64]:
    """How fast the head turns from frame to frame, in degrees a second, ``(T - 1,)``.

    Length of the difference of pitch, yaw and roll: exact for turns about one axis, near enough for the
    small steps of 40 ms.
    """
    steps = np.diff(motion[:, layout["rotation"]].astype(np.float64), axis=0)
    speed: NDArray[np.float64] = np.degrees(np.linalg.norm(steps, axis=1)) * FPS
    return speed


def plot_strips(
    strips: Sequence[Strip], layout: Mapping[str, slice], title: str, path: Path, frames: int = 5
) -> Path:
    """Evenly spread frames of each method in a row, and below how fast each head turns.

    Args:
        strips: Rows from top to bottom; one without motion and pictures says "missing".
        layout: Descriptor group -> columns of every strip's motion, that of motion descriptors.
        title: What is shown.
        path: PNG to write.
        frames: Frames in a row.

    Returns:
        The path.

    Source: paper 1 figure 6, which shows rendered frames. Deviates: contours of a neutral face where no
        video is given, and the speed below, in which what the velocity loss changes is seen at once.
    """
    plt = pyplot()
    colors = {
        s.name: REAL_COLOR if s.variant == REAL else color_of(s.variant, x)
        for x, s in enumerate(strips)
    }
    moving = {strip.name: strip.motion for strip in strips if strip.motion is not None}
    rows = len(strips) + bool(moving)
    figure = plt.figure(figsize=(1.7 * frames, 1.7 * rows + 0.4), layout="constrained")
    grid = figure.add_gridspec(rows, frames)
    for row, strip in enumerate(strips):
        cells = [figure.add_subplot(grid[row, column]) for column in range(frames)]
        for axes in cells:
            axes.set_xticks([])
            axes.set_yticks([])
        cells[0].set_ylabel(strip.name, fontsize=8)
        _fill_row(cells, strip, layout, colors[strip.name])
    if moving:
        axes = figure.add_subplot(grid[rows - 1, :])
        for name, motion in moving.items():
            speed = rotation_speed(motion, layout)
            time_s = np.arange(1, len(speed) + 1) / FPS
            axes.plot(time_s, speed, color=colors[name], lw=0.9, label=name)
        axes.set_xlabel("s", fontsize=7)
        axes.set_ylabel("head turns, °/s", fontsize=7)
        axes.tick_params(labelsize=6)
        axes.legend(fontsize=6, frameon=False)
    figure.suptitle(title, fontsize=8)
    return save_figure(figure, path)


def _fill_row(cells: Sequence[Any], strip: Strip, layout: Mapping[str, slice], color: str) -> None:
    """Frames of one method, as far as it has any."""
    if strip.pictures is not None:
        for axes, at in zip(cells, evenly(len(strip.pictures), len(cells)), strict=False):
            axes.imshow(strip.pictures[at])
        return
    faces = None if strip.motion is None else descriptor_faces(strip.motion, layout)
    if faces is None:
        cells[0].text(0.5, 0.5, "missing", transform=cells[0].transAxes, ha="center", color="grey")
        return
    for axes, at in zip(cells, evenly(len(faces), len(cells)), strict=False):
        for ring in _RINGS:
            closed = np.append(ring, ring[0])
            axes.plot(*faces[at, closed, :2].T, color=color, lw=0.8)
        axes.set_xlim(0.0, 1.0)
        axes.set_ylim(1.0, 0.0)
        axes.set_aspect("equal")
        axes.set_title(f"{at / FPS:.2f} s", fontsize=6)


def _color(strip: Strip, index: int) -> str:
    return REAL_COLOR if strip.variant == REAL else color_of(strip.variant, index)
