"""Motion descriptors: what moves in a face, in a few interpretable numbers for each frame.

Crop space has x right, y down and z away from the viewer in crop widths. Face space is the head's
own frame: same axes, centred, unit = distance between the outer eye corners of the canonical face.
They are linked by ``crop_xyz = scale * R @ face_xyz + (tx, ty, 0)`` with ``R`` of
:mod:`talkhead.geometry.rotation`. MediaPipe's depth has no fixed origin, so the depth of the whole
head is dropped by :func:`pose_free` and is 0 after :meth:`MotionModel.decode`.

Descriptor columns, in order: rotation 3 (pitch, yaw, roll in radians), translation 2 and scale 1
(crop widths), expression E (unit variance on the training split), eyes 2 (picture-left,
picture-right lid opening over eye width), gaze 2 (iris offset over half eye width, x right, y down,
mean of both eyes), mouth 1 (opening over outer-eye distance). Openings are measured along the
face's own vertical, with a sign, so that they are linear in the points; a tracker's crossed lids
give small negative values.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import DataError, ShapeError
from talkhead.geometry import face_topology as topology
from talkhead.geometry.rigid import fit_similarity
from talkhead.geometry.rotation import euler_to_matrix, matrix_to_euler
from talkhead.specs import N_LANDMARKS

FloatArray = NDArray[np.floating[Any]]
Float32Array = NDArray[np.float32]

FORMAT = 1
_EYES = (
    (topology.PICTURE_LEFT_EYE, topology.PICTURE_LEFT_IRIS),
    (topology.PICTURE_RIGHT_EYE, topology.PICTURE_RIGHT_IRIS),
)
# Outer and inner corner of the picture-left and picture-right eye.
_CORNERS = np.stack([topology.EYE_OUTER, topology.EYE_INNER], axis=1)
_UPPER_LID_SHARE = 0.8
_UPPER_LIP_SHARE = 0.2


def check_landmarks(landmarks: FloatArray) -> FloatArray:
    """Return landmarks ``(T, 478, 3)`` unchanged.

    Raises:
        ShapeError: Another shape, no frame, or values that are not finite.
    """
    got = np.asarray(landmarks)
    if got.ndim != 3 or got.shape[1:] != (N_LANDMARKS, 3) or len(got) == 0:
        raise ShapeError(f"expected landmarks (T, {N_LANDMARKS}, 3), T >= 1, got {got.shape}.")
    if not np.isfinite(got).all():
        raise ShapeError("landmarks hold NaN or infinity; bridge tracking gaps first.")
    return got


def pose_free(
    landmarks: FloatArray,
) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
    """Split landmarks into face-space shapes and rigid head pose.

    The pose is fitted to the points that only the head moves, against the canonical face.

    Args:
        landmarks: Crop space, ``(T, 478, 3)``.

    Returns:
        Face-space shapes ``(T, 478, 3)``, rotation ``(T, 3)`` in radians, translation ``(T, 2)``
        and scale ``(T,)`` in crop widths, all float32.

    Raises:
        ShapeError: Wrong shape or values that are not finite.
    """
    points = np.asarray(check_landmarks(landmarks), np.float64)
    rotation, scale, translation = fit_similarity(
        topology.canonical_landmarks()[topology.RIGID], points[:, topology.RIGID]
    )
    # Row vectors: (R^T v)^T = v^T R.
    shapes = (points - translation[:, None]) @ rotation / scale[:, None, None]
    return (
        shapes.astype(np.float32),
        matrix_to_euler(rotation).astype(np.float32),
        translation[:, :2].astype(np.float32),
        scale.astype(np.float32),
    )


def apply_pose(
    shapes: FloatArray, rotation: FloatArray, translation: FloatArray, scale: FloatArray
) -> Float32Array:
    """Face-space shapes ``(T, P, 3)`` to crop space; the inverse of :func:`pose_free`.

    Args:
        shapes: ``(T, P, 3)``.
        rotation: pitch, yaw, roll in radians, ``(T, 3)``.
        translation: Crop widths, ``(T, 2)``.
        scale: Crop widths for one unit of face space, ``(T,)``.

    Returns:
        ``(T, P, 3)`` float32.
    """
    turned = np.asarray(shapes, np.float64) @ euler_to_matrix(rotation).swapaxes(-1, -2)
    out = turned * np.asarray(scale, np.float64)[:, None, None]
    out[..., :2] += np.asarray(translation, np.float64)[:, None]
    posed: Float32Array = out.astype(np.float32)
    return posed


def neutral_face(landmarks: FloatArray) -> Float32Array:
    """Median pose-free shape of a clip, ``(T, 478, 3)`` crop space -> ``(478, 3)`` face space.

    Raises:
        ShapeError: Wrong shape or values that are not finite.
    """
    middle: Float32Array = np.median(pose_free(landmarks)[0], axis=0).astype(np.float32)
    return middle


def _eye_frame(shapes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Middle of the eye corners ``(T, 2, 3)`` and eye width ``(T, 2)`` of both eyes."""
    corners = shapes[:, _CORNERS]
    width = np.linalg.norm(corners[:, :, 1] - corners[:, :, 0], axis=-1)
    return corners.mean(axis=2), np.maximum(width, 1e-6)


def eye_opening(shapes: FloatArray) -> FloatArray:
    """Lid distance over eye width of face-space shapes, ``(T, 478, 3)`` -> ``(T, 2)``."""
    lids = shapes[:, topology.LID_PAIRS, 1]
    return (lids[..., 1] - lids[..., 0]) / _eye_frame(shapes)[1]


def gaze(shapes: FloatArray) -> FloatArray:
    """Iris offset over half eye width, mean of both eyes, ``(T, 478, 3)`` -> ``(T, 2)``."""
    middle, width = _eye_frame(shapes)
    iris = np.stack([shapes[:, iris[0], :2] for _, iris in _EYES], axis=1)
    offset: FloatArray = (iris - middle[..., :2]) / (0.5 * width[..., None])
    return np.asarray(offset.mean(axis=1))


def mouth_opening(shapes: FloatArray) -> FloatArray:
    """Inner-lip over outer-eye distance of face-space shapes, ``(T, 478, 3)`` -> ``(T,)``."""
    upper, lower = topology.INNER_LIP_PAIR
    outer = shapes[:, topology.EYE_OUTER]
    unit = np.maximum(np.linalg.norm(outer[:, 1] - outer[:, 0], axis=-1), 1e-6)
    return np.asarray((shapes[:, lower, 1] - shapes[:, upper, 1]) / unit)


def _without_gaze(residual: FloatArray) -> FloatArray:
    """Residuals with the irises carried by their eye, so that expression does not hold gaze."""
    out = residual.copy()
    for eye, iris in _EYES:
        out[:, iris] = residual[:, eye].mean(axis=1, keepdims=True)
    return out


def _spread(moving: NDArray[np.intp], still: NDArray[np.intp], middle: int, reach: float) -> Any:
    """Weights ``(478,)``: 1 at ``middle``, 0 at the ring's ends and on ``still``, less around."""
    mesh = topology.canonical_vertices()
    along = np.zeros(N_LANDMARKS)
    ends = mesh[moving[[0, -1]], 0]
    position = (mesh[moving, 0] - ends[0]) / (ends[1] - ends[0])
    profile = np.clip(4.0 * position * (1.0 - position), 0.0, None)
    distance = np.linalg.norm(mesh[:, None, :2] - mesh[moving][None, :, :2], axis=-1)
    fall = profile * np.exp(-0.5 * (distance / reach) ** 2)
    along[: topology.N_MESH] = fall.max(axis=1)
    along[moving] = profile
    along[still] = 0.0
    along[along < 1e-2 * along[middle]] = 0.0
    return along / along[middle]


@lru_cache(maxsize=1)
def _opening_fields() -> tuple[FloatArray, FloatArray]:
    """Vertical motion of points for one unit of lid ``(2, 478)`` and lip distance ``(478,)``."""
    t = topology
    lids = []
    rings = (
        (t.PICTURE_LEFT_UPPER_LID, t.PICTURE_LEFT_LOWER_LID),
        (t.PICTURE_RIGHT_UPPER_LID, t.PICTURE_RIGHT_LOWER_LID),
    )
    for (upper, lower), pair in zip(rings, t.LID_PAIRS, strict=True):
        raise_by = _spread(upper, lower, int(pair[0]), 0.03)
        lower_by = _spread(lower, upper, int(pair[1]), 0.03)
        lids.append((1 - _UPPER_LID_SHARE) * lower_by - _UPPER_LID_SHARE * raise_by)
    upper_lip = np.concatenate([t.LIPS_INNER_UPPER, t.LIPS_OUTER_UPPER])
    lower_lip = np.concatenate([t.LIPS_INNER_LOWER, t.LIPS_OUTER_LOWER])
    lift = _spread(t.LIPS_INNER_UPPER, lower_lip, int(t.INNER_LIP_PAIR[0]), 0.08)
    drop = _spread(t.LIPS_INNER_LOWER, upper_lip, int(t.INNER_LIP_PAIR[1]), 0.15)
    return np.stack(lids), (1 - _UPPER_LIP_SHARE) * drop - _UPPER_LIP_SHARE * lift


class MotionModel:
    """Landmarks to motion descriptors and back, with the expression basis of a training split.

    A face-space shape is ``neutral + expression_mean + coefficients @ expression_basis``; the basis
    rows carry the standard deviations, so the coefficients have unit variance on the split it was
    fitted on.

    Args:
        expression_mean: Mean residual, ``(1434,)``.
        expression_basis: ``(E, 1434)``.
        n_expression: Number of basis rows to use, from the first on.

    Raises:
        ShapeError: The arrays do not fit together.
    """

    def __init__(
        self, expression_mean: FloatArray, expression_basis: FloatArray, n_expression: int = 16
    ) -> None:
        """Check and keep the basis."""
        mean = np.asarray(expression_mean, np.float32)
        basis = np.asarray(expression_basis, np.float32)
        size = N_LANDMARKS * 3
        if mean.shape != (size,) or basis.ndim != 2 or basis.shape[1] != size:
            raise ShapeError(
                f"expected a mean ({size},) and a basis (E, {size}), got {mean.shape} and "
                f"{basis.shape}."
            )
        if not 1 <= n_expression <= len(basis):
            raise ShapeError(f"expected 1 <= n_expression <= {len(basis)}, got {n_expression}.")
        self.expression_mean = mean
        self.expression_basis = basis[:n_expression]
        self.n_expression = n_expression
        # Directions without variance (a basis padded for a tiny split) must not blow noise up.
        self._inverse = np.linalg.pinv(self.expression_basis.astype(np.float64), rcond=1e-6)

    @property
    def layout(self) -> dict[str, slice]:
        """Name -> columns of a descriptor, in order."""
        widths = {
            "rotation": 3,
            "translation": 2,
            "scale": 1,
            "expression": self.n_expression,
            "eyes": 2,
            "gaze": 2,
            "mouth": 1,
        }
        out: dict[str, slice] = {}
        start = 0
        for name, width in widths.items():
            out[name] = slice(start, start + width)
            start += width
        return out

    @property
    def dim(self) -> int:
        """Descriptor width, ``11 + E``."""
        return 11 + self.n_expression

    def pose_free(
        self, landmarks: FloatArray
    ) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
        """See :func:`pose_free`."""
        return pose_free(landmarks)

    def neutral_face(self, landmarks: FloatArray) -> Float32Array:
        """See :func:`neutral_face`."""
        return neutral_face(landmarks)

    def encode(self, landmarks: FloatArray, neutral: FloatArray | None = None) -> Float32Array:
        """Descriptors of a clip.

        Args:
            landmarks: Crop space, ``(T, 478, 3)``.
            neutral: Neutral face in face space, ``(478, 3)``; the clip's median if None.

        Returns:
            ``(T, D)`` float32.

        Raises:
            ShapeError: Wrong shapes or values that are not finite.
        """
        shapes, rotation, translation, scale = pose_free(landmarks)
        if neutral is None:
            neutral = np.median(shapes, axis=0)
        residual = _without_gaze(shapes - _check_neutral(neutral))
        centred = residual.reshape(len(shapes), -1) - self.expression_mean
        parts = (
            rotation,
            translation,
            scale[:, None],
            centred @ self._inverse,
            eye_opening(shapes),
            gaze(shapes),
            mouth_opening(shapes)[:, None],
        )
        motion: Float32Array = np.concatenate(parts, axis=1).astype(np.float32)
        return motion

    def decode(self, motion: FloatArray, neutral: FloatArray) -> Float32Array:
        """Landmarks of descriptors on a face.

        Expression moves all points; then gaze places the irises and the eye and mouth columns set
        lid and lip distances exactly. A NaN in the eyes, gaze or mouth columns leaves the part as
        the expression has it.

        Args:
            motion: ``(T, D)``.
            neutral: The face to move, face space, ``(478, 3)``.

        Returns:
            Crop space, ``(T, 478, 3)`` float32.

        Raises:
            ShapeError: Wrong shapes.
        """
        motion = np.asarray(motion, np.float64)
        if motion.ndim != 2 or motion.shape[1] != self.dim:
            raise ShapeError(f"expected motion (T, {self.dim}), got {motion.shape}.")
        parts = {name: motion[:, columns] for name, columns in self.layout.items()}
        residual = parts["expression"] @ self.expression_basis + self.expression_mean
        shapes = _check_neutral(neutral) + residual.reshape(len(motion), N_LANDMARKS, 3)
        self._place_irises(shapes, parts["gaze"])
        self._open(shapes, parts["eyes"], parts["mouth"][:, 0])
        return apply_pose(shapes, parts["rotation"], parts["translation"], parts["scale"][:, 0])

    @staticmethod
    def _place_irises(shapes: FloatArray, wanted: FloatArray) -> None:
        """Shift both irises in place by the gaze error; the eyes keep their own difference."""
        error = np.nan_to_num(wanted - gaze(shapes))
        half = 0.5 * _eye_frame(shapes)[1]
        for side, (_, iris) in enumerate(_EYES):
            shapes[:, iris, :2] += (error * half[:, side : side + 1])[:, None]

    @staticmethod
    def _open(shapes: FloatArray, eyes: FloatArray, mouth: FloatArray) -> None:
        """Move lids and lips in place so that the openings are the wanted ones."""
        lid_field, lip_field = _opening_fields()
        width = _eye_frame(shapes)[1]
        lids = np.nan_to_num(eyes - eye_opening(shapes)) * width
        outer = shapes[:, topology.EYE_OUTER]
        unit = np.linalg.norm(outer[:, 1] - outer[:, 0], axis=-1)
        lips = np.nan_to_num(mouth - mouth_opening(shapes)) * unit
        shapes[..., 1] += lids @ lid_field + lips[:, None] * lip_field

    @classmethod
    def fit(cls, clips: Iterable[FloatArray], n_expression: int = 16) -> MotionModel:
        """Principal components of the expression residual over clips.

        Every clip is compared with its own neutral face. Clips are read once, one at a time.

        Args:
            clips: Landmarks of each clip in crop space, ``(T, 478, 3)``.
            n_expression: Number of components.

        Returns:
            The model; coefficients of the given clips have variance 1 (0 for components beyond the
            rank of the data).

        Raises:
            DataError: No clip, or no frame differs from its neutral face.
            ShapeError: Wrong shapes or values that are not finite.
        """
        size = N_LANDMARKS * 3
        count, total = 0, np.zeros(size)
        second = np.zeros((size, size))
        for landmarks in clips:
            shapes = pose_free(landmarks)[0]
            residual = _without_gaze(shapes - np.median(shapes, axis=0))
            rows = residual.reshape(len(shapes), size).astype(np.float64)
            count += len(rows)
            total += rows.sum(axis=0)
            second += rows.T @ rows
        if count == 0:
            raise DataError("no clip to fit the motion model on; check the training split.")
        mean = total / count
        covariance = second / count - np.outer(mean, mean)
        if np.trace(covariance) < 1e-9:
            raise DataError(
                "the faces of the training split never move, so there is no expression to model; "
                "prepare clips of talking faces."
            )
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1][:n_expression], vectors[:, ::-1][:, :n_expression].T
        values = np.where(values > 1e-9 * values[0], values, 0.0)
        # Eigenvectors have no sign of their own; fix it, so that equal data give equal models.
        strongest = np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], axis=1)
        return cls(mean, np.sqrt(values)[:, None] * vectors * np.sign(strongest), n_expression)

    def save(self, path: Path | str) -> None:
        """Write the model as ``.npz`` through a temporary name."""
        path = Path(path)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with part.open("wb") as handle:
            np.savez(
                handle,
                format=np.int64(FORMAT),
                expression_mean=self.expression_mean,
                expression_basis=self.expression_basis,
            )
        part.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> MotionModel:
        """Read a saved model.

        Raises:
            DataError: Missing or damaged file, or another format number.
        """
        try:
            # Opened here: numpy leaves the file open when it is no whole archive.
            with Path(path).open("rb") as handle, np.load(handle) as data:
                found = int(data["format"])
                mean, basis = data["expression_mean"], data["expression_basis"]
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"cannot read the motion model {path}: {error}; run talkhead prepare again."
            ) from error
        if found != FORMAT:
            raise DataError(
                f"{path}: expected motion model format {FORMAT}, got {found}; "
                "run talkhead prepare again."
            )
        return cls(mean, basis, len(basis))


def _check_neutral(neutral: FloatArray) -> FloatArray:
    """A neutral face as float64 ``(478, 3)``."""
    face = np.asarray(neutral, np.float64)
    if face.shape != (N_LANDMARKS, 3):
        raise ShapeError(f"expected a neutral face ({N_LANDMARKS}, 3), got {face.shape}.")
    return face
