"""SyncNet: do these five pictures of a mouth and this fifth of a second of sound belong together?"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from talkhead.audio.mfcc import N_COEFFICIENTS
from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component
from talkhead.networks.pretrained import RANDOM, load_pretrained
from talkhead.networks.volume_conv import VolumeConv
from talkhead.specs import AudioSpec

SYNCNET_V2_SHA256 = "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"
"""Digest of ``syncnet_v2.model`` as its authors publish it (54 573 114 bytes)."""

PUBLISHED = "published"

WINDOW_FRAMES = AudioSpec().window_frames
WINDOW_STEPS = AudioSpec().window_steps
AUDIO_WIDTHS = (64, 192, 384, 256, 256, 512)
LIP_WIDTHS = (96, 256, 256, 256, 256, 512)


class SyncNet(Component):
    """Two branches that put pictures and sound of the same moment close together.

    | lips, 3 x 5 x 224 x 224                 | sound, 1 x 13 x 20                     |
    |-----------------------------------------|----------------------------------------|
    | 5x7x7, stride 2, 96; pool 3, stride 2   | 3x3, 64                                |
    | 1x5x5, stride 2, 256; pool 3, stride 2  | 3x3, 192; pool 3, stride (1, 2)        |
    | three 1x3x3, 256; pool 3, stride 2      | 3x3, 384, 256, 256; pool 3, stride 2   |
    | the 6x6 that are left, 512              | the 5x4 that are left, 512             |
    | linear 512, linear 1024                 | linear 512, linear 1024                |

    Batch norm and ReLU follow every layer but the last. Time is touched by the first lip layer only,
    so a run of ``T`` frames gives its ``T - 4`` windows in one call.

    Pictures come as everywhere in the suite, RGB in [-1, 1]; the published weights were trained on BGR
    in [0, 255], and so are ours: :meth:`visual` converts, nobody else does.

    Source: Chung & Zisserman (2016), in the version behind ``syncnet_v2.model`` (reference-facts 8.1);
        at its default sizes the parameters have the names and shapes of that file. Deviates: the sizes
        may be others, and the last layer before the linear ones takes whatever area is left.
    """

    transient: ClassVar[tuple[str, ...]] = ("weights_path", "weights_sha256")

    def __init__(
        self,
        dim: int = 1024,
        hidden: int = 512,
        image_size: int = 224,
        stem_stride: int = 2,
        lip_widths: list[int] | None = None,
        audio_widths: list[int] | None = None,
        weights_path: str | None = None,
        weights_sha256: str | None = PUBLISHED,
        provenance: str = RANDOM,
    ) -> None:
        """Build the network.

        Args:
            dim: Size of an embedding.
            hidden: Width between the two linear layers of a branch.
            image_size: Side of the pictures in pixels.
            stem_stride: Stride of the first lip layer; 1 for pictures of about 64 pixels.
            lip_widths: Channels of the six lip layers.
            audio_widths: Channels of the six sound layers.
            weights_path: The published ``syncnet_v2.model``, or None.
            weights_sha256: Digest the file must have, by default :data:`SYNCNET_V2_SHA256`; None takes any.
            provenance: Where the first weights came from; set by the loader and kept in the spec.

        Raises:
            ConfigError: Other than six widths, pictures too small for the strides, or weights that are
                missing, have another digest or do not fit.
        """
        super().__init__()
        lips, sound = lip_widths or list(LIP_WIDTHS), audio_widths or list(AUDIO_WIDTHS)
        for name, widths in (("lip_widths", lips), ("audio_widths", sound)):
            if len(widths) != len(LIP_WIDTHS):
                raise ConfigError(f"{name}: expected {len(LIP_WIDTHS)} channels, got {widths}.")
        self.dim, self.image_size = dim, image_size
        # The names of the published file, so that it loads as it is.
        self.netcnnaud = _sound_layers(sound)
        self.netfcaud = _head(sound[-1], hidden, dim)
        self.netfclip = _head(lips[-1], hidden, dim)
        self.netcnnlip = _lip_layers(lips, stem_stride, _area_left(image_size, stem_stride))
        digest = weights_sha256
        if weights_sha256 == PUBLISHED:
            digest = None if weights_path is None else SYNCNET_V2_SHA256
        loaded = load_pretrained(self, weights_path, digest, "SyncNet (syncnet_v2.model)")
        self.provenance = provenance if weights_path is None else loaded
        self.amend_spec(provenance=self.provenance)

    @property
    def judge(self) -> str:
        """Whose scores these are: ``syncnet_v2`` as published, ``syncnet`` for any other weights."""
        return "syncnet_v2" if self.provenance == f"file:{SYNCNET_V2_SHA256}" else "syncnet"

    def note_training(self) -> None:
        """Weights from a file are about to change: :attr:`provenance` says so from now on."""
        if self.provenance.startswith("file:"):
            self.provenance = f"trained from {self.provenance}"
            self.amend_spec(provenance=self.provenance)

    def forward(self, pictures: Tensor, mfcc: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches on windows ``(n, 5, 3, H, W)`` and ``(n, 1, 13, 20)``: two ``(n, dim)``."""
        return self.visual(pictures).flatten(0, 1), self.audio(mfcc)

    def visual(self, pictures: Tensor) -> Tensor:
        """Embeddings of every five consecutive frames.

        Args:
            pictures: Runs of frames, RGB in [-1, 1], ``(n, T, 3, H, W)`` with ``T >= 5``.

        Returns:
            ``(n, T - 4, dim)``; number ``i`` is of the frames ``i .. i + 4``.

        Raises:
            ShapeError: Fewer than five frames, or pictures of another size.
        """
        wanted = (3, self.image_size, self.image_size)
        if pictures.ndim != 5 or pictures.shape[1] < WINDOW_FRAMES or pictures.shape[2:] != wanted:
            raise ShapeError(
                f"expected runs of at least {WINDOW_FRAMES} frames (n, T, {', '.join(map(str, wanted))}), "
                f"got {tuple(pictures.shape)}; scale them to image_size and keep time before channels."
            )
        pixels = (pictures.flip(2) + 1.0) * 127.5
        maps = self.netcnnlip(pixels.transpose(1, 2)).flatten(2)  # (n, C, T - 4)
        windows = maps.transpose(1, 2)
        embeddings = self.netfclip(windows.flatten(0, 1))
        runs: Tensor = embeddings.unflatten(0, windows.shape[:2])
        return runs

    def audio(self, mfcc: Tensor) -> Tensor:
        """Embeddings ``(n, dim)`` of cepstral windows ``(n, 1, 13, 20)``.

        Raises:
            ShapeError: Windows of another shape.
        """
        if mfcc.ndim != 4 or mfcc.shape[1:] != (1, N_COEFFICIENTS, WINDOW_STEPS):
            raise ShapeError(
                f"expected cepstral windows (n, 1, {N_COEFFICIENTS}, {WINDOW_STEPS}), got "
                f"{tuple(mfcc.shape)}; cut them with talkhead.audio.mfcc.mfcc_windows."
            )
        embeddings: Tensor = self.netfcaud(self.netcnnaud(mfcc).flatten(1))
        return embeddings


def _sound_layers(widths: list[int]) -> nn.Sequential:
    """1 x 13 x 20 to C x 1 x 1, numbered as in the published file."""
    kernels: list[tuple[int, int]] = [(3, 3)] * 5 + [(5, 4)]
    pools: dict[int, nn.Module] = {
        0: nn.MaxPool2d(1),  # does nothing, but counts
        1: nn.MaxPool2d(3, stride=(1, 2)),
        4: nn.MaxPool2d(3, stride=2),
    }
    layers: list[nn.Module] = []
    previous = 1
    for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
        padding = 0 if i == len(widths) - 1 else 1
        layers += [nn.Conv2d(previous, width, kernel, padding=padding), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), *([pools[i]] if i in pools else [])]
        previous = width
    return nn.Sequential(*layers)


def _lip_layers(widths: list[int], stem_stride: int, left: int) -> nn.Sequential:
    """3 x T x H x W to C x (T - 4) x 1 x 1, numbered as in the published file."""
    across = (1, 2, 2)
    convolutions: list[tuple[tuple[int, int, int], int, int]] = [
        ((WINDOW_FRAMES, 7, 7), stem_stride, 0),
        ((1, 5, 5), 2, 1),
        *[((1, 3, 3), 1, 1)] * 3,
        ((1, left, left), 1, 0),
    ]
    pools: dict[int, nn.Module] = {
        0: nn.MaxPool3d((1, 3, 3), across),
        1: nn.MaxPool3d((1, 3, 3), across, (0, 1, 1)),
        4: nn.MaxPool3d((1, 3, 3), across),
    }
    layers: list[nn.Module] = []
    previous = 3
    for i, (width, (kernel, stride, edge)) in enumerate(zip(widths, convolutions, strict=True)):
        layers += [
            VolumeConv(previous, width, kernel, (1, stride, stride), (0, edge, edge)),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            *([pools[i]] if i in pools else []),
        ]
        previous = width
    return nn.Sequential(*layers)


def _head(inputs: int, hidden: int, dim: int) -> nn.Sequential:
    """Two linear layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, dim)
    )


def _area_left(image_size: int, stem_stride: int) -> int:
    """Side of the maps before the last lip layer: 6 for 224 pixels.

    Raises:
        ConfigError: Nothing is left.
    """
    if stem_stride not in (1, 2):
        raise ConfigError(f"stem_stride: expected 1 or 2, got {stem_stride}.")
    side = image_size
    for kernel, stride, padding in (
        (7, stem_stride, 0),
        (3, 2, 0),
        (5, 2, 1),
        (3, 2, 1),
        (3, 2, 0),
    ):
        side = (side + 2 * padding - kernel) // stride + 1
    if side < 1:
        smallest = 29 if stem_stride == 1 else 51
        raise ConfigError(
            f"image_size: expected at least {smallest} pixels with stem_stride {stem_stride}, got "
            f"{image_size}; use larger pictures."
        )
    return side
