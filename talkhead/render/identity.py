"""Invented people: everything about a drawn face that does not move, drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from talkhead.geometry import face_topology as ft
from talkhead.render.face_rig import close_mouth

FloatArray = NDArray[np.float32]
Colour = tuple[float, float, float]
HairStyle = Literal["short", "side_part", "bob", "long", "bun", "curly"]

IDENTITY_SEEDS: tuple[int, ...] = (
    *(0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 32),
    *(14, 15, 17, 20, 21, 24, 27, 33, 34, 36, 37, 38),
)
"""Seeds whose faces are told apart easily and found and read reliably by a face tracker."""

IRIS_SHARE = 0.74
"""Iris size against a real one: vertical gaze has to stay visible between the lids."""

_SKINS: tuple[Colour, ...] = (
    (244, 210, 188),
    (236, 192, 164),
    (224, 176, 142),
    (208, 156, 120),
    (184, 132, 98),
    (150, 104, 76),
    (122, 84, 62),
)
_HAIRS: tuple[Colour, ...] = (
    (34, 28, 26),
    (58, 40, 30),
    (92, 62, 40),
    (134, 94, 56),
    (196, 160, 102),
    (140, 66, 36),
    (152, 148, 144),
)
_EYES: tuple[Colour, ...] = (
    (78, 50, 32),
    (98, 72, 40),
    (76, 104, 74),
    (84, 120, 150),
    (92, 104, 116),
)
_CLOTHES: tuple[Colour, ...] = (
    (48, 62, 92),
    (120, 44, 48),
    (60, 92, 74),
    (196, 188, 176),
    (44, 44, 50),
    (146, 118, 74),
    (96, 70, 112),
    (70, 122, 140),
)
_BACKGROUNDS: tuple[Colour, ...] = (
    (172, 184, 194),
    (198, 186, 168),
    (142, 160, 150),
    (112, 122, 142),
    (186, 168, 180),
    (214, 210, 204),
    (120, 108, 100),
)
_STYLES: tuple[HairStyle, ...] = ("short", "side_part", "bob", "long", "bun", "curly")


@dataclass(frozen=True)
class Identity:
    """The fixed traits of a drawn person. Colours are RGB in ``[0, 255]``.

    Attributes:
        seed: Where everything below came from.
        face: ``(478, 3)`` neutral landmarks in face space, mouth closed.
        head_scale: Crop widths per face-space unit at ``FaceState.scale`` 1.
        skin: Skin tone.
        hair: Hair colour.
        hair_style: Shape of the hair.
        hairline: How far the hair comes down over the forehead, face-space units.
        brow: Brow colour.
        brow_thickness: Relative width of the brows.
        eye: Iris colour.
        lip: Lip colour.
        freckles: Number of freckles.
        wrinkles: Strength of forehead and cheek lines, 0 to 1.
        stubble: Strength of the beard shade, 0 to 1.
        lashes: Strength of the lash line, 0 to 1.
        glasses: Whether thin-rimmed glasses are worn.
        clothes: Colour of the clothes.
        background: Colours of the background at the top and the bottom.
        light: ``(3,)`` unit direction towards the light in the picture frame.
    """

    seed: int
    face: FloatArray
    head_scale: float
    skin: Colour
    hair: Colour
    hair_style: HairStyle
    hairline: float
    brow: Colour
    brow_thickness: float
    eye: Colour
    lip: Colour
    freckles: int
    wrinkles: float
    stubble: float
    lashes: float
    glasses: bool
    clothes: Colour
    background: tuple[Colour, Colour]
    light: FloatArray

    @classmethod
    def from_seed(cls, seed: int) -> Identity:
        """The person that belongs to ``seed``: the same on every machine, none of them real.

        Skin, hair colour and hair style step through their lists so that neighbouring seeds differ.
        """
        rng = np.random.default_rng([seed, 478])
        skin = _jitter(_SKINS[(seed * 3 + seed // 7) % len(_SKINS)], rng, 6.0)
        hair = _jitter(_HAIRS[(seed * 2 + seed // 5) % len(_HAIRS)], rng, 6.0)
        if np.mean(skin) < 125:
            hair = _jitter(_HAIRS[seed % 2], rng, 4.0)
        style = _STYLES[(seed + seed // 6) % len(_STYLES)]
        man = style in ("short", "side_part") or (style == "curly" and seed % 2 == 0)
        lip = _mix(skin, (176, 74, 74) if man else (186, 52, 66), 0.5 if man else 0.62)
        background = _jitter(_BACKGROUNDS[(seed * 5 + 2) % len(_BACKGROUNDS)], rng, 8.0)
        angle = rng.uniform(-0.9, 0.9)
        light = np.array([np.sin(angle) * 0.75, -0.55, -0.95], np.float32)
        return cls(
            seed=seed,
            face=_face_shape(rng, man),
            head_scale=float(rng.uniform(0.295, 0.318)),
            skin=skin,
            hair=hair,
            hair_style=style,
            hairline=float(rng.uniform(0.0, 0.13)),
            brow=_mix(hair, (40, 28, 24), 0.45),
            brow_thickness=float(rng.uniform(0.9, 1.35) if man else rng.uniform(0.6, 1.0)),
            eye=_jitter(_EYES[int(rng.integers(len(_EYES)))], rng, 6.0),
            lip=lip,
            freckles=int(rng.integers(30, 90)) if rng.random() < 0.3 else 0,
            wrinkles=float(rng.uniform(0.0, 0.9) ** 2),
            stubble=float(rng.uniform(0.25, 0.9)) if man and rng.random() < 0.6 else 0.0,
            lashes=float(rng.uniform(0.55, 0.75) if man else rng.uniform(0.8, 1.0)),
            glasses=bool(rng.random() < 0.2),
            clothes=_jitter(_CLOTHES[(seed * 3 + 1) % len(_CLOTHES)], rng, 8.0),
            background=(
                _mix(background, (255, 255, 255), 0.2),
                _mix(background, (40, 40, 50), 0.3),
            ),
            light=light / np.linalg.norm(light),
        )


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    """``first`` with a ``share`` of ``second``."""
    r, g, b = (float(a + (c - a) * share) for a, c in zip(first, second, strict=True))
    return (r, g, b)


def _jitter(colour: Colour, rng: np.random.Generator, amount: float) -> Colour:
    shift = rng.normal(0.0, amount) + rng.normal(0.0, 0.3 * amount, 3)
    r, g, b = np.clip(np.asarray(colour) + shift, 8, 250).tolist()
    return (r, g, b)


def _bump(points: FloatArray, centre: tuple[float, float], radius: float) -> FloatArray:
    """Gaussian weight of every point about ``(|x|, y)`` of ``centre``, ``(N,)``."""
    distance = (np.abs(points[:, 0]) - centre[0]) ** 2 + (points[:, 1] - centre[1]) ** 2
    return np.asarray(np.exp(-distance / (2.0 * radius**2)), np.float32)


def _face_shape(rng: np.random.Generator, man: bool) -> FloatArray:
    """Canonical landmarks deformed by smooth random modes, mouth closed, ``(478, 3)``."""
    points = np.concatenate([close_mouth(ft.canonical_vertices()), ft.canonical_landmarks()[468:]])
    x, y = points[:, 0].copy(), points[:, 1].copy()
    side = np.sign(x)
    draw = rng.normal(0.0, 1.0, 12).clip(-1.6, 1.6)
    # A camera at talking distance sees the sides of a head smaller than its front.
    points[:, 0] *= 1.0 - 0.11 * np.clip((points[:, 2] - 0.05) / 0.6, 0.0, 1.0) ** 1.2
    lower, upper = np.clip(y, 0, None), np.clip(-y, 0, None)
    points[:, 0] *= (
        1.0 + 0.03 * draw[0] + (0.08 * draw[1] + 0.03 * man) * lower - 0.05 * draw[2] * upper
    )
    points[:, 1] *= 1.0 + 0.03 * draw[3]
    points[:, 1] += (0.035 * draw[4] + 0.02 * man) * _bump(points, (0.0, 0.98), 0.3)  # chin length
    points[:, 2] -= (0.03 * draw[5] + 0.015 * man) * _bump(points, (0.0, 0.8), 0.2)  # chin forward
    nose = _bump(points, (0.0, 0.06), 0.16)
    points[:, 0] += side * 0.022 * draw[6] * _bump(points, (0.13, 0.1), 0.09)  # nose width
    points[:, 1] += 0.03 * draw[7] * nose  # nose length
    points[:, 2] -= 0.03 * draw[8] * nose  # nose tip
    points[:, 1] += 0.02 * draw[9] * _bump(points, (0.38, -0.62), 0.16)  # brow height
    points[:, 0] += side * 0.018 * draw[10] * _bump(points, (0.36, -0.37), 0.3)  # eye distance
    points[:, 0] += side * 0.02 * draw[11] * _bump(points, (0.28, 0.41), 0.16)  # mouth width
    points[:, 0] += side * 0.03 * rng.normal() * _bump(points, (0.6, -0.05), 0.25)  # cheek bones
    _scale_lips(points, 1.0 + 0.16 * rng.normal() - 0.12 * man)
    _scale_eyes(points, 1.50 + 0.06 * rng.normal())
    for iris in (ft.PICTURE_LEFT_IRIS, ft.PICTURE_RIGHT_IRIS):
        points[iris] = points[iris[0]] + IRIS_SHARE * (points[iris] - points[iris[0]])
    return points.astype(np.float32)


def _scale_lips(points: FloatArray, fullness: float) -> None:
    """Stretch the lips vertically about their seam, in place."""
    seam = float(points[13, 1])
    weight = _bump(points, (0.0, seam), 0.14)
    factor = np.clip(fullness, 0.7, 1.35) - 1.0
    points[:, 1] += factor * weight * (points[:, 1] - seam)


def _scale_eyes(points: FloatArray, opening: float) -> None:
    """Open or narrow both eyes about their middle, in place."""
    for eye in (ft.PICTURE_LEFT_EYE, ft.PICTURE_RIGHT_EYE):
        x0, y0, _ = points[eye].mean(axis=0)
        near = (points[:, 0] - x0) ** 2 / 0.14**2 + (points[:, 1] - y0) ** 2 / 0.08**2
        weight = np.exp(-0.5 * near).astype(np.float32)
        weight[ft.N_MESH :] = 0.0
        points[:, 1] += np.clip(opening - 1.0, 0.3, 0.65) * weight * (points[:, 1] - y0)
