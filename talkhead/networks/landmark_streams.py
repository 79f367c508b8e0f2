"""The two streams of coarse landmark motion: pose from content, rhythm from prosody."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.landmark_rows import LANDMARK_DIM

STEPS_PER_FRAME = 4
"""Mel steps of a video frame."""
CONTENT_REACH = 4
"""Frames of sound to either side that a frame's content depends on."""
KERNEL = 5


class ContentEncoder(nn.Module):
    """Four convolutions over the mel spectrogram, to one vector a video frame: ``f_con``.

    | layer | kernel, stride | a sample every | channels       |
    |-------|----------------|----------------|----------------|
    | 1     | 5, 1           | 10 ms          | ``channels``   |
    | 2     | 4, 2           | 20 ms          | ``channels``   |
    | 3     | 4, 2           | 40 ms          | ``2 channels`` |
    | 4     | 5, 1           | 40 ms          | ``dim``        |

    The two even kernels put sample ``t`` on the middle of frame ``t``'s four steps. Beyond the ends there
    is silence, which is 0.

    Source: paper 2 section 3, "built up by four convolutional layers"; all else is not published. GELU
        between the layers, no normalisation, so that sound can be encoded in blocks.
    """

    def __init__(self, n_mels: int, channels: int, dim: int) -> None:
        """Mel bands, channels of the first layer and width of the result."""
        super().__init__()
        self.n_mels = n_mels
        self.layers = nn.Sequential(
            nn.Conv1d(n_mels, channels, KERNEL, padding=KERNEL // 2),
            nn.GELU(),
            nn.Conv1d(channels, channels, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv1d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv1d(2 * channels, dim, KERNEL, padding=KERNEL // 2),
        )

    def forward(self, mel: Tensor) -> Tensor:
        """``(B, T, 4 F)``, the four steps of a frame after each other, to ``(B, T, dim)``.

        Raises:
            ShapeError: Another width.
        """
        if mel.ndim != 3 or mel.shape[2] != STEPS_PER_FRAME * self.n_mels:
            raise ShapeError(
                f"expected mel rows (B, T, {STEPS_PER_FRAME * self.n_mels}), got {tuple(mel.shape)}; "
                "pass the four steps of each frame side by side."
            )
        steps = mel.unflatten(2, (STEPS_PER_FRAME, self.n_mels)).flatten(1, 2)
        heard: Tensor = self.layers(steps.transpose(1, 2)).transpose(1, 2)
        return heard


class Rhythm(NamedTuple):
    """Rhythmic stream: codes ``(B, T, D)`` and the landmark offsets ``(B, T, 136)`` they stand for."""

    codes: Tensor
    offsets: Tensor


class RhythmicGenerator(nn.Module):
    """Dilated convolutions over prosody, to the rhythmic part of the motion: ``f_rhy``.

    Layer ``i`` has kernel 5 and dilation ``2^i``; with four layers a frame hears 1.2 s to either side.
    Offsets are linear in the codes.

    Source: paper 2 section 3.2, "mainly built up with a convolutional network" on "the prosodic
        information"; sizes are not published. Prosody is that of
        :class:`talkhead.corpus.prosody.Prosody`: energy, pitch, voicing and pauses.
    """

    def __init__(self, features: int, channels: int, layers: int, dim: int) -> None:
        """Prosody features, channels, number of convolutions and width of a code.

        Raises:
            ConfigError: No layer.
        """
        super().__init__()
        if layers < 1:
            raise ConfigError(f"rhythmic_layers: expected at least 1, got {layers}.")
        self.features = features
        self.reach = sum(KERNEL // 2 * 2**i for i in range(layers))
        self.layers = nn.ModuleList(
            nn.Conv1d(
                channels if i else features,
                channels,
                KERNEL,
                padding=KERNEL // 2 * 2**i,
                dilation=2**i,
            )
            for i in range(layers)
        )
        self.code = nn.Linear(channels, dim)
        self.offset = nn.Linear(dim, LANDMARK_DIM, bias=False)

    def forward(self, prosody: Tensor) -> Rhythm:
        """Codes and offsets of ``(B, T, features)``.

        Raises:
            ShapeError: Another width.
        """
        if prosody.ndim != 3 or prosody.shape[2] != self.features:
            raise ShapeError(
                f"expected prosody (B, T, {self.features}), got {tuple(prosody.shape)}; measure it with "
                "talkhead.corpus.prosody.measure_prosody."
            )
        x = prosody.transpose(1, 2)
        for i, layer in enumerate(self.layers):
            made = F.gelu(layer(x))
            x = made + x if i else made
        codes = self.code(x.transpose(1, 2))
        return Rhythm(codes, self.offset(codes))


class PoseCoder(nn.Module):
    """Motion encoder and decoder of the pose stream.

    ``M = f_enc(F)`` is a code of unit size (layer norm without scale, so that no loss of codes is lowered
    by shrinking them). ``f_dec(z, M) = norm(M + g(z, M))`` moves a code by a change ``z``: what the content
    asks for, the difference of two codes, or nothing. The landmarks move by a linear map of the codes'
    difference.

    Source: paper 2 section 3.1 and equations 2, 3 and 12, ``f_dec(f_con(S_i), f_enc(F_{i-1}))``. In
        equation 3 the same decoder takes ``(z, M_i)`` and in 4 a code alone, so its first argument here
        may be 0. Networks are not published.
    """

    def __init__(self, dim: int, hidden: int, backprop_frames: int) -> None:
        """Width of codes, changes and content, hidden width, and see :meth:`roll_out`.

        Raises:
            ConfigError: No frame to learn from.
        """
        super().__init__()
        if backprop_frames < 1:
            raise ConfigError(f"backprop_frames: expected at least 1, got {backprop_frames}.")
        self.backprop_frames = backprop_frames
        self.see = nn.Linear(LANDMARK_DIM, hidden)
        self.identity = nn.Linear(LANDMARK_DIM, hidden, bias=False)
        self.encode_out = nn.Linear(hidden, dim)
        self.change = nn.Linear(dim, hidden)
        self.state = nn.Linear(dim, hidden, bias=False)
        self.decode_out = nn.Linear(hidden, dim)
        self.move = nn.Linear(dim, LANDMARK_DIM, bias=False)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)

    def encode(self, pose: Tensor, face: Tensor) -> Tensor:
        """Codes ``(..., D)`` of poses relative to the portrait ``(..., 136)`` of faces ``(..., 136)``."""
        return self._encode(pose, self.identity(face))

    def decode(self, change: Tensor, codes: Tensor) -> Tensor:
        """Codes ``(..., D)`` after a change ``(..., D)``."""
        return self._decode(self.change(change), codes)

    def step(self, pose: Tensor, face: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Next poses and their codes from poses, faces and content (equation 2)."""
        return self._step(pose, self.identity(face), self.change(content))

    def roll_out(self, pose: Tensor, face: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Free-running poses, differentiable through ``backprop_frames`` frames at a time.

        Gradients of longer chains grow without bound; the values are the same.

        Args:
            pose: The last known pose ``(B, 136)``.
            face: Identity ``(B, 136)``.
            content: Of the frames that follow, ``(B, n, D)``.

        Returns:
            Poses ``(B, n, 136)`` and their codes ``(B, n, D)``.
        """
        who, asked = self.identity(face), self.change(content)
        poses, codes = [], []
        for i, change in enumerate(asked.unbind(1)):
            if i and i % self.backprop_frames == 0:
                pose = pose.detach()
            pose, code = self._step(pose, who, change)
            poses.append(pose)
            codes.append(code)
        return torch.stack(poses, 1), torch.stack(codes, 1)

    def _encode(self, pose: Tensor, who: Tensor) -> Tensor:
        codes: Tensor = self.norm(self.encode_out(F.gelu(self.see(pose) + who)))
        return codes

    def _decode(self, asked: Tensor, codes: Tensor) -> Tensor:
        moved: Tensor = self.norm(codes + self.decode_out(F.gelu(self.state(codes) + asked)))
        return moved

    def _step(self, pose: Tensor, who: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        before = self._encode(pose, who)
        after = self._decode(asked, before)
        return pose + self.move(after - before), after


class StepPredictor(nn.Module):
    """The auxiliary predictor of the shallow step, from the coarse motion alone.

    Spread and mean speed over time of both streams, and the face, through one hidden layer to the share
    of the chain that must run.

    Source: paper 2 section 3.3, "an auxiliary predictor to predict the step"; input, loss and target are
        not published. Its targets are per-sample boundaries
        (:func:`talkhead.diffusion.shallow.boundary_step`).
    """

    def __init__(self, hidden: int) -> None:
        """Hidden width."""
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(5 * LANDMARK_DIM, hidden), nn.GELU(), nn.Linear(hidden, 1), nn.Sigmoid()
        )

    def forward(self, pose: Tensor, rhythm: Tensor, face: Tensor) -> Tensor:
        """Share of the steps ``(B,)`` in (0, 1) of streams ``(B, T, 136)``, ``T >= 1``."""
        seen = [face]
        for stream in (pose, rhythm):
            centred = stream - stream.mean(1, keepdim=True)
            speed = stream.diff(dim=1) if stream.shape[1] > 1 else torch.zeros_like(stream)
            seen += [centred.square().mean(1).clamp_min(1e-12).sqrt(), speed.abs().mean(1)]
        share: Tensor = self.net(torch.cat(seen, -1))[:, 0]
        return share
