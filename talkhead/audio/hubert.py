"""HuBERT: speech features at 50 Hz from public weights, in constant memory for speech of any length."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.models import hubert_base, hubert_large

from talkhead.audio.speech_windows import STEPS_PER_FRAME
from talkhead.errors import ConfigError, MissingDependencyError, ShapeError
from talkhead.networks.pretrained import fill, read_weights, tensors_of
from talkhead.specs import SAMPLES_PER_FRAME, samples_to_frames

HubertKind = Literal["base", "large", "chinese_large"]
WIDTHS: dict[str, int] = {"base": 768, "large": 1024, "chinese_large": 1024}
CACHED = {"base": "hubert_fairseq_base_ls960.pth", "large": "hubert_fairseq_large_ll60k.pth"}
"""Names under which torchaudio keeps its weights in the cache of ``torch.hub``."""
NORMALISED = {"base": False, "large": True}
HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
HF_CONFIG, HF_FRONT = "config.json", "preprocessor_config.json"
STRIDE = 320
"""Samples between two steps."""
REACH = 400
"""Samples that a step's convolutions see, from its first sample on."""
CHUNK_STEPS, CONTEXT_STEPS = 1000, 250
"""20 s of features at a time, with 5 s of sound before and after them."""
LEVEL_EPS = 1e-5
STATISTICS_SAMPLES = 1_600_000


class HubertFeatures(nn.Module):
    """Last hidden states of a HuBERT model, two steps a video frame.

    Step ``k`` begins with sample ``320 k``. A file of ``T`` frames gives ``2 T`` steps: 80 zeros are put
    after its end, without which the model stops one step earlier.

    Long files go through the transformer in chunks with sound on either side of them, so that memory does
    not grow. What concerns the whole file is measured first: mean and deviation of the wave, where the
    model was trained on normalised waves, and the statistics of the first convolution, where these are
    taken over time (HuBERT base). The convolutions are then those of the whole file to rounding; only the
    attention sees no further than 5 s beyond its chunk in a file longer than 30 s. With a small random
    network, whose attention is spread over the whole file, joined chunks with 2 s of context differ from
    the whole file by 3 % on average and by less than 6 % anywhere away from its ends.

    Source: Hsu et al. (2021) through torchaudio; ControlTalk takes the last hidden state of the whole
        file (reference-facts 7.3).
    """

    def __init__(
        self,
        model: nn.Module,
        normalise: bool,
        chunk_steps: int = CHUNK_STEPS,
        context_steps: int = CONTEXT_STEPS,
    ) -> None:
        """Wrap a model.

        Args:
            model: A ``torchaudio.models.Wav2Vec2Model`` without a head.
            normalise: Whether it wants waves of zero mean and unit variance.
            chunk_steps: Steps of a chunk.
            context_steps: Steps that the transformer sees on either side of a chunk.

        Raises:
            ConfigError: Chunks without steps.
        """
        super().__init__()
        if chunk_steps < 1 or context_steps < 0:
            raise ConfigError(
                f"HuBERT: expected chunks of at least one step and context of at least none, got "
                f"{chunk_steps} and {context_steps}."
            )
        self.model = model.eval().requires_grad_(False)
        self.normalise = normalise
        self.chunk_steps, self.context_steps = chunk_steps, context_steps

    def forward(self, wave: Tensor) -> Tensor:
        """Features ``(2 T, D)`` of a wave ``(S,)`` at 16 kHz, ``T = S // 640``.

        Raises:
            ShapeError: Not one axis of floating-point samples, or less than a frame.
        """
        return torch.cat(list(self.chunks(wave)))

    @torch.no_grad()
    def chunks(self, wave: Tensor) -> Iterator[Tensor]:
        """The same piece by piece, each ``(n, D)`` of at most ``chunk_steps`` steps.

        A file of at most ``chunk_steps + 2 context_steps`` is one piece.

        Raises:
            ShapeError: See above.
        """
        if wave.ndim != 1 or not wave.is_floating_point() or len(wave) < SAMPLES_PER_FRAME:
            raise ShapeError(
                f"expected float samples (S,) in [-1, 1] of at least one frame ({SAMPLES_PER_FRAME}), got "
                f"{wave.dtype} {tuple(wave.shape)}; mix down to mono at 16 kHz."
            )
        frames = samples_to_frames(len(wave))
        steps, own = STEPS_PER_FRAME * frames, self.chunk_steps
        sound = wave[: frames * SAMPLES_PER_FRAME].float()
        if self.normalise:
            sound = (sound - sound.mean()) / (sound.var(unbiased=False) + LEVEL_EPS).sqrt()
        sound = F.pad(sound, (0, REACH - STRIDE))
        if steps <= own + 2 * self.context_steps:
            own = steps
        level = self._level(sound, steps)
        for start in range(0, steps, own):
            stop = min(start + own, steps)
            low, high = max(start - self.context_steps, 0), min(stop + self.context_steps, steps)
            heard = self._convolved(sound[low * STRIDE : (high - 1) * STRIDE + REACH], level)
            yield self._attended(heard)[0, start - low : stop - low]

    def _attended(self, heard: Tensor) -> Tensor:
        out: Tensor = self._part("encoder")(heard, None)
        return out

    def _convolved(self, sound: Tensor, level: tuple[Tensor, Tensor] | None) -> Tensor:
        """Convolutions of a piece ``(S,)``, ``(1, steps, C)``, with given statistics of the first layer."""
        x = sound[None, None]
        for block in self._layers():
            x, norm = block.conv(x), block.layer_norm
            if isinstance(norm, nn.GroupNorm) and level is not None:
                mean, variance = level
                x = (x - mean[:, None]) / (variance[:, None] + norm.eps).sqrt()
                x = x * norm.weight[:, None] + norm.bias[:, None]
            elif norm is not None:
                x = norm(x)
            x = F.gelu(x)
        return x.transpose(1, 2)

    def _level(self, sound: Tensor, steps: int) -> tuple[Tensor, Tensor] | None:
        """Mean and variance over the file of each channel of the first convolution, if it wants them.

        Sums in float64, a few minutes of sound at a time.
        """
        first = self._layers()[0]
        if not isinstance(first.layer_norm, nn.GroupNorm):
            return None
        stride, kernel = first.conv.stride[0], first.conv.kernel_size[0]
        used = sound[: (steps - 1) * STRIDE + REACH]
        count = (len(used) - kernel) // stride + 1
        per_piece = STATISTICS_SAMPLES // stride
        sums = torch.zeros(2, first.conv.out_channels, dtype=torch.float64, device=sound.device)
        for start in range(0, count, per_piece):
            stop = min(start + per_piece, count)
            piece = used[start * stride : (stop - 1) * stride + kernel]
            maps = first.conv(piece[None, None])[0]
            sums += torch.stack([maps.sum(-1), maps.square().sum(-1)]).double()
        mean, square = sums / count
        variance = (square - mean.square()).clamp_min(0.0)
        return mean.float(), variance.float()

    def _layers(self) -> Any:
        return self._part("feature_extractor").conv_layers

    def _part(self, name: str) -> Any:
        return getattr(self.model, name)


def hubert_file(kind: HubertKind, path: str | None = None, sha256: str | None = None) -> str:
    """Where the weights of a model are, and that they are the wanted ones.

    Args:
        kind: ``base`` and ``large`` are torchaudio's files, ``chinese_large`` a folder as Hugging Face
            keeps it, with ``config.json`` and the weights.
        path: File or folder; None looks into the cache of ``torch.hub``.
        sha256: SHA-256 the weights must have, at least 8 digits; None takes any.

    Returns:
        SHA-256 of the file of weights, 64 hexadecimal digits.

    Raises:
        ConfigError: An unknown kind, no file, or another digest.
    """
    file = _weights_file(kind, path)
    digest = _digest(str(file), file.stat().st_mtime_ns, file.stat().st_size)
    if sha256 is not None and (len(sha256) < 8 or not digest.startswith(sha256.lower())):
        raise ConfigError(
            f"{file}: expected SHA-256 {sha256}, got {digest}; the file is damaged or another version. "
            "Download it again or correct the digest (at least 8 digits)."
        )
    return digest


def load_hubert(
    kind: HubertKind, path: str | None = None, sha256: str | None = None
) -> HubertFeatures:
    """A model with public weights; arguments and errors as :func:`hubert_file`.

    Raises:
        ConfigError: As there, or weights that do not fit or hold code.
        MissingDependencyError: ``chinese_large`` without the package transformers.
    """
    file = _weights_file(kind, path)
    if kind == "chinese_large":
        hubert_file(kind, path, sha256)
        return _from_hugging_face(file.parent)
    model = hubert_base() if kind == "base" else hubert_large()
    what = f"HuBERT {kind} ({CACHED[kind]})"
    loaded, _ = read_weights(str(file), sha256, what)
    fill(model, tensors_of(loaded, str(file), what), str(file), what)
    return HubertFeatures(model, NORMALISED[kind])


def _from_hugging_face(folder: Path) -> HubertFeatures:
    """A model kept as Hugging Face does, such as TencentGameMate's chinese-hubert-large."""
    try:
        from transformers import HubertModel
    except ImportError as error:
        raise MissingDependencyError(
            f"{folder}: reading a Hugging Face model needs the package transformers, which is not "
            "installed; pip install 'talkhead[hubert]'."
        ) from error
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    # Files are read from the folder and nowhere else; weights_only holds for pytorch_model.bin.
    original = HubertModel.from_pretrained(folder, local_files_only=True, weights_only=True)
    front = folder / HF_FRONT
    normalise = True
    if front.is_file():
        normalise = bool(json.loads(front.read_text(encoding="utf-8")).get("do_normalize", True))
    logging.getLogger("torchaudio.models.wav2vec2.utils.import_huggingface").setLevel(logging.ERROR)
    return HubertFeatures(import_huggingface_model(original.float().eval()), normalise)


def _weights_file(kind: str, path: str | None) -> Path:
    """The file of weights, which is there."""
    if kind not in WIDTHS:
        raise ConfigError(f"HuBERT: expected kind {', '.join(WIDTHS)}, got {kind!r}.")
    if kind == "chinese_large":
        if path is None or not (Path(path) / HF_CONFIG).is_file():
            raise ConfigError(
                f"expected a folder with {HF_CONFIG} and {' or '.join(HF_WEIGHTS)} of "
                f"chinese-hubert-large, found none at {path}; download it once by hand and pass "
                "weights_path, or use kind: large."
            )
        files = [Path(path) / name for name in HF_WEIGHTS]
    else:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / CACHED[kind]
        files = [Path(os.path.expandvars(path)).expanduser() if path else cache]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise ConfigError(
            f"expected the weights of HuBERT {kind} at {' or '.join(map(str, files))}, found no file; "
            "download them once by hand (see docs/weights.md) and pass weights_path, or use speech "
            "features that need none (front: mel)."
        )
    return found


@lru_cache(maxsize=16)
def _digest(path: str, changed_ns: int, size: int) -> str:
    """SHA-256 of a file; a gigabyte is read once in a process unless the file changes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
