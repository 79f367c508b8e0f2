"""Stage 41: the autoregressive prior, the diffusion prior's baseline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from talkhead.batch import SequenceBatch
from talkhead.checkpoint import Source
from talkhead.diffusion.chunking import WindowSampler
from talkhead.diffusion.sampler import CleanFrames, SamplerSettings
from talkhead.errors import ConfigError
from talkhead.losses.motion import code_loss, velocity_loss
from talkhead.networks.prior import roll_out
from talkhead.stages.motion_prior import MotionPriorStage

FirstToken = Literal["zeros", "reference"]


class MotionARStage(MotionPriorStage):
    """Predict each frame's non-lip code from the sound so far and the codes before it.

    The same network as the diffusion prior with causal attention, trained with teacher forcing. It is
    deterministic: one motion for one speech, so its takes are all alike. Sampler settings other than
    ``overlap`` do not apply.

    Source: paper 1, supplement I.3; reference-facts 4.6. The paper leaves the first token open; its
    formula conditions on the whole audio while its text says tokens only see earlier ones, read here as
    causal in both unless ``look_ahead`` says otherwise.
    """

    causal = True
    default_weights: ClassVar[Mapping[str, float]] = {"simple": 1.0, "velocity": 0.0}

    def __init__(
        self,
        audio_encoder: Source,
        motion_encoder: Source,
        nonlip_head: Source,
        lip_head: Source,
        identity_encoder: Source | None = None,
        generator: Source | None = None,
        prior: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        image_size: int = 224,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        sampler: SamplerSettings | None = None,
        takes: int = 2,
        validation_clips: int = 8,
        first_token: FirstToken = "zeros",
        scheduled_sampling: float = 0.0,
        look_ahead: int = 0,
    ) -> None:
        """Configure the stage.

        Args:
            audio_encoder: Checkpoint of stage ``av_contrastive``.
            motion_encoder: Checkpoint of stage ``reenactment`` or ``av_contrastive``.
            nonlip_head: Checkpoint of stage ``lip_disentangle``.
            lip_head: Checkpoint of stage ``lip_disentangle``; not trained on, kept for generation.
            identity_encoder: Checkpoint of stage ``reenactment``; as ``lip_head``, may be left out.
            generator: Checkpoint of stage ``lip_disentangle``; as ``lip_head``, may be left out.
            prior: Options of :class:`PriorNetwork`.
            weights: Loss weights by term; the velocity term is only logged unless given a weight.
            image_size: Side of the crops the motion encoder works on, in pixels.
            lr: Learning rate (AdamW).
            weight_decay: Decoupled weight decay.
            sampler: ``overlap`` of chained windows; the rest is ignored. Not stored in checkpoints.
            takes: Samples drawn for each test clip.
            validation_clips: Validation runs sampled for ``val/snd[code]``, 0 for none.
            first_token: What precedes the first frame: ``zeros`` (the mean code, marked as not
                given), or ``reference``: the first frame's own code, as a portrait gives it at test
                time.
            scheduled_sampling: Share of previous codes replaced in training by the network's own
                predictions from a first pass.
            look_ahead: Frames by which the sound runs ahead of the codes.

        Raises:
            ConfigError: An option is out of range.
        """
        super().__init__(
            audio_encoder, motion_encoder, nonlip_head, lip_head, identity_encoder, generator,
            prior, weights, image_size, lr, weight_decay, sampler, takes, validation_clips,
        )  # fmt: skip
        self.save_hyperparameters(ignore=["sampler"])
        if first_token not in ("zeros", "reference"):
            raise ConfigError(f"expected first_token zeros or reference, got {first_token!r}.")
        if not 0.0 <= scheduled_sampling <= 1.0 or look_ahead < 0:
            raise ConfigError(
                f"expected scheduled_sampling in [0, 1] and look_ahead of 0 or more frames, got "
                f"{scheduled_sampling} and {look_ahead}; correct them."
            )
        self.first_token, self.scheduled_sampling = first_token, scheduled_sampling
        self.look_ahead = look_ahead

    def score(self, batch: SequenceBatch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Losses of the next code under teacher forcing, over all valid frames."""
        codes = self.prior.standardise(batch.features["nonlip"].float())
        audio = self.audio_ahead(batch.features["audio"].float(), batch.valid)
        before, given = self.previous_codes(codes)
        if self.scheduled_sampling > 0.0:
            with torch.no_grad():
                guess = self.prior(before, None, audio, given=given, valid=batch.valid).float()
            swap = torch.rand(given.shape, device=codes.device, generator=generator)
            swap = (swap < self.scheduled_sampling)[..., None]
            swap[:, 0] = False
            before = torch.where(swap, torch.cat([before[:, :1], guess[:, :-1]], 1), before)
        predicted = self.prior(before, None, audio, given=given, valid=batch.valid).float()
        return {
            "simple": code_loss(predicted, codes, batch.valid),
            "velocity": velocity_loss(predicted, codes, batch.valid),
        }

    def previous_codes(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs under teacher forcing ``(B, T, D)``, and which of them are given ``(B, T)``."""
        given = torch.ones(codes.shape[:2], dtype=torch.bool, device=codes.device)
        if self.first_token == "reference":
            return torch.cat([codes[:, :1], codes[:, :-1]], 1), given
        given[:, 0] = False
        return torch.cat([torch.zeros_like(codes[:, :1]), codes[:, :-1]], 1), given

    def window_sampler(self, seeds: Sequence[int], settings: SamplerSettings) -> WindowSampler:
        """Roll a window out with a key/value cache; nothing is random, the seeds go unused."""

        def window(audio: Tensor, clean: CleanFrames | None) -> Tensor:
            codes, kept = (None, None) if clean is None else (clean.codes, clean.mask)
            first = None
            if self.first_token == "reference":
                first = audio.new_zeros(audio.shape[0], self.prior.code_dim)
                if codes is not None and kept is not None:
                    first = torch.where(kept[:, :1], codes[:, 0].to(first), first)
            return roll_out(
                self.prior, self.prior.project(audio), first=first, codes=codes, kept=kept
            )

        return window

    def audio_ahead(self, audio: Tensor, valid: Tensor | None = None) -> Tensor:
        """Sound of ``look_ahead`` frames later; the last valid frame is repeated at the end."""
        if self.look_ahead == 0:
            return audio
        rows, frames = audio.shape[:2]
        ends = torch.full((rows,), frames, device=audio.device) if valid is None else valid.sum(1)
        later = torch.arange(frames, device=audio.device)[None] + self.look_ahead
        index = torch.minimum(later, (ends - 1).clamp_min(0)[:, None])
        return audio.gather(1, index[..., None].expand_as(audio))

    def stream_ahead(self, audio: Iterable[Tensor]) -> Iterator[Tensor]:
        """As :meth:`audio_ahead`: drop the first frames, repeat the last at the end."""
        to_drop, dropped, last = self.look_ahead, 0, None
        for block in audio:
            cut = min(to_drop, block.shape[1])
            to_drop, dropped = to_drop - cut, dropped + cut
            last = block[:, -1:] if block.shape[1] else last
            if block.shape[1] > cut:
                yield block[:, cut:]
        if last is not None and dropped:
            yield last.expand(-1, dropped, -1)
