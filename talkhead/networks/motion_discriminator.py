"""Judges of keypoint motion: every frame alone, and windows of four lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import ROW_DIM
from talkhead.networks.audio_pyramid import StridedBlock
from talkhead.networks.component import Component
from talkhead.networks.keypoint_encoder import keypoint_encoder

START_BETA = 5.0


class MotionJudgement(NamedTuple):
    """Logits of frames ``(B, N)``, and of the windows of every length that fits, ``(B, N_w)`` each."""

    frames: Tensor
    windows: list[Tensor]

    @property
    def run(self) -> Tensor:
        """One logit a run, ``(B,)``: the mean over windows of a length, then over lengths."""
        return torch.stack([logits.mean(1) for logits in self.windows]).mean(0)


class MotionDiscriminator(Component):
    """Frame and window discriminator of generated keypoints; neither hears the sound.

    | part    | layers                                                                               |
    |---------|--------------------------------------------------------------------------------------|
    | shared  | 60 to ``inner``, layer norm, ``4 inner``, GELU, ``width``                            |
    | frames  | ``blocks`` blocks of kernel 1, the last of them to half the width, linear to 1       |
    | windows | LSTM (``hidden``), its last state; projection on the state ``y`` of the observed frames |

    A window's logit is ``A(d^(-1/beta) <y, V phi> + psi(phi))`` with ``phi = relu(P s)`` and ``psi =
    relu(Q phi)``, both of twice the width of its state ``s``; all four maps are spectrally normalised.
    ``d`` is the window's first frame counted from the first generated one, at least 1, and ``beta`` is
    learned: what lies far from the observed frames is compared with them less.

    Windows of ``w`` frames start every ``w // 2`` frames and may begin among the observed ones, at most
    ``w - w // 2`` frames before the first generated one.

    Source: MS-Sync section 3.3, equations 11 to 13, and its released code (reference-facts 6.6). That
        code hides the first of its three observed frames from the discriminator: pass
        ``keypoints[:, 1:]`` and one less.
    """

    def __init__(
        self,
        width: int = 512,
        inner: int = 408,
        blocks: int = 4,
        hidden: int = 1024,
        windows: Sequence[int] = (5, 10, 20, 40),
    ) -> None:
        """Build the discriminator.

        Args:
            width: Width of an embedded frame.
            inner: First width of the shared encoder; the second is four times it.
            blocks: Blocks of the frame discriminator.
            hidden: Width of the LSTM.
            windows: Lengths in frames.

        Raises:
            ConfigError: No window, one of fewer than 2 frames, or no block.
        """
        super().__init__()
        if not windows or min(windows) < 2 or blocks < 1:
            raise ConfigError(
                f"expected windows of at least 2 frames and at least one block, got {list(windows)} "
                f"and {blocks}."
            )
        self.windows = tuple(windows)
        self.embed = keypoint_encoder(inner, width)
        self.frame_judge = nn.Sequential(
            *[StridedBlock(width, width, 1, 1) for _ in range(blocks - 1)],
            StridedBlock(width, width // 2, 1, 1),
            nn.Linear(width // 2, 1),
        )
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.phi = spectral_norm(nn.Linear(hidden, 2 * hidden))
        self.psi = spectral_norm(nn.Linear(2 * hidden, 2 * hidden))
        self.project = spectral_norm(nn.Linear(2 * hidden, hidden))
        self.answer = spectral_norm(nn.Linear(2 * hidden, 1))
        self.beta = nn.Parameter(torch.tensor(START_BETA))

    def forward(self, keypoints: Tensor, observed: int) -> MotionJudgement:
        """Judge runs that begin with observed frames.

        Args:
            keypoints: ``(B, T, 60)``; the observed frames are real ones, also in generated runs.
            observed: How many ``O`` of them, ``1 <= O < T``.

        Returns:
            Logits of the ``T - O`` frames after the observed ones, and of the windows.

        Raises:
            ShapeError: Not rows of 60, no frame to judge, or too few for the shortest window.
        """
        frames = keypoints.shape[1] if keypoints.ndim == 3 else 0
        if frames == 0 or keypoints.shape[2] != ROW_DIM or not 1 <= observed < frames:
            raise ShapeError(
                f"expected keypoints (B, T, {ROW_DIM}) with 1 to T - 1 observed frames, got "
                f"{tuple(keypoints.shape)} and {observed}; pass observed and generated frames in a row."
            )
        embedded = self.embed(keypoints)
        condition = self._state(embedded[:, :observed])
        judged = {
            window: starts
            for window in self.windows
            if (starts := window_starts(window, observed, frames - observed))
        }
        if not judged:
            raise ShapeError(
                f"expected more frames than {frames - observed} after {observed} observed ones for a "
                f"window of {min(self.windows)}; use longer runs or shorter windows."
            )
        return MotionJudgement(
            self.frame_judge(embedded[:, observed:])[..., 0],
            [self._judge(embedded, condition, w, s, observed) for w, s in judged.items()],
        )

    def _judge(
        self, embedded: Tensor, condition: Tensor, window: int, starts: range, observed: int
    ) -> Tensor:
        """Logits ``(B, N_w)`` of the windows of one length."""
        first, last = observed + starts[0], observed + starts[-1] + window
        pieces = embedded[:, first:last].unfold(1, window, starts.step)
        rows, count = pieces.shape[:2]
        states = self._state(pieces.flatten(0, 1).transpose(1, 2)).unflatten(0, (rows, count))
        phi = self.phi(states).relu()
        likeness = (self.project(phi) * condition[:, None]).sum(-1)
        distance = torch.tensor(starts, device=embedded.device).clamp_min(1).to(likeness.dtype)
        weighted = likeness * distance ** (-1.0 / self.beta)
        logits: Tensor = self.answer(weighted[..., None] + self.psi(phi).relu())
        return logits[..., 0]

    def _state(self, embedded: Tensor) -> Tensor:
        """Last state ``(n, hidden)`` over ``(n, w, width)``."""
        _, (state, _) = self.lstm(embedded)
        last: Tensor = state[-1]
        return last


def window_starts(window: int, observed: int, generated: int) -> range:
    """First frames of the windows of one length, counted from the first generated frame.

    Args:
        window: Length ``w`` in frames; the stride is ``w // 2``.
        observed: Frames before the generated ones that a window may reach into.
        generated: Frames that windows must end within.

    Returns:
        Starts from ``-min(observed, w - w // 2)``; empty where none fits.
    """
    stride = window // 2
    return range(max(-observed, stride - window), generated - window + 1, stride)
