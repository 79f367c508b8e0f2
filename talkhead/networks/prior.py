"""The network of both motion priors: audio features and codes in, clean codes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component
from talkhead.networks.transformer import PostNormBlock, sinusoids

STD_SHARE_FLOOR = 1e-3
"""Least deviation of a dimension as a share of the largest: a dead one is not blown up."""

AR_STEP = 0
"""Time step the autoregressive prior always uses."""


@dataclass
class KeyValueCache:
    """Keys and values of the frames already seen, preallocated for a whole window.

    Attributes:
        keys: ``(layers, B, heads, max_length, width / heads)``.
        values: Same shape.
        length: Frames filled so far.
    """

    keys: Tensor
    values: Tensor
    length: int = 0


class PriorNetwork(Component):
    """Transformer encoder over one token a frame; bidirectional for diffusion, causal for AR.

    Token of frame ``i``: ``Linear(cat(audio_i + time, code_i, given_i)) + position_i``, where
    ``code_i`` is the noised code (diffusion) or the previous frame's code (AR), and ``given_i`` is
    1 if that entry is a clean, known code. The linear map is applied to its three parts separately,
    so that the audio is projected once per sample and not at every evaluation (:meth:`project`).

    ``causal`` is the only difference between the two priors: parameters have the same names and
    shapes. The AR prior has no diffusion time; it runs with the constant step :data:`AR_STEP`,
    which makes the time embedding a learned bias of the audio.

    Codes are standardised: the network reads and predicts ``(code - mean) / std`` with the training
    split's statistics, kept as buffers and so in every checkpoint. :meth:`standardise` and
    :meth:`restore` convert. Audio features are standardised on entry.

    Source: paper 1 section 3.2, figure 3, supplement I.2 (512-d tokens, 1024-d feed-forward, learned
    positions, 128 tokens) with 8 layers as in its section 4; heads, dropout, GELU and post-norm
    from MDM, which it follows. Deviates: feature-wise concatenation with a "given" channel, since
    128 tokens rule out concatenating two sequences of 128 and clean frames are otherwise
    indistinguishable from slightly noised ones; standardised features.
    """

    code_mean: Tensor
    code_std: Tensor
    audio_mean: Tensor
    audio_std: Tensor
    has_statistics: Tensor
    null_audio: Tensor

    def __init__(
        self,
        audio_dim: int = 512,
        code_dim: int = 42,
        width: int = 512,
        layers: int = 8,
        heads: int = 4,
        feedforward: int = 1024,
        dropout: float = 0.1,
        max_length: int = 128,
        causal: bool = False,
        null_condition: Literal["zeros", "learned"] = "zeros",
    ) -> None:
        """Build the network.

        Args:
            audio_dim: Width of the audio feature of a frame.
            code_dim: Width of the non-lip code of a frame.
            width: Token width.
            layers: Transformer layers.
            heads: Attention heads.
            feedforward: Hidden width of the feed-forward layers.
            dropout: Dropout probability, also of attention weights.
            max_length: Frames in a window, the number of learned positions.
            causal: A frame sees itself and earlier frames only.
            null_condition: What stands for "no audio" before the time embedding is added:
                ``"zeros"`` (MDM; with standardised features the average sound) or ``"learned"``.

        Raises:
            ConfigError: ``width`` is not a multiple of ``heads`` or odd, or the null is unknown.
        """
        super().__init__()
        if width % heads or width % 2:
            raise ConfigError(
                f"expected an even width divisible by {heads} heads, got {width}; change either."
            )
        if null_condition not in ("zeros", "learned"):
            raise ConfigError(f"expected null_condition zeros or learned, got {null_condition!r}.")
        self.audio_dim, self.code_dim, self.width = audio_dim, code_dim, width
        self.heads, self.max_length, self.causal = heads, max_length, causal
        self.time_embedding = nn.Sequential(
            nn.Linear(width, audio_dim), nn.SiLU(), nn.Linear(audio_dim, audio_dim)
        )
        self.input = nn.Linear(audio_dim + code_dim + 1, width)
        # Learned, but neighbours start alike: from random ones, smoothing over time takes long to learn.
        self.position = nn.Parameter(sinusoids(torch.arange(max_length), width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(width, heads, feedforward, dropout) for _ in range(layers)
        )
        self.output = nn.Linear(width, code_dim)
        if null_condition == "learned":
            self.null_audio = nn.Parameter(torch.zeros(audio_dim))
        else:
            self.register_buffer("null_audio", torch.zeros(audio_dim))
        for name, dim in (("code", code_dim), ("audio", audio_dim)):
            self.register_buffer(f"{name}_mean", torch.zeros(dim))
            self.register_buffer(f"{name}_std", torch.ones(dim))
        self.register_buffer("has_statistics", torch.zeros((), dtype=torch.bool))

    # -- statistics ------------------------------------------------------------------------------

    @torch.no_grad()
    def set_statistics(
        self, code_mean: Tensor, code_std: Tensor, audio_mean: Tensor, audio_std: Tensor
    ) -> None:
        """Store the training split's mean and standard deviation per dimension.

        Deviations below :data:`STD_SHARE_FLOOR` of the largest are raised to it.

        Raises:
            ShapeError: A width differs from the network's.
        """
        given = {"code": (code_mean, code_std), "audio": (audio_mean, audio_std)}
        for name, (mean, std) in given.items():
            own = getattr(self, f"{name}_mean")
            if mean.shape != own.shape or std.shape != own.shape:
                raise ShapeError(
                    f"expected {name} statistics of shape {tuple(own.shape)}, got "
                    f"{tuple(mean.shape)} and {tuple(std.shape)}; use the features "
                    "this prior is built for."
                )
            own.copy_(mean)
            floor = max(float(std.max()) * STD_SHARE_FLOOR, torch.finfo(torch.float32).tiny)
            getattr(self, f"{name}_std").copy_(std.clamp_min(floor))
        self.has_statistics.fill_(True)

    def standardise(self, codes: Tensor) -> Tensor:
        """Codes ``(…, D)`` to about zero mean and unit variance."""
        return (codes - self.code_mean) / self.code_std

    def restore(self, codes: Tensor) -> Tensor:
        """Inverse of :meth:`standardise`."""
        return codes * self.code_std + self.code_mean

    # -- one pass over a window ------------------------------------------------------------------

    def project(self, audio: Tensor, drop: Tensor | None = None) -> Tensor:
        """Audio part of the tokens; needed once per sample, not once per evaluation.

        Args:
            audio: Raw audio features, ``(B, T, audio_dim)``.
            drop: ``(B,)`` bool, True where the null condition takes the audio's place.

        Returns:
            Condition ``(B, T, width)``.
        """
        features = (audio - self.audio_mean) / self.audio_std
        if drop is not None:
            features = torch.where(drop[:, None, None], self.null_audio, features)
        return F.linear(features, self.input.weight[:, : self.audio_dim], self.input.bias)

    def forward(
        self,
        codes: Tensor,
        step: Tensor | None,
        audio: Tensor,
        *,
        given: Tensor | None = None,
        valid: Tensor | None = None,
        drop: Tensor | None = None,
    ) -> Tensor:
        """Predict clean codes.

        Args:
            codes: Standardised noised codes (diffusion) or previous codes (AR), ``(B, T,
                code_dim)``.
            step: Diffusion steps ``(B,)`` int64; None is :data:`AR_STEP` for all.
            audio: Raw audio features, ``(B, T, audio_dim)``.
            given: ``(B, T)`` bool, True where ``codes`` holds a clean, known code; None is nowhere.
            valid: ``(B, T)`` bool, False on padding, which no frame then attends to; None is all
                valid.
            drop: ``(B,)`` bool, True where the audio is replaced by the null condition.

        Returns:
            Standardised clean codes ``(B, T, code_dim)``.

        Raises:
            ShapeError: More frames than positions, or shapes that do not agree.
        """
        return self.evaluate(codes, step, self.project(audio, drop), given, valid)

    def evaluate(
        self,
        codes: Tensor,
        step: Tensor | None,
        condition: Tensor,
        given: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`forward`, from a condition made by :meth:`project`."""
        self._check(codes, condition)
        x = self._tokens(codes, step, condition, given, start=0)
        mask = self._mask(valid, codes.shape[1])
        for block in self.blocks:
            x = block(x, mask, causal=self.causal and mask is None)
        codes_out: Tensor = self.output(x)
        return codes_out

    # -- frame by frame --------------------------------------------------------------------------

    def new_cache(self, rows: int) -> KeyValueCache:
        """An empty cache for ``rows`` sequences of up to ``max_length`` frames."""
        shape = (len(self.blocks), rows, self.heads, self.max_length, self.width // self.heads)
        keys, values = (torch.empty(shape, device=self.position.device) for _ in range(2))
        return KeyValueCache(keys.to(self.position), values.to(self.position))

    def extend(
        self, codes: Tensor, condition: Tensor, given: Tensor | None, cache: KeyValueCache
    ) -> Tensor:
        """Predict the next frames of a causal network, given the cache of all earlier ones.

        Args:
            codes: Standardised previous codes of the new frames, ``(B, t, code_dim)``; ``t > 1``
                only with an empty cache.
            condition: From :meth:`project`, ``(B, t, width)``.
            given: ``(B, t)`` bool, see :meth:`forward`.
            cache: Filled in place.

        Returns:
            ``(B, t, code_dim)``, what :meth:`forward` gives for the same frames.

        Raises:
            ConfigError: The network is not causal.
            ShapeError: The cache is full, or several frames for a cache in use.
        """
        if not self.causal:
            raise ConfigError(
                "expected a causal prior for frame-by-frame roll-out, got a bidirectional one."
            )
        start, frames = cache.length, codes.shape[1]
        if start + frames > self.max_length or (start and frames > 1):
            raise ShapeError(
                f"expected 1 new frame (or a prefix into an empty cache) within {self.max_length} "
                f"positions, got {frames} at position {start}; start a new window."
            )
        x = self._tokens(codes, None, condition, given, start)
        for i, block in enumerate(self.blocks):
            assert isinstance(block, PostNormBlock)  # a ModuleList does not say what it holds
            x = block.extend(x, cache.keys[i], cache.values[i], start)
        cache.length += frames
        codes_out: Tensor = self.output(x)
        return codes_out

    # -- private ---------------------------------------------------------------------------------

    def _tokens(
        self,
        codes: Tensor,
        step: Tensor | None,
        condition: Tensor,
        given: Tensor | None,
        start: int,
    ) -> Tensor:
        """Sum of the audio, time, code, given and position parts, ``(B, T, width)``."""
        weight = self.input.weight
        if step is None:
            step = torch.full((1,), AR_STEP, device=codes.device)
        time = self.time_embedding(sinusoids(step, self.width).to(weight.dtype))
        time = F.linear(time, weight[:, : self.audio_dim])[:, None]
        flag = codes.new_zeros(codes.shape[:2]) if given is None else given.to(codes.dtype)
        coded = F.linear(torch.cat([codes, flag[..., None]], -1), weight[:, self.audio_dim :])
        positions = self.position[start : start + codes.shape[1]]
        tokens: Tensor = self.dropout(condition + time + coded + positions)
        return tokens

    def _mask(self, valid: Tensor | None, frames: int) -> Tensor | None:
        """Attention mask ``(B, 1, T, T)``, True where a query may look; None without padding."""
        if valid is None:
            return None
        mask = valid[:, None, None, :]
        if self.causal:
            mask = mask & torch.ones(frames, frames, dtype=torch.bool, device=valid.device).tril()
        # A frame always sees itself: a softmax over nothing would be NaN, even if only on padding.
        return mask | torch.eye(frames, dtype=torch.bool, device=valid.device)

    def _check(self, codes: Tensor, condition: Tensor) -> None:
        """Refuse windows that are too long or do not fit together."""
        if codes.shape[:2] != condition.shape[:2] or codes.shape[-1] != self.code_dim:
            raise ShapeError(
                f"expected codes {(*condition.shape[:2], self.code_dim)} for this audio, got "
                f"{tuple(codes.shape)}; pass one code per audio frame."
            )
        if codes.shape[1] > self.max_length:
            raise ShapeError(
                f"expected at most {self.max_length} frames, got {codes.shape[1]}; sample long "
                "sequences in windows (talkhead.diffusion.chunking)."
            )


@torch.no_grad()
def roll_out(
    network: PriorNetwork,
    condition: Tensor,
    *,
    first: Tensor | None = None,
    codes: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """Generate one window autoregressively with a key/value cache.

    Every frame costs the same, whatever its position; frames kept at the start of the window are
    read in one pass. Longer sequences are rolled out window by window (see
    :func:`talkhead.diffusion.chunking.sample_long`): positions are learned, so each new window
    starts again at position 0 with its first ``overlap`` frames kept from the last one.

    Args:
        network: Causal network in eval mode.
        condition: From :meth:`PriorNetwork.project`, ``(B, T, width)``.
        first: Standardised code "before" the first frame, ``(B, code_dim)``; None is no code
            (zeros, with the given channel off).
        codes: Standardised codes of frames to keep, ``(B, T, code_dim)``.
        kept: ``(B, T)`` bool, which frames of ``codes`` to keep. They are fed onward as generated
            ones are.

    Returns:
        Standardised codes ``(B, T, code_dim)``.
    """
    rows, frames = condition.shape[:2]
    result = condition.new_zeros(rows, frames, network.code_dim)
    known = torch.zeros(rows, frames, dtype=torch.bool, device=condition.device)
    if codes is not None and kept is not None:
        result, known = torch.where(kept[..., None], codes.to(result), result), kept
    before = (
        result.new_zeros(rows, 1, network.code_dim) if first is None else first[:, None].to(result)
    )
    flags = torch.ones_like(known)
    flags[:, 0] = first is not None
    cache = network.new_cache(rows)
    prefix = max(1, int(known.all(0).long().cumprod(0).sum()))
    fed = torch.cat([before, result[:, : prefix - 1]], 1)
    start = 0
    while start < frames:
        stop = start + fed.shape[1]
        answer = network.extend(fed, condition[:, start:stop], flags[:, start:stop], cache)
        last = stop - 1
        result[:, last] = torch.where(
            known[:, last, None], result[:, last], answer[:, -1].to(result)
        )
        fed, start = result[:, last:stop], stop
    return result
