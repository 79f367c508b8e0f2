"""Eyes and open mouths of an animated portrait, sampled from the portrait itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talkhead.geometry import face_topology as ft
from talkhead.render.face_details import SCALE, Window, smooth_curve
from talkhead.render.rasterizer import opencv, sample_texture

FloatArray = NDArray[np.float32]
ImageArray = NDArray[np.uint8]


class EyeFrame:
    """Coordinates of one eye: along its corners and across, in half eye widths."""

    def __init__(
        self,
        points: FloatArray,
        upper: NDArray[np.intp],
        lower: NDArray[np.intp],
        iris: NDArray[np.intp],
    ) -> None:
        """Measure the eye of ``points (478, 3)`` in pixels."""
        left, right = points[upper[0], :2], points[upper[-1], :2]
        self.centre = 0.5 * (left + right)
        self.half = max(float(np.linalg.norm(right - left)) / 2, 1e-3)
        along = (right - left) / (2 * self.half)
        self.axes = np.stack([along, [-along[1], along[0]]]).astype(np.float32)
        self.iris = self.to_local(points[iris[0], :2])
        rim = np.linalg.norm(points[iris[1:], :2] - points[iris[0], :2], axis=1)
        self.radius = float(rim.max()) / self.half
        self.top = self.to_local(points[upper, :2])
        self.bottom = self.to_local(points[lower, :2])
        middle = len(upper) // 2
        self.gap = max(float(self.bottom[middle, 1] - self.top[middle, 1]), 1e-3)

    def to_local(self, points: FloatArray) -> FloatArray:
        """Picture pixels ``(..., 2)`` in the eye's own coordinates."""
        return np.asarray((points - self.centre) @ self.axes.T / self.half, np.float32)

    def from_local(self, local: FloatArray) -> FloatArray:
        """The inverse of :meth:`to_local`."""
        return np.asarray(local @ self.axes * self.half + self.centre, np.float32)

    def follow(self, grid: FloatArray, source: EyeFrame) -> FloatArray:
        """Where in ``source`` the eyeball at picture positions ``grid (h, w, 2)`` comes from.

        The iris moves as a whole, the white is stretched between it and the corners, and nothing is
        taken from beyond the lids of the source.
        """
        local = self.to_local(grid)
        reach = min(0.45, source.radius * 1.1)
        limit = 0.98 - reach
        here = float(np.clip(self.iris[0], -limit, limit))
        there = float(np.clip(source.iris[0], -limit, limit))
        s = np.interp(
            local[..., 0],
            [-1.6, -1.0, here - reach, here + reach, 1.0, 1.6],
            [-1.6, -1.0, there - reach, there + reach, 1.0, 1.6],
        )
        away = np.clip((np.abs(local[..., 0] - here) - reach) / 0.5, 0.0, 1.0)
        v = local[..., 1] + (source.iris[1] - self.iris[1]) * (1.0 - away)
        top = np.interp(s, source.top[:, 0], source.top[:, 1])
        bottom = np.interp(s, source.bottom[:, 0], source.bottom[:, 1])
        # Where the new opening shows more than the old one did, its edge pixels are repeated.
        inset = np.minimum(0.06, 0.25 * (bottom - top))
        new_top = np.interp(local[..., 0], self.top[:, 0], self.top[:, 1])
        new_bottom = np.interp(local[..., 0], self.bottom[:, 0], self.bottom[:, 1])
        low = np.where(np.abs(new_top - top) < 0.01, -np.inf, top + inset)
        high = np.where(np.abs(new_bottom - bottom) < 0.01, np.inf, bottom - inset)
        v = np.clip(v, low, np.maximum(high, low))
        return np.asarray(np.stack([s, v], axis=-1), np.float32)


def window_grid(window: Window) -> FloatArray:
    """Picture position of every sample of a window, ``(h, w, 2)`` in pixels."""
    height, width = window.alpha.shape
    x = (np.arange(width, dtype=np.float32) + 0.5) / SCALE - 0.5 + window.x
    y = (np.arange(height, dtype=np.float32) + 0.5) / SCALE - 0.5 + window.y
    return np.stack(np.meshgrid(x, y), axis=-1)


def _opening(upper: FloatArray, lower: FloatArray) -> FloatArray:
    """Outline of an eye or mouth opening from its two edges, both left to right."""
    top = smooth_curve(upper, closed=False)
    return np.concatenate([top, smooth_curve(lower, closed=False)[::-1]])


def redraw_eye(
    picture: ImageArray,
    image: ImageArray,
    source: FloatArray,
    target: FloatArray,
    indices: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]],
) -> None:
    """Lay the eyeball of the portrait into the new eye opening, in place.

    Args:
        picture: ``(H, W, 3)`` uint8, what is drawn into.
        image: The portrait.
        source: ``(478, 3)`` landmarks of the portrait in pixels.
        target: ``(478, 3)`` new landmarks in pixels.
        indices: Upper lid, lower lid and iris of the eye.
    """
    upper, lower, iris = indices
    window = Window.around(target[np.concatenate([upper, lower]), :2], 1, picture.shape[:2])
    if window is None:
        return
    new, old = EyeFrame(target, upper, lower, iris), EyeFrame(source, upper, lower, iris)
    positions = old.from_local(new.follow(window_grid(window), old))
    window.colour[:] = sample_texture(image, positions)
    opening = _opening(target[upper, :2], target[lower, :2])
    window.polygon(window.alpha, opening, 255.0)
    window.blend_into(picture)


def redraw_open_mouth(
    picture: ImageArray,
    image: ImageArray,
    source: FloatArray,
    target: FloatArray,
    cavity: tuple[float, float, float],
) -> None:
    """Inside of a mouth that the portrait shows open, in place.

    The upper teeth keep their size and stay under the upper lip; what opens below them is dark.

    Args:
        picture: ``(H, W, 3)`` uint8, what is drawn into.
        image: The portrait.
        source: ``(478, 3)`` landmarks of the portrait in pixels.
        target: ``(478, 3)`` new landmarks in pixels.
        cavity: Colour of the dark.
    """
    upper, lower = ft.LIPS_INNER_UPPER, ft.LIPS_INNER_LOWER
    window = Window.around(target[np.concatenate([upper, lower]), :2], 1, picture.shape[:2])
    if window is None:
        return
    new, old = (EyeFrame(p, upper, lower, ft.PICTURE_LEFT_IRIS) for p in (target, source))
    unit = [float(np.linalg.norm(np.subtract(*p[ft.EYE_OUTER, :2]))) for p in (target, source)]
    local = new.to_local(window_grid(window))
    s, depth = local[..., 0], local[..., 1] - np.interp(local[..., 0], *new.top.T)
    # Heights are kept in eye distances, because a mouth gets narrower without its teeth doing so.
    depth = depth * (new.half / unit[0]) / (old.half / unit[1])
    top, bottom = np.interp(s, *old.top.T), np.interp(s, *old.bottom.T)
    gap = np.maximum(bottom - top, 1e-3)
    inside = np.clip(depth, 0.0, 0.86 * gap)
    at = old.from_local(np.stack([s, top + inside], axis=-1).astype(np.float32))
    colour = sample_texture(image, at).astype(np.float32)
    over = np.clip((depth / gap - 0.72) / 0.5, 0.0, 1.0)
    grown = float(
        np.clip((new.gap * new.half / unit[0]) / (old.gap * old.half / unit[1]) - 1, 0, 1)
    )
    dark = (over * over * (3.0 - 2.0 * over) * min(1.0, 4.0 * grown))[..., None]
    window.colour[:] = np.clip(colour + (np.array(cavity, np.float32) - colour) * dark, 0, 255)
    window.colour[:] = opencv().GaussianBlur(window.colour, (0, 0), 1.0)
    opening = _opening(target[upper, :2], target[lower, :2])
    window.polygon(window.alpha, opening, 255.0)
    window.alpha[:] = opencv().GaussianBlur(window.alpha, (0, 0), 1.2)
    window.blend_into(picture)
