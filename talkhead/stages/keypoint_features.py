"""What the stages in keypoint space take from the data: cached keypoints with their sound, varied."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from talkhead.audio.filter_bank import (
    N_FFT,
    N_FILTERS,
    PRE_EMPHASIS,
    WINDOW_SAMPLES,
    log_filter_bank,
)
from talkhead.batch import FeatureSource, SequenceBatch
from talkhead.checkpoint import Source, load_component, resolve
from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import ROW_DIM, scaled_and_shifted, smoothed
from talkhead.networks.component import Component, tensors_digest, weights_digest
from talkhead.networks.fomm_checkpoint import load_fomm
from talkhead.networks.keypoint_detector import KeypointDetector
from talkhead.networks.keypoint_renderer import KeypointRenderer
from talkhead.networks.landmark_keypoints import LandmarkKeypoints
from talkhead.networks.mesh_keypoints import MeshKeypoints
from talkhead.networks.window_syncer import STEPS_PER_FRAME

KEYPOINTS = "keypoints"
MIRRORED = "keypoints_mirrored"
FILTER_BANK = "filter_bank"
PICTURE_SIZE = 256
"""Side of the pictures a keypoint detector sees, in pixels."""
SCALE = (0.9, 1.1)
SHIFT = 0.16
LEVEL = 0.1


@runtime_checkable
class PictureDetector(Protocol):
    """A component that finds keypoints in pictures."""

    def describe(self, pictures: Tensor) -> Tensor:
        """Rows ``(n, 60)`` of pictures ``(n, 3, H, W)`` in [-1, 1]."""
        ...


class KeypointRun(NamedTuple):
    """Runs of ``T`` frames: ``keypoints`` ``(B, T, 60)`` and log energies ``audio`` ``(B, 4 T, 26)``."""

    keypoints: Tensor
    audio: Tensor


def keypoint_sources(detector: Component, size: int = PICTURE_SIZE) -> dict[str, FeatureSource]:
    """Features to cache: keypoints, those of the mirrored picture, and the sound of whole clips.

    ``filter_bank`` holds the four steps of a frame after each other, 104 numbers. Its energies are those
    of the whole clip (:func:`~talkhead.audio.filter_bank.log_filter_bank`), so a run's first and last
    steps know the sound around the run, and loudness is relative to the clip.

    Args:
        detector: :class:`MeshKeypoints`, which reads landmarks, or a component with
            ``describe(pictures) -> (n, 60)``, which sees every picture and its mirror image.
        size: Side of these pictures in pixels.

    Returns:
        Sources under the names ``keypoints``, ``keypoints_mirrored`` and ``filter_bank``.

    Raises:
        ConfigError: A component that is no detector.

    Source: MS-Sync's released code extracts keypoints of mirrored videos as well (reference-facts 6.3).
    """
    modules: list[nn.Module]
    if isinstance(detector, MeshKeypoints):
        kind, modules = "landmarks", [_MeshRows(detector, mirrored) for mirrored in (False, True)]
    elif isinstance(detector, PictureDetector):
        kind, modules = "frames", [_PictureRows(detector, mirrored) for mirrored in (False, True)]
    else:
        raise ConfigError(
            f"expected MeshKeypoints or a component with describe(pictures), got "
            f"{type(detector).__name__}; pass a keypoint detector."
        )
    digest = weights_digest(detector)
    sources = {
        name: FeatureSource(name, digest, kind, module, ROW_DIM, size)
        for name, module in zip((KEYPOINTS, MIRRORED), modules, strict=True)
    }
    sound = _ClipFilterBank()
    sources[FILTER_BANK] = FeatureSource(
        FILTER_BANK, sound.digest(), "wave", sound, STEPS_PER_FRAME * N_FILTERS
    )
    return sources


def resolve_detector(source: Source | None) -> Component:
    """The frozen keypoint detector of a stage.

    Args:
        source: Checkpoint that holds a ``keypoint_detector`` of either kind, the published file of the First
            Order Motion Model (``….pth.tar``), or the spec kept in our own checkpoint; None and the empty
            spec are those of the face mesh.

    Raises:
        StageLinkError: The checkpoint does not hold one.
        ConfigError: A published file that is damaged or of another network.
    """
    if not source:
        return MeshKeypoints().eval().requires_grad_(False)
    if isinstance(source, dict):
        return resolve(KeypointDetector, source, "keypoint_detector")
    if _published(source):
        return load_fomm(source)[0].eval().requires_grad_(False)
    return load_component(source, "keypoint_detector")


def resolve_renderer(source: Source | None) -> KeypointRenderer | None:
    """The frozen keypoint renderer of a stage, None for None; sources as :func:`resolve_detector`."""
    if source is None:
        return None
    if isinstance(source, str) and _published(source):
        return load_fomm(source)[1].eval().requires_grad_(False)
    return resolve(KeypointRenderer, source, "keypoint_renderer")


def resolve_landmark_renderer(
    detector: Source | None, renderer: Source | None
) -> tuple[LandmarkKeypoints | None, KeypointRenderer | None]:
    """The frozen renderer that 68 landmarks drive, and the keypoints it reads off them; or neither.

    Args:
        detector: Checkpoint of stage ``keypoint_reenactment`` with ``detector: landmarks``, or the spec kept
            in our own checkpoint.
        renderer: The same.

    Raises:
        ConfigError: One without the other.
        StageLinkError: The checkpoint does not hold them, or its keypoints are learned ones.
    """
    if (detector is None) != (renderer is None):
        raise ConfigError(
            "expected keypoint_detector and keypoint_renderer of one landmark renderer, got only one of "
            "them; give both the same checkpoint, or leave both out."
        )
    if detector is None or renderer is None:
        return None, None
    return (
        resolve(LandmarkKeypoints, detector, "keypoint_detector"),
        resolve(KeypointRenderer, renderer, "keypoint_renderer"),
    )


def _published(path: str) -> bool:
    """Whether a file is one that the authors of FOMM published, by its name."""
    return path.endswith(".pth.tar")


def read_run(batch: SequenceBatch, *, smooth: bool) -> KeypointRun:
    """Keypoints and sound of a batch as they are.

    Ask for :class:`~talkhead.batch.Sequences` that are ``whole``: padding would pass for a face.

    Args:
        batch: With the features of :func:`keypoint_sources`.
        smooth: Average three frames first, the ends of the run repeated.

    Raises:
        ShapeError: A feature is missing or of another width.
    """
    sound = _feature(batch, FILTER_BANK, STEPS_PER_FRAME * N_FILTERS)
    audio = sound.unflatten(-1, (STEPS_PER_FRAME, N_FILTERS)).flatten(1, 2)
    return KeypointRun(_rows(batch, KEYPOINTS, smooth), audio)


def augmented(
    batch: SequenceBatch,
    *,
    smooth: bool,
    flip: bool = True,
    scale: tuple[float, float] = SCALE,
    shift: float = SHIFT,
    level: float = LEVEL,
) -> KeypointRun:
    """Keypoints and sound of a batch, every run varied in its own way, the same over all its frames.

    The draws come from torch's global generator, afresh for every run: mirroring with probability 1/2,
    a scale about the picture's middle, a shift to the right and one down, and one number added to all
    energies, up to a share of their range in the run.

    Args:
        batch: With the features of :func:`keypoint_sources`.
        smooth: See :func:`read_run`; before all else.
        flip: Whether to mirror runs.
        scale: Smallest and largest factor of all six numbers of a keypoint.
        shift: Largest shift either way, the picture being 2 wide.
        level: Largest offset of the energies either way, as a share of their range.

    Returns:
        With ``flip=False, scale=(1, 1), shift=0, level=0`` what :func:`read_run` gives.

    Raises:
        ConfigError: Limits that are no limits.
        ShapeError: A feature is missing or of another width.

    Source: MS-Sync's released code (reference-facts 6.3). Deviates: there a worker that has mirrored one
        clip goes on mirroring all that follow.
    """
    least, most = scale
    if not 0 < least <= most or shift < 0 or level < 0:
        raise ConfigError(
            f"augmentation: expected 0 < smallest scale <= largest, and shift and level of at least 0, "
            f"got scale {tuple(scale)}, shift {shift} and level {level}."
        )
    keypoints, audio = read_run(batch, smooth=smooth)
    # On the CPU, whose generator every device of a run shares.
    draws = torch.rand(len(keypoints), 5).to(keypoints)
    if flip:
        mirrored = _rows(batch, MIRRORED, smooth)
        keypoints = torch.where(draws[:, 0, None, None] < 0.5, mirrored, keypoints)
    factors = least + (most - least) * draws[:, 1]
    moved = scaled_and_shifted(keypoints, factors, shift * (2 * draws[:, 2:4] - 1))
    reach = audio.amax(dim=(1, 2)) - audio.amin(dim=(1, 2))
    offset = level * reach * (2 * draws[:, 4] - 1)
    return KeypointRun(moved, audio + offset[:, None, None])


def _rows(batch: SequenceBatch, name: str, smooth: bool) -> Tensor:
    """Keypoints of a batch."""
    rows = _feature(batch, name, ROW_DIM)
    return smoothed(rows) if smooth else rows


def _feature(batch: SequenceBatch, name: str, dim: int) -> Tensor:
    """A feature of a batch, ``(B, T, dim)``."""
    if name not in batch.features or batch.features[name].shape[2:] != (dim,):
        got = {key: tuple(value.shape) for key, value in batch.features.items()}
        raise ShapeError(
            f"expected feature {name} (B, T, {dim}), got {got}; ask the datamodule for keypoint_sources."
        )
    return batch.features[name]


class _MeshRows(nn.Module):
    """Keypoints of landmarks, or of their mirror image."""

    def __init__(self, detector: MeshKeypoints, mirrored: bool) -> None:
        super().__init__()
        self.detector, self.mirrored = detector, mirrored

    def forward(self, landmarks: Tensor) -> Tensor:
        rows: Tensor = self.detector(landmarks)
        return self.detector.mirror(rows) if self.mirrored else rows


class _PictureRows(nn.Module):
    """Keypoints of pictures, or of their mirror image."""

    def __init__(self, detector: PictureDetector, mirrored: bool) -> None:
        super().__init__()
        self.detector, self.mirrored = detector, mirrored

    def forward(self, pictures: Tensor) -> Tensor:
        return self.detector.describe(pictures.flip(-1) if self.mirrored else pictures)


class _ClipFilterBank(nn.Module):
    """Energies of a whole clip, a row a frame."""

    def forward(self, wave: Tensor) -> Tensor:
        frames: Tensor = log_filter_bank(wave).unflatten(0, (-1, STEPS_PER_FRAME))
        return frames.flatten(1)

    @staticmethod
    def digest() -> str:
        """Stands for everything the energies depend on besides the wave."""
        options = {
            "filters": N_FILTERS,
            "fft": N_FFT,
            "window": WINDOW_SAMPLES,
            "pre_emphasis": PRE_EMPHASIS,
            "steps_per_frame": STEPS_PER_FRAME,
        }
        return tensors_digest(options, {})
