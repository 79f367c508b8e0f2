"""Everything the audit measures on one clip by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.mfcc import mfcc_window_count
from talkhead.audit.duplicates import HASH_EVERY, Fingerprint
from talkhead.audit.pictures import grey, picture_hashes, sharpness
from talkhead.audit.sound import clipped_share, loudness_lufs, sound_words, wave_of
from talkhead.audit.sync import MIN_WINDOWS, ClipSync, clip_sync
from talkhead.geometry.crop import face_boxes
from talkhead.geometry.motion import pose_free
from talkhead.metrics.silence import silent_frames
from talkhead.networks.syncnet import SyncNet
from talkhead.stages.syncnet import embed_clip

PROFILE_DEG = 45.0
"""Beyond this yaw one mouth corner is hidden."""
_RANGE = (5, 95)
_MIN_FACE_PX = 3


class AuditedSet(Protocol):
    """What is asked of a prepared set (``datamodules.shards.PreparedSet``)."""

    def rows(self, split: str | None = None) -> list[Any]:
        """Clips."""
        ...

    def frames(self, clip: Any, indices: Sequence[int], size: int | None = None) -> Tensor:
        """Pictures ``(n, 3, H, W)`` uint8."""
        ...

    def mfcc(self, clip: Any) -> Tensor:
        """Cepstral coefficients ``(4T - 1, 13)``."""
        ...

    def mel(self, clip: Any) -> NDArray[np.float32]:
        """Log-mel ``(4T, 80)``."""
        ...

    def audio(self, clip: Any) -> NDArray[np.int16]:
        """Samples ``(640T,)``."""
        ...

    def landmarks(self, clip: Any) -> NDArray[np.float32]:
        """Landmarks in crop units ``(T, 478, 3)``."""
        ...

    def content_digest(self, clip: Any) -> str:
        """Hash of all pictures and samples."""
        ...


@dataclass(frozen=True)
class Measures:
    """One clip, measured.

    Attributes:
        clip: Id.
        sync: What the judge says; None without a judge or for a clip too short for it.
        silence_share: Share of frames in silences of 0.16 s and more.
        loudness_lufs: Loudness; None for silence.
        clipped_share: Share of samples cut off at full scale.
        pose_deg: 5th and 95th percentile of pitch, yaw and roll, six numbers.
        profile_share: Share of frames turned aside by more than 45 degrees.
        sharpness: Median over every fifth frame of the face's
            :func:`talkhead.audit.pictures.sharpness`.
        face_px: Median width of the face in pixels of the source.
        print: For the search for duplicates.
    """

    clip: str
    sync: ClipSync | None
    silence_share: float
    loudness_lufs: float | None
    clipped_share: float
    pose_deg: tuple[float, ...]
    profile_share: float
    sharpness: float
    face_px: float
    print: Fingerprint

    def to_json(self) -> dict[str, Any]:
        """Plain values, words in hexadecimal."""
        values = asdict(self)
        values["print"] |= {
            "words": self.print.words.astype(">u4").tobytes().hex(),
            "hashes": self.print.hashes.astype(">u8").tobytes().hex(),
        }
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Measures:
        """Inverse of :meth:`to_json`."""
        sync, mark = values["sync"], values["print"]
        words = np.frombuffer(bytes.fromhex(mark["words"]), ">u4").astype(np.uint32)
        hashes = np.frombuffer(bytes.fromhex(mark["hashes"]), ">u8").astype(np.uint64)
        known = {
            "sync": None if sync is None else ClipSync(**sync),
            "pose_deg": tuple(values["pose_deg"]),
            "print": Fingerprint(mark["clip"], mark["digest"], words, hashes),
        }
        return cls(**{**values, **known})


def measure_clip(
    prepared: AuditedSet, row: Any, network: SyncNet | None, device: torch.device
) -> Measures:
    """Measure one clip.

    Args:
        prepared: The prepared set.
        row: The clip (``datamodules.shards.ClipRow``).
        network: Judge of the sync, in eval mode on ``device``, or None.
        device: Where the judge is.
    """
    samples = prepared.audio(row)
    wave = wave_of(samples)
    landmarks = prepared.landmarks(row)
    boxes = face_boxes(landmarks)
    degrees = np.degrees(pose_free(landmarks)[1])
    luma = grey(prepared.frames(row, range(0, row.frames, HASH_EVERY)))
    return Measures(
        clip=row.id,
        sync=_sync(prepared, row, network, device),
        silence_share=float(silent_frames(wave).double().mean()),
        loudness_lufs=loudness_lufs(wave),
        clipped_share=clipped_share(samples),
        pose_deg=tuple(float(v) for v in np.percentile(degrees, _RANGE, axis=0).T.flat),
        profile_share=float((np.abs(degrees[:, 1]) > PROFILE_DEG).mean()),
        sharpness=face_sharpness(luma, boxes[::HASH_EVERY]),
        face_px=float(np.median(boxes[:, 2] - boxes[:, 0])) * row.box[2],
        print=Fingerprint(
            row.id,
            prepared.content_digest(row),
            sound_words(prepared.mel(row)),
            picture_hashes(luma),
        ),
    )


def face_sharpness(luma: Tensor, boxes: NDArray[np.floating[Any]]) -> float:
    """Median sharpness of the faces in some pictures; 0 if no face lies in its picture.

    Args:
        luma: ``(n, H, W)``.
        boxes: Left, top, right and bottom of the faces in crop units, ``(n, 4)``.
    """
    side = luma.shape[-1]
    edges = np.round(boxes * side).astype(int).clip(0, side)
    values = [
        float(sharpness(picture[None, top:bottom, left:right]))
        for picture, (left, top, right, bottom) in zip(luma, edges, strict=True)
        if min(right - left, bottom - top) >= _MIN_FACE_PX
    ]
    return float(np.median(values)) if values else 0.0


def _sync(
    prepared: AuditedSet, row: Any, network: SyncNet | None, device: torch.device
) -> ClipSync | None:
    """The judge's view of a clip that is long enough."""
    if network is None or mfcc_window_count(row.frames) < MIN_WINDOWS:
        return None
    return clip_sync(*embed_clip(network, prepared, row, network.image_size, device))
