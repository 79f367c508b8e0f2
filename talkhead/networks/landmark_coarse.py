"""The coarse part of speech to landmark motion: two streams and their sum."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from talkhead.corpus.prosody import PROSODY_FEATURES
from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.landmark_rows import LANDMARK_DIM
from talkhead.networks.component import Component
from talkhead.networks.landmark_streams import (
    CONTENT_REACH,
    ContentEncoder,
    PoseCoder,
    Rhythm,
    RhythmicGenerator,
)
from talkhead.specs import AudioSpec

STD_FLOOR = 1e-4
"""Least deviation of a coordinate in crop widths, 0.03 px at 256."""


class Heard(NamedTuple):
    """Speech of ``T`` frames: ``content`` ``(B, T, D)`` and :class:`Rhythm`."""

    content: Tensor
    rhythm: Rhythm


class Coarse(NamedTuple):
    """Coarse motion relative to the portrait, in deviations.

    ``pose`` and ``rhythm`` ``(B, T, 136)`` are the two streams; their sum is :attr:`motion` (equation 1).
    ``pose_codes`` ``(B, T - o, D)`` are those of the frames after the ``o`` known ones.
    """

    pose: Tensor
    rhythm: Tensor
    pose_codes: Tensor | None

    @property
    def motion(self) -> Tensor:
        """The coarse prediction ``(B, T, 136)``; known frames are as they were."""
        return self.pose + self.rhythm


class CoarseMotion(Component):
    """Content encoder, motion encoder and decoder, and rhythmic generator.

    Motion is learned as ``y = (F - F_0) / s``: rows of 68 points (:mod:`talkhead.geometry.landmark_rows`)
    relative to the portrait ``F_0``, in deviations ``s`` of the training split, so no face is lost in a
    code. A window begins with ``o`` known frames, at first the portrait alone:

    | what          | how                                                                       |
    |---------------|---------------------------------------------------------------------------|
    | rhythmic      | ``r_i = f_rhy(prosody)_i``                                                  |
    | pose, known   | ``p_i = y_i - r_i``                                                         |
    | pose, further | ``p_i = p_{i-1} + W (f_dec(f_con(S)_i, f_enc(p_{i-1})) - f_enc(p_{i-1}))``    |
    | coarse        | ``p_i + r_i`` (equation 1)                                                  |

    Source: paper 2 sections 3.1 and 3.2, equations 1 and 2. Deviates: the pose stream goes on from the frame
        before without its rhythmic part, which by equation 1 is not its own; and within a window from its
        own coarse frames, not from refined ones.
    """

    face_mean: Tensor
    face_std: Tensor
    motion_std: Tensor
    has_statistics: Tensor

    def __init__(
        self,
        code_dim: int,
        hidden: int,
        backprop_frames: int,
        content_channels: int,
        rhythmic_channels: int,
        rhythmic_layers: int,
        pose_stream: bool,
        rhythmic_stream: bool,
    ) -> None:
        """Build both streams; arguments as those of :class:`LandmarkMotionModel`.

        Raises:
            ConfigError: Neither stream.
        """
        super().__init__()
        if not (pose_stream or rhythmic_stream):
            raise ConfigError("motion_model: expected at least one stream, got none; leave one on.")
        self.code_dim = code_dim
        self.content, self.pose, self.rhythmic = None, None, None
        if pose_stream:
            self.content = ContentEncoder(AudioSpec().n_mels, content_channels, code_dim)
            self.pose = PoseCoder(code_dim, hidden, backprop_frames)
        if rhythmic_stream:
            self.rhythmic = RhythmicGenerator(
                len(PROSODY_FEATURES), rhythmic_channels, rhythmic_layers, code_dim
            )
        for name in ("face_mean", "face_std", "motion_std"):
            fill = torch.zeros if name == "face_mean" else torch.ones
            self.register_buffer(name, fill(LANDMARK_DIM))
        self.register_buffer("has_statistics", torch.zeros((), dtype=torch.bool))

    # -- units -----------------------------------------------------------------------------------

    @torch.no_grad()
    def set_statistics(self, face_mean: Tensor, face_std: Tensor, motion_std: Tensor) -> None:
        """Store the training split's mean and deviation of rows, and their deviation within clips.

        Args:
            face_mean: ``(136,)`` over all frames.
            face_std: ``(136,)`` over all frames.
            motion_std: ``(136,)`` of frames from the mean of their own clip.

        Raises:
            ShapeError: Another width.
        """
        for name, value in (
            ("face_mean", face_mean), ("face_std", face_std), ("motion_std", motion_std),
        ):  # fmt: skip
            own = getattr(self, name)
            if value.shape != own.shape:
                raise ShapeError(
                    f"expected {name} ({LANDMARK_DIM},), got {tuple(value.shape)}; take the statistics "
                    "of landmark rows."
                )
            own.copy_(value if name == "face_mean" else value.clamp_min(STD_FLOOR))
        self.has_statistics.fill_(True)

    def relative(self, rows: Tensor, first: Tensor) -> Tensor:
        """Rows ``(B, T, 136)`` relative to the portrait's ``(B, 136)``, in deviations."""
        return (rows - first[:, None]) / self.motion_std

    def absolute(self, motion: Tensor, first: Tensor) -> Tensor:
        """Undo :meth:`relative`."""
        return motion * self.motion_std + first[:, None]

    def face(self, first: Tensor) -> Tensor:
        """The portrait's rows ``(B, 136)`` as networks see them."""
        return (first - self.face_mean) / self.face_std

    # -- coarse motion ---------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """Frames of speech to either side that a frame's streams depend on."""
        reach = CONTENT_REACH if self.content is not None else 0
        return max(reach, self.rhythmic.reach if self.rhythmic is not None else 0)

    def hear(self, mel: Tensor, prosody: Tensor) -> Heard:
        """Content and rhythm of speech.

        Args:
            mel: ``(B, T, 320)``, the four steps of a frame side by side.
            prosody: ``(B, T, 4)`` (:class:`talkhead.corpus.prosody.Prosody`).

        Raises:
            ShapeError: Shapes that do not belong together.
        """
        if mel.shape[:2] != prosody.shape[:2]:
            raise ShapeError(
                f"expected mel and prosody of the same frames, got {tuple(mel.shape)} and "
                f"{tuple(prosody.shape)}; cut both from one recording."
            )
        silent = mel.new_zeros(*mel.shape[:2], self.code_dim)
        content = silent if self.content is None else self.content(mel)
        if self.rhythmic is not None:
            return Heard(content, self.rhythmic(prosody))
        return Heard(content, Rhythm(silent, mel.new_zeros(*mel.shape[:2], LANDMARK_DIM)))

    def coarse(self, heard: Heard, known: Tensor, face: Tensor) -> Coarse:
        """Both streams of a window, free running after its known frames.

        Args:
            heard: Speech of ``T`` frames.
            known: Its first frames ``(B, o, 136)`` relative to the portrait, ``1 <= o <= T``.
            face: From :meth:`face`, ``(B, 136)``.

        Raises:
            ShapeError: No known frame, or more than there is speech.
        """
        offsets, count = heard.rhythm.offsets, known.shape[1]
        frames = offsets.shape[1]
        if not 1 <= count <= frames:
            raise ShapeError(
                f"expected 1 to {frames} known frames for {frames} frames of speech, got {count}."
            )
        start = known - offsets[:, :count]
        if count == frames:
            return Coarse(start, offsets, None)
        if self.pose is None:
            held = start[:, -1:].expand(-1, frames - count, -1)
            return Coarse(torch.cat([start, held], 1), offsets, None)
        poses, codes = self.pose.roll_out(start[:, -1], face, heard.content[:, count:])
        return Coarse(torch.cat([start, poses], 1), offsets, codes)

    def streams(self, rows: Tensor, mel: Tensor, prosody: Tensor) -> Coarse:
        """Both streams of real motion, each pose from the real frame before (equation 2).

        Args:
            rows: Real landmark rows ``(B, T, 136)``, the first taken as the portrait, ``T >= 2``.
            mel: See :meth:`hear`.
            prosody: See :meth:`hear`.
        """
        first = rows[:, 0]
        motion, heard, face = self.relative(rows, first), self.hear(mel, prosody), self.face(first)
        poses = motion - heard.rhythm.offsets
        if self.pose is None:
            return Coarse(poses[:, :1].expand_as(poses), heard.rhythm.offsets, None)
        before = poses[:, :-1]
        made, codes = self.pose.step(before, face[:, None], heard.content[:, 1:])
        return Coarse(torch.cat([poses[:, :1], made], 1), heard.rhythm.offsets, codes)
