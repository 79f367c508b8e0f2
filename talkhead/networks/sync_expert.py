"""The lip-sync expert: do these mouths and this third of a second of speech belong together?"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from talkhead.audio.speech_windows import WINDOW_STEPS, Align, run_frame, speech_windows
from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.mouth_box import SIDE, Boxes, crop_mouth, run_boxes
from talkhead.networks.component import Component

Front = Literal["hubert", "mel"]
FRAMES = 9
AUDIO_WIDTHS = (2048, 1024, 512)
VIDEO_WIDTHS = (32, 64, 128, 256, 512, 512)


class SyncExpert(Component):
    """Two branches whose embeddings point the same way for mouths and speech of one moment.

    | sound, 18 x 1024 flattened        | mouths, 9 pictures of 128 pixels as 27 channels     |
    |-----------------------------------|-----------------------------------------------------|
    | projection head to 2048           | 7x7, 32                                             |
    | projection head to 1024           | 3x3 stride 2, 64; two residual 3x3                  |
    | projection head to 512            | the same with 128, 256, 512 and 512 channels        |
    | projection head to 1024           | the 4x4 that are left, 512; linear 1024             |

    A projection head is ``LayerNorm(p + dropout(W gelu(p)))`` with ``p`` its first linear layer. Batch
    norm and ReLU follow every convolution. With ``non_negative`` a last ReLU makes all embeddings
    non-negative, so cosines lie in [0, 1] and can be read as probabilities.

    Besides its networks an expert knows what to feed them: which speech features (``front``, its kind
    and digest), how their windows are cut (``window``, ``align``) and how mouths are (``boxes``,
    ``side``), so that whoever uses it does the same.

    Source: the sound branch is that of ControlTalk's released code (reference-facts 7.4). The visual
        branch was never published: ours follows Wav2Lip's expert in stacking the frames as channels and in
        its ReLU (reference-facts 7.6), and T = 9 is inferred from the 18 steps.
    """

    def __init__(
        self,
        front: Front = "hubert",
        feature_dim: int = 1024,
        window: int = WINDOW_STEPS,
        align: Align = "start",
        frames: int = FRAMES,
        boxes: Boxes = "run",
        side: int = SIDE,
        dim: int = 1024,
        audio_widths: list[int] | None = None,
        video_widths: list[int] | None = None,
        blocks: int = 2,
        dropout: float = 0.1,
        non_negative: bool = True,
        front_kind: str = "",
        front_digest: str = "",
    ) -> None:
        """Build both branches.

        Args:
            front: Name of the speech features.
            feature_dim: Their width ``D``.
            window: Steps ``L`` of a window of speech.
            align: How windows lie about a frame (:func:`talkhead.audio.speech_windows.speech_windows`).
            frames: Pictures ``T`` of a run.
            boxes: Whether a run shares one mouth box (:func:`talkhead.geometry.mouth_box.run_boxes`).
            side: Side of the mouth pictures in pixels.
            dim: Size of an embedding.
            audio_widths: Outputs of the projection heads before the last.
            video_widths: Channels of the stem and of each stage; every stage halves the side.
            blocks: Residual blocks of a stage.
            dropout: Of the projection heads.
            non_negative: End both branches in a ReLU.
            front_kind: Which HuBERT, such as ``large``; set by the stage that trains the expert.
            front_digest: Digest of the features; set likewise.

        Raises:
            ConfigError: An unknown name, numbers below 1, or mouths too small for the stages.
        """
        super().__init__()
        sound, lips = audio_widths or list(AUDIO_WIDTHS), video_widths or list(VIDEO_WIDTHS)
        for name, value, allowed in (
            ("front", front, ("hubert", "mel")),
            ("align", align, ("start", "centre")),
            ("boxes", boxes, ("run", "frame")),
        ):
            if value not in allowed:
                raise ConfigError(f"{name}: expected {' or '.join(allowed)}, got {value!r}.")
        if min(feature_dim, window, frames, dim, *sound, *lips) < 1:
            raise ConfigError("sync expert: expected sizes of at least 1; correct the options.")
        self.front, self.feature_dim = front, feature_dim
        self.front_kind, self.front_digest = front_kind, front_digest
        self.window, self.align = window, align
        self.frames, self.boxes, self.side, self.dim = frames, boxes, side, dim
        self.sound = nn.Sequential(
            *[
                ProjectionHead(a, b, dropout)
                for a, b in pairwise([window * feature_dim, *sound, dim])
            ]
        )
        self.lips = _lips(3 * frames, lips, blocks, _area_left(side, len(lips) - 1), dim)
        self.end = nn.ReLU() if non_negative else nn.Identity()

    def note_front(self, digest: str) -> None:
        """Remember which features the expert is trained on, in its spec as well."""
        self.front_digest = digest
        self.amend_spec(front_digest=digest)

    def forward(self, windows: Tensor, mouths: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches on as many windows and runs: two ``(n, dim)``, sound first."""
        return self.audio(windows), self.video(mouths)

    def mouths(self, pictures: Tensor, points: Tensor) -> Tensor:
        """Mouths of runs of pictures as this expert sees them, differentiable.

        Args:
            pictures: ``(n, T, 3, H, W)`` in [-1, 1].
            points: 68 points of each, ``(n, T, 68, C)`` in crop units.

        Returns:
            ``(n, T, 3, side, side)``.

        Raises:
            ShapeError: Not as many points as pictures.
        """
        boxes = run_boxes(points, self.boxes).flatten(0, -2)
        cut = crop_mouth(pictures.flatten(0, 1), boxes, self.side)
        return cut.reshape(*pictures.shape[:2], *cut.shape[1:])

    def run_windows(self, features: Tensor, first: Tensor) -> Tensor:
        """Windows ``(n, L, D)`` of runs that begin with the frames ``first`` ``(n,)``.

        Args:
            features: Of the whole file, ``(S, D)`` at 50 Hz.
            first: Frame numbers, integers.
        """
        return speech_windows(
            features,
            run_frame(first, self.frames, self.align),
            length=self.window,
            align=self.align,
        )

    def frame_windows(self, features: Tensor, frames: int) -> Tensor:
        """Windows ``(frames, L, D)`` of every frame, from features ``(S, D)`` of the whole file."""
        return speech_windows(features, frames, length=self.window, align=self.align)

    def audio(self, windows: Tensor) -> Tensor:
        """Embeddings ``(n, dim)`` of windows of speech ``(n, L, D)``.

        Raises:
            ShapeError: Windows of another shape.
        """
        if windows.ndim != 3 or windows.shape[1:] != (self.window, self.feature_dim):
            raise ShapeError(
                f"expected windows of {self.front} features (n, {self.window}, {self.feature_dim}), got "
                f"{tuple(windows.shape)}; cut them with talkhead.audio.speech_windows.speech_windows."
            )
        out: Tensor = self.end(self.sound(windows.flatten(1)))
        return out

    def video(self, mouths: Tensor) -> Tensor:
        """Embeddings ``(n, dim)`` of runs of mouth pictures ``(n, T, 3, side, side)`` in [-1, 1].

        Raises:
            ShapeError: Runs of another shape.
        """
        wanted = (self.frames, 3, self.side, self.side)
        if mouths.ndim != 5 or mouths.shape[1:] != wanted:
            raise ShapeError(
                f"expected mouths (n, {', '.join(map(str, wanted))}), got {tuple(mouths.shape)}; cut them "
                "with talkhead.geometry.mouth_box.crop_mouth."
            )
        out: Tensor = self.end(self.lips(mouths.flatten(1, 2)))
        return out


class ProjectionHead(nn.Module):
    """Linear, GELU, linear, dropout, with a skip from the first linear layer, and layer norm."""

    def __init__(self, inputs: int, dim: int, dropout: float) -> None:
        """Set up a head from ``inputs`` to ``dim`` numbers."""
        super().__init__()
        self.projection = nn.Linear(inputs, dim)
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs)`` to ``(n, dim)``."""
        projected = self.projection(x)
        out: Tensor = self.norm(projected + self.mix(projected))
        return out


class Residual(nn.Module):
    """A 3x3 convolution with batch norm, a skip, and ReLU."""

    def __init__(self, width: int) -> None:
        """Set up ``width`` channels."""
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps of unchanged shape."""
        out: Tensor = self.relu(self.conv(x) + x)
        return out


def _lips(channels: int, widths: list[int], blocks: int, left: int, dim: int) -> nn.Sequential:
    """Stacked pictures ``(n, channels, side, side)`` to ``(n, dim)``."""
    layers: list[nn.Module] = [*_conv(channels, widths[0], 7, 1, 3)]
    for previous, width in pairwise(widths):
        layers += [*_conv(previous, width, 3, 2, 1), *[Residual(width) for _ in range(blocks)]]
    layers += [*_conv(widths[-1], widths[-1], left, 1, 0), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], dim))


def _conv(before: int, after: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    ]


def _area_left(side: int, stages: int) -> int:
    """Side of the maps after the stages: 4 for 128 pixels and five stages.

    Raises:
        ConfigError: The stages need larger mouths.
    """
    if side < 2**stages:
        raise ConfigError(
            f"side: expected at least {2**stages} pixels for {stages} stages, got {side}; use larger "
            "mouths or fewer video_widths."
        )
    for _ in range(stages):
        side = (side + 1) // 2
    return side
