"""Speech features by name: what a lip-sync expert hears, cached for training and computed for new speech."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from talkhead.audio.hubert import (
    CHUNK_STEPS,
    CONTEXT_STEPS,
    WIDTHS,
    HubertFeatures,
    HubertKind,
    hubert_file,
    load_hubert,
)
from talkhead.audio.speech_windows import (
    MEL_DIM,
    STEPS_PER_FRAME,
    mel_speech,
    mel_speech_chunks,
)
from talkhead.batch import SPEECH, FeatureSource
from talkhead.errors import ConfigError
from talkhead.networks.component import tensors_digest
from talkhead.networks.sync_expert import Front, SyncExpert
from talkhead.specs import AudioSpec

HUBERT_OPTIONS = ("kind", "weights_path", "weights_sha256")


@dataclass(frozen=True)
class HubertChoice:
    """Which HuBERT: its kind, the file or folder of its weights (None: the usual cache) and their digest."""

    kind: HubertKind = "large"
    weights_path: str | None = None
    weights_sha256: str | None = None


@dataclass(frozen=True)
class SpeechFront:
    """Speech features of one kind; weights are looked at when they are needed, not before.

    Attributes:
        name: ``hubert``, or ``mel``, which needs no weights.
        hubert: Which model.
        recorded: Digest of the features an expert was trained on, "" for none. With it, features that are
            cached can be used on a machine without the weights, and other features are refused.
    """

    name: Front
    hubert: HubertChoice
    recorded: str = ""

    @property
    def dim(self) -> int:
        """Width ``D`` of a step."""
        return MEL_DIM if self.name == "mel" else WIDTHS[self.hubert.kind]

    def digest(self) -> str:
        """Hash over everything the features depend on besides the wave.

        Raises:
            ConfigError: Weights that are missing while no digest is recorded, or others than recorded.
        """
        if self.name == "mel":
            found = tensors_digest({"front": "mel", "dim": MEL_DIM, **asdict(AudioSpec())}, {})
        else:
            choice = self.hubert
            try:
                weights = hubert_file(choice.kind, choice.weights_path, choice.weights_sha256)
            except ConfigError:
                if self.recorded and choice.weights_path is None:
                    return self.recorded
                raise
            options = {"front": "hubert", "kind": choice.kind, "weights": weights}
            chunks = {"chunk": CHUNK_STEPS, "context": CONTEXT_STEPS}
            found = tensors_digest({**options, **chunks}, {})
        if self.recorded not in ("", found):
            raise ConfigError(
                f"speech features: the expert was trained on {self.name} features {self.recorded[:12]}…, "
                f"these are {found[:12]}…; give the weights it was trained with."
            )
        return found

    def source(self) -> FeatureSource:
        """The features as a cache keeps them: a frame's two steps in one row, ``(T, 2 D)``."""
        rows = _SpeechRows(self)
        return FeatureSource(SPEECH, self.digest(), "wave", rows, STEPS_PER_FRAME * self.dim)

    def features(self, wave: Tensor) -> Tensor:
        """Features ``(2 T, D)`` of speech ``(S,)`` at 16 kHz, on its device; ``T = S // 640``."""
        return torch.cat(list(self.chunks(wave)))

    def chunks(self, wave: Tensor) -> Iterator[Tensor]:
        """The same in pieces ``(n, D)``, in constant memory."""
        if self.name == "mel":
            return mel_speech_chunks(wave)
        return self.load().to(wave.device).chunks(wave)

    def load(self) -> HubertFeatures:
        """The network, on the CPU.

        Raises:
            ConfigError: Weights are missing, or others than the expert was trained on; front ``mel``.
        """
        if self.name == "mel":
            raise ConfigError("speech features: mel has no network; call features().")
        choice = self.hubert
        network = load_hubert(choice.kind, choice.weights_path, choice.weights_sha256)
        self.digest()  # now that there are weights, they must be those of the expert
        return network


def speech_front(name: Front, hubert: Mapping[str, Any] | None, recorded: str = "") -> SpeechFront:
    """Speech features from the options given in YAML.

    Args:
        name: ``hubert`` or ``mel``.
        hubert: ``kind`` (``base``, ``large`` or ``chinese_large``), ``weights_path``, ``weights_sha256``.
        recorded: See :class:`SpeechFront`.

    Raises:
        ConfigError: Unknown options or names.
    """
    unknown = sorted(set(hubert or {}) - set(HUBERT_OPTIONS))
    if unknown:
        raise ConfigError(
            f"hubert: no option {', '.join(unknown)}; expected some of {', '.join(HUBERT_OPTIONS)}."
        )
    choice = HubertChoice(**(hubert or {}))
    for what, value, allowed in (
        ("front", name, get_args(Front)),
        ("hubert: kind", choice.kind, get_args(HubertKind)),
    ):
        if value not in allowed:
            raise ConfigError(f"{what}: expected {' or '.join(allowed)}, got {value!r}.")
    return SpeechFront(name, choice, recorded)


def expert_front(expert: SyncExpert, hubert: Mapping[str, Any] | None = None) -> SpeechFront:
    """The speech features that a trained expert hears.

    Args:
        expert: With its ``front``, kind and digest.
        hubert: As :func:`speech_front`; the kind is the expert's where none is given.

    Raises:
        ConfigError: Unknown options, or a model of another width.
    """
    options = dict(hubert or {})
    if expert.front_kind:
        options.setdefault("kind", expert.front_kind)
    front = speech_front(expert.front, options, expert.front_digest)
    if front.dim != expert.feature_dim:
        raise ConfigError(
            f"speech features: the expert hears {expert.feature_dim} numbers a step, these are "
            f"{front.dim}; name the model it was trained with (hubert: {{kind: …}})."
        )
    return front


class _SpeechRows(nn.Module):
    """Features of a whole clip, a row a frame; a network is loaded with the first clip."""

    def __init__(self, front: SpeechFront) -> None:
        super().__init__()
        self.front = front
        self.network: HubertFeatures | None = None

    def forward(self, wave: Tensor) -> Tensor:
        if self.front.name == "mel":
            features = mel_speech(wave)
        else:
            if self.network is None:
                self.network = self.front.load().to(wave.device)
            features = self.network(wave)
        return features.reshape(-1, STEPS_PER_FRAME * self.front.dim)
