"""Tiny valid prepared sets with learnable content, for everybody's tests.

Every clip has its own loudness curve and head motion. The mouth follows the loudness of the same
frame, brightness follows the head's yaw, and the colour belongs to the speaker; so audio predicts
the mouth, pictures show motion, and identities differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.jpeg import encode_jpeg
from datamodules.shard_index import ClipRow, MotionStats, write_prepared
from datamodules.shard_io import ShardWriter
from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.geometry.motion import MotionModel, apply_pose
from talkhead.specs import SAMPLES_PER_FRAME, VideoSpec, spec_dict

N_EXPRESSION = 4
Float = NDArray[np.float32]


def split_of(speaker: int, speakers: int) -> str:
    """The last speaker is for testing, the one before for validation, the others for training."""
    if speakers >= 3 and speaker == speakers - 1:
        return "test"
    return "val" if speakers >= 2 and speaker == speakers - (2 if speakers >= 3 else 1) else "train"


def _smooth(rng: np.random.Generator, frames: int, columns: int) -> Float:
    """Smooth random curves ``(frames, columns)`` of about unit size."""
    noise = rng.normal(size=(frames + 8, columns))
    kernel = np.hanning(9) / np.linalg.norm(np.hanning(9))
    curves = [np.convolve(noise[:, c], kernel, mode="valid") for c in range(columns)]
    return np.stack(curves, axis=1).astype(np.float32)


def _motion(rng: np.random.Generator, loudness: Float, model: MotionModel) -> Float:
    """Descriptors of a clip whose mouth follows the loudness ``(T,)`` in [0, 1]."""
    frames = len(loudness)
    layout = model.layout
    motion = np.zeros((frames, model.dim), np.float32)
    motion[:, layout["rotation"]] = 0.1 * _smooth(rng, frames, 3)
    motion[:, layout["translation"]] = 0.5 + 0.01 * _smooth(rng, frames, 2)
    motion[:, layout["scale"]] = 0.4 + 0.01 * _smooth(rng, frames, 1)
    motion[:, layout["expression"]] = _smooth(rng, frames, N_EXPRESSION)
    motion[:, layout["expression"]][:, 0] += 2.0 * loudness - 1.0
    motion[:, layout["eyes"]] = 0.3 + 0.05 * _smooth(rng, frames, 1)
    motion[:, layout["gaze"]] = 0.1 * _smooth(rng, frames, 2)
    motion[:, layout["mouth"]] = 0.3 * loudness[:, None]
    return motion


def _pictures(
    rng: np.random.Generator, motion: Float, model: MotionModel, size: int
) -> list[bytes]:
    """Flat faces: speaker's colour, brightness by yaw, a dark mouth bar as high as its opening."""
    colour = rng.uniform(90, 200, 3)
    layout = model.layout
    yaw = motion[:, layout["rotation"]][:, 1]
    opening = motion[:, layout["mouth"]][:, 0]
    out = []
    for turn, mouth in zip(yaw, opening, strict=True):
        picture = np.broadcast_to(colour * (1.0 + turn), (size, size, 3)).copy()
        half = 0.5 * mouth * size
        top, bottom = int(0.7 * size - half), int(0.7 * size + half) + 1
        picture[top:bottom, size // 4 : 3 * size // 4] = 30.0
        out.append(encode_jpeg(picture.clip(0, 255).astype(np.uint8)))
    return out


def _sound(rng: np.random.Generator, loudness: Float) -> tuple[Float, NDArray[np.int16]]:
    """Log-mel ``(4T, 80)`` in [0, 1] and samples ``(640T,)`` of the given loudness."""
    steps = np.repeat(loudness, 4)[:, None]
    shape = 0.5 + 0.5 * np.cos(np.linspace(0, 3, 80))[None]
    mel = np.clip(0.2 + 0.6 * steps * shape + 0.02 * rng.normal(size=(len(steps), 80)), 0, 1)
    envelope = np.repeat(loudness, SAMPLES_PER_FRAME)
    wave = 8000 * envelope * rng.normal(size=len(envelope)).clip(-3, 3)
    return mel.astype(np.float32), wave.astype(np.int16)


def _model(rng: np.random.Generator) -> MotionModel:
    """A motion model with a random small basis."""
    basis = 0.01 * rng.normal(size=(N_EXPRESSION, 478 * 3))
    return MotionModel(np.zeros(478 * 3), basis, N_EXPRESSION)


def make_prepared(
    tmp_path: Path,
    speakers: int = 4,
    clips: int = 2,
    frames: int = 60,
    size: int = 32,
    *,
    seed: int = 0,
    dataset: str = "synthetic",
    frames_per_shard: int = 150,
) -> Path:
    """Write a prepared set of ``speakers * clips`` clips of ``frames`` frames.

    Speaker ``s`` has one video (``clips`` clips of it); the last speaker is the test split, the one
    before the validation split.

    Returns:
        Folder of the set, ``tmp_path / "prepared"``.
    """
    root = tmp_path / "prepared"
    model = _model(np.random.default_rng(seed))
    neutral = canonical_landmarks().astype(np.float32)
    rows: list[ClipRow] = []
    motions: dict[str, list[Float]] = {"train": [], "val": [], "test": []}
    with ShardWriter(root, frames_per_shard) as writer:
        for speaker in range(speakers):
            for clip in range(clips):
                rng = np.random.default_rng([seed, speaker, clip])
                loudness = (0.5 + 0.35 * _smooth(rng, frames, 1)[:, 0]).clip(0, 1)
                motion = _motion(rng, loudness, model)
                mel, audio = _sound(rng, loudness)
                # The colour is the speaker's, the same in each of their clips.
                pictures = _pictures(np.random.default_rng([seed, speaker]), motion, model, size)
                clip_id = f"s{speaker:02d}/v0/c{clip:02d}"
                shard, start = writer.add(
                    clip_id, pictures, mel, _landmarks(motion, model, neutral), motion, audio
                )
                split = split_of(speaker, speakers)
                motions[split].append(motion)
                rows.append(_row(clip_id, speaker, split, shard, start, frames, size))
    train = np.concatenate(motions["train"] or motions["val"])
    meta = {
        "dataset": dataset,
        "synthetic": True,
        "raw_root": str(tmp_path / "raw"),
        "landmarker": "none",
        "video": {**spec_dict(VideoSpec()), "size": size},
    }
    stats = MotionStats(train.mean(axis=0), train.std(axis=0).clip(1e-4))
    write_prepared(root, meta, rows, [], model, stats, {"accepted": len(rows)})
    return root


def _landmarks(motion: Float, model: MotionModel, neutral: Float) -> Float:
    """Landmarks of the descriptors without the lid and lip details, which nobody reads here."""
    expression = motion[:, model.layout["expression"]] @ model.expression_basis
    shapes = neutral + expression.reshape(len(motion), 478, 3)
    return apply_pose(
        shapes,
        motion[:, model.layout["rotation"]],
        motion[:, model.layout["translation"]],
        motion[:, model.layout["scale"]][:, 0],
    )


def _row(
    clip_id: str, speaker: int, split: str, shard: int, start: int, frames: int, size: int
) -> ClipRow:
    """Index row of a made-up clip."""
    return ClipRow(
        id=clip_id,
        speaker=f"s{speaker:02d}",
        video=f"s{speaker:02d}/v0",
        split=split,
        shard=shard,
        start=start,
        frames=frames,
        source=f"{clip_id}.mp4",
        fps_in=25.0,
        box=(0.0, 0.0, float(size), float(size)),
    )
