"""Eyes, mouth interior and glasses: painted over the mesh in small supersampled windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talkhead.geometry import face_topology as ft
from talkhead.render.identity import Colour
from talkhead.render.rasterizer import ImageArray, opencv

FloatArray = NDArray[np.float32]

SCALE = 4
"""Supersampling of the windows."""
_SHIFT = 4


@dataclass
class Window:
    """A patch of the picture at ``SCALE`` times the resolution, with its own opacity.

    Attributes:
        x: Left edge in the picture, pixels.
        y: Upper edge in the picture, pixels.
        colour: ``(h, w, 3)`` uint8 paint.
        alpha: ``(h, w)`` uint8 opacity.
    """

    x: int
    y: int
    colour: ImageArray
    alpha: ImageArray

    @classmethod
    def around(cls, points: FloatArray, pad: int, size: tuple[int, ...]) -> Window | None:
        """Window that holds ``points (N, 2)`` in pixels; None when it misses the picture.

        Args:
            points: What to hold.
            pad: Margin in pixels.
            size: Height and width of the picture, its shape without channels.
        """
        low = np.maximum(np.floor(points[:, :2].min(axis=0)).astype(int) - pad, 0)
        high = np.minimum(np.ceil(points[:, :2].max(axis=0)).astype(int) + pad + 1, size[::-1])
        width, height = (high - low).tolist()
        if width <= 0 or height <= 0:
            return None
        shape = (height * SCALE, width * SCALE)
        return cls(
            int(low[0]), int(low[1]), np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
        )

    def to_fixed(self, points: FloatArray) -> NDArray[np.int32]:
        """Picture pixels ``(N, 2)`` as OpenCV's fixed-point window coordinates."""
        local = (points[:, :2] - (self.x, self.y) + 0.5) * SCALE - 0.5
        return np.asarray(np.rint(local * (1 << _SHIFT)), np.int32)

    def polygon(
        self, target: ImageArray, points: FloatArray, colour: tuple[float, ...] | float
    ) -> None:
        """Fill a polygon of picture pixels into ``colour`` or ``alpha``."""
        opencv().fillPoly(target, [self.to_fixed(points)], colour, 8, _SHIFT)

    def line(
        self,
        target: ImageArray,
        points: FloatArray,
        colour: tuple[float, ...] | float,
        width_px: float,
    ) -> None:
        """Draw an open polyline, ``width_px`` in picture pixels."""
        thick = max(1, round(width_px * SCALE))
        opencv().polylines(target, [self.to_fixed(points)], False, colour, thick, 8, _SHIFT)

    def disc(
        self,
        target: ImageArray,
        at: FloatArray,
        radius_px: float,
        colour: tuple[float, ...] | float,
    ) -> None:
        """Draw a filled circle."""
        (centre,) = self.to_fixed(at[None])
        radius = max(1, round(radius_px * SCALE * (1 << _SHIFT)))
        opencv().circle(target, tuple(centre.tolist()), radius, colour, -1, 8, _SHIFT)

    def blend_into(self, picture: ImageArray) -> None:
        """Reduce the window and lay it over ``picture``, in place."""
        cv2 = opencv()
        height, width = self.alpha.shape[0] // SCALE, self.alpha.shape[1] // SCALE
        premultiplied = cv2.multiply(self.colour, cv2.merge([self.alpha] * 3), scale=1 / 255.0)
        paint = cv2.resize(premultiplied, (width, height), interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(self.alpha, (width, height), interpolation=cv2.INTER_AREA)
        area = picture[self.y : self.y + height, self.x : self.x + width]
        rest = area * (1.0 - alpha[..., None].astype(np.float32) / 255.0)
        area[:] = np.clip(rest + paint + 0.5, 0, 255).astype(np.uint8)


def smooth_curve(points: FloatArray, *, closed: bool) -> FloatArray:
    """Corner-cut (Chaikin) curve: twice as many points, end points kept when open."""
    if closed:
        following = np.roll(points, -1, axis=0)
        pair = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1)
        return pair.reshape(-1, points.shape[1])
    a, b = points[:-1], points[1:]
    pair = np.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b], 1).reshape(-1, points.shape[1])
    return np.concatenate([points[:1], pair[1:-1], points[-1:]])


@dataclass(frozen=True)
class EyePaint:
    """Colours of an eye: iris, lash line and its strength, brightness of the white."""

    iris: Colour
    lash: Colour
    lash_strength: float
    white: float = 232.0


def paint_eye(
    picture: ImageArray, points: FloatArray, upper: FloatArray, lower: FloatArray, paint: EyePaint
) -> None:
    """Paint one eye into ``picture``, in place.

    Args:
        picture: ``(H, W, 3)`` uint8.
        points: ``(5, 2..3)`` iris points in pixels: centre, then the rim.
        upper: Upper lid from left to right, pixels.
        lower: Lower lid from left to right, pixels.
        paint: Colours.
    """
    top, bottom = smooth_curve(upper, closed=False), smooth_curve(lower, closed=False)
    width = float(np.linalg.norm(upper[-1, :2] - upper[0, :2]))
    window = Window.around(np.concatenate([upper, lower]), 3, picture.shape[:2])
    if window is None:
        return
    cv2 = opencv()
    opening = np.concatenate([top, bottom[::-1]])
    centre = points[0, :2].astype(np.float32)
    radius = float(np.linalg.norm(points[1:, :2] - points[:1, :2], axis=1).max())
    white = np.array([paint.white, paint.white * 0.965, paint.white * 0.94])
    window.colour[:] = white.astype(np.uint8)
    dark = np.asarray(paint.iris) * 0.42
    window.disc(window.colour, centre, radius, tuple(dark.tolist()))
    window.disc(window.colour, centre, radius * 0.84, paint.iris)
    glow = np.minimum(np.asarray(paint.iris) * 1.35 + 12, 255)
    window.disc(
        window.colour,
        centre + np.array([0, radius * 0.3], np.float32),
        radius * 0.52,
        tuple(glow.tolist()),
    )
    window.disc(window.colour, centre, radius * 0.45, (14.0, 11.0, 11.0))
    window.colour[:] = cv2.GaussianBlur(window.colour, (0, 0), 1.6)
    _shade_under_lid(window, top, bottom, width)
    window.disc(
        window.colour,
        centre + radius * np.array([0.33, -0.36], np.float32),
        radius * 0.2,
        (250.0,) * 3,
    )
    window.polygon(window.alpha, opening, 255.0)
    _draw_lashes(window, top, bottom, width, paint)
    window.blend_into(picture)


def _shade_under_lid(window: Window, top: FloatArray, bottom: FloatArray, width: float) -> None:
    """The upper lid's shadow on the eyeball, and darker corners."""
    cv2 = opencv()
    shadow = np.zeros_like(window.alpha)
    window.line(shadow, top, 255.0, 0.13 * width)
    window.line(shadow, bottom, 90.0, 0.05 * width)
    for corner in (top[0], top[-1]):
        window.disc(shadow, corner, 0.10 * width, 170.0)
    shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.8, 0.045 * width * SCALE))
    factor = (
        1.0
        - shadow[..., None].astype(np.float32) * np.array([0.34, 0.42, 0.44], np.float32) / 255.0
    )
    window.colour[:] = (window.colour * factor).astype(np.uint8)


def _draw_lashes(
    window: Window, top: FloatArray, bottom: FloatArray, width: float, paint: EyePaint
) -> None:
    lash = tuple(paint.lash)
    strength = 255.0 * paint.lash_strength
    thick = max(0.6, 0.05 * width * (0.6 + 0.5 * paint.lash_strength))
    window.line(window.colour, top, lash, thick)
    line = np.zeros_like(window.alpha)
    window.line(line, top, strength, thick)
    soft = tuple((0.55 * np.asarray(lash) + 0.45 * np.asarray([120.0, 72.0, 60.0])).tolist())
    window.line(window.colour, bottom, soft, 0.45)
    window.line(line, bottom, 0.62 * strength, 0.45)
    np.maximum(window.alpha, line, out=window.alpha)


@dataclass(frozen=True)
class MouthPaint:
    """Colours of the inside of a mouth and of the line between closed lips."""

    cavity: Colour
    teeth: Colour
    tongue: Colour
    seam: Colour


def paint_mouth(
    picture: ImageArray,
    upper: FloatArray,
    lower: FloatArray,
    paint: MouthPaint,
    project: Callable[[str], FloatArray],
) -> None:
    """Paint the inside of the mouth into ``picture``, in place.

    Args:
        picture: ``(H, W, 3)`` uint8.
        upper: Upper inner lip from left to right, pixels.
        lower: Lower inner lip from left to right, pixels.
        paint: Colours.
        project: Gives the outline ``(N, 2)`` in pixels of ``"upper_teeth"``, ``"lower_teeth"`` and
            ``"tongue"``.
    """
    top, bottom = smooth_curve(upper, closed=False), smooth_curve(lower, closed=False)
    window = Window.around(np.concatenate([upper, lower]), 2, picture.shape[:2])
    if window is None:
        return
    cv2 = opencv()
    width = float(np.linalg.norm(upper[-1, :2] - upper[0, :2]))
    gap = float(np.linalg.norm(upper[5, :2] - lower[5, :2]))
    opening = np.concatenate([top, bottom[::-1]])
    if gap > 0.6:
        window.colour[:] = np.asarray(paint.cavity).astype(np.uint8)
        window.polygon(window.colour, project("tongue"), paint.tongue)
        shade = tuple((0.72 * np.asarray(paint.teeth)).tolist())
        window.polygon(window.colour, project("lower_teeth"), shade)
        window.polygon(window.colour, project("upper_teeth"), paint.teeth)
        window.colour[:] = cv2.GaussianBlur(window.colour, (0, 0), 1.8)
        shadow = np.zeros_like(window.alpha)
        window.line(shadow, top, 235.0, max(1.0, 0.10 * gap + 0.02 * width))
        window.line(shadow, bottom, 150.0, max(0.7, 0.05 * gap))
        for corner in (top[0], top[-1]):
            window.disc(shadow, corner, 0.17 * width, 230.0)
        shadow = cv2.GaussianBlur(shadow, (0, 0), max(1.0, 0.05 * width * SCALE * 0.7))
        factor = 1.0 - 0.75 * shadow[..., None].astype(np.float32) / 255.0
        window.colour[:] = (window.colour * factor).astype(np.uint8)
        window.polygon(window.alpha, opening, 255.0)
    seam = np.zeros_like(window.alpha)
    for edge, strength in ((top, 210.0), (bottom, 150.0)):
        window.line(window.colour, edge, paint.seam, 0.5)
        window.line(seam, edge, strength, 0.5)
    np.maximum(window.alpha, seam, out=window.alpha)
    window.blend_into(picture)


def mouth_shapes(face: FloatArray) -> dict[str, FloatArray]:
    """Outlines in face space, ``(N, 3)`` each: ``upper_teeth``, ``lower_teeth`` and ``tongue``.

    Args:
        face: ``(478, 3)`` landmarks in face space with the mouth closed, or nearly so.
    """
    left, right = face[78], face[308]
    seam = face[13]
    half = 0.80 * float(right[0] - left[0]) / 2
    phase = np.linspace(-1.0, 1.0, 9)
    depth = float(seam[2]) + 0.06 + 0.10 * phase**2

    def band(top: float, bottom: float, width: float, curve: float) -> FloatArray:
        x = width * phase
        upper = np.stack([x, seam[1] + top - curve * phase**2, depth], axis=1)
        lower = np.stack([x, seam[1] + bottom - curve * phase**2, depth], axis=1)
        return np.asarray(np.concatenate([upper, lower[::-1]]), np.float32)

    turn = np.linspace(0.0, 2.0 * np.pi, 20)
    tongue = np.stack(
        [
            0.62 * half * np.cos(turn),
            seam[1] + 0.045 + 0.055 * np.sin(turn),
            np.full(20, float(seam[2]) + 0.12),
        ],
        axis=1,
    )
    return {
        "upper_teeth": band(-0.07, 0.052, half, 0.012),
        "lower_teeth": band(0.022, 0.11, 0.82 * half, -0.004),
        "tongue": tongue.astype(np.float32),
    }


def paint_glasses(picture: ImageArray, points: FloatArray, colour: Colour) -> None:
    """Thin-rimmed glasses on the posed landmarks ``(478, 2..3)`` in pixels, in place."""
    unit = float(np.linalg.norm(points[263, :2] - points[33, :2]))
    across = (points[263, :2] - points[33, :2]) / max(unit, 1e-6)
    down = np.array([-across[1], across[0]])
    rims = []
    phase = np.linspace(0.0, 2.0 * np.pi, 25)
    for eye in (ft.PICTURE_LEFT_EYE, ft.PICTURE_RIGHT_EYE):
        lids = points[eye, :2]
        centre = 0.5 * (lids[0] + lids[8]) + 0.025 * unit * down
        half = 0.5 * np.linalg.norm(lids[8] - lids[0]) + 0.075 * unit
        shape = np.sign(np.sin(phase)) * np.abs(np.sin(phase)) ** 0.75
        rims.append(
            centre + np.outer(half * np.cos(phase), across) + np.outer(0.21 * unit * shape, down)
        )
    bridge = np.stack([rims[0][0], points[168, :2] + 0.05 * unit * down, rims[1][12]])
    temples = [np.stack([rims[0][12], points[127, :2]]), np.stack([rims[1][0], points[356, :2]])]
    every = np.concatenate([*rims, bridge, *temples])
    window = Window.around(every, 2, picture.shape[:2])
    if window is None:
        return
    window.colour[:] = np.asarray(colour).astype(np.uint8)
    for path in (*rims, smooth_curve(bridge, closed=False), *temples):
        window.line(window.alpha, path.astype(np.float32), 180.0, max(0.5, 0.009 * unit))
    window.blend_into(picture)
