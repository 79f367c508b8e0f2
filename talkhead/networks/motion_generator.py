"""The multi-scale autoregressive generator of keypoint motion from speech."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import KEYPOINT_DIM, N_KEYPOINTS, ROW_DIM
from talkhead.networks.audio_pyramid import AudioPyramid, Interpolation, check_energies
from talkhead.networks.component import Component
from talkhead.networks.keypoint_encoder import keypoint_encoder
from talkhead.networks.transformer import Past, PostNormBlock
from talkhead.networks.window_syncer import STEPS_PER_FRAME

Merge = Literal["sum", "concat"]
"""How the branches' velocities become one: their masked sum, or a linear map of them side by side."""
WARM_UP_FRAMES = 2
"""Frames before the first, of mirrored sound and an unmoved face, that :meth:`stream` starts with."""
START_SHARE = 1e-3
"""Share of the usual initial size that the last layer starts with."""


class MotionGenerator(Component):
    """Velocities of ten keypoints from their past and the sound of the next frame.

    | part       | layers                                                                            |
    |------------|-----------------------------------------------------------------------------------|
    | keypoints  | ``e_t``: 60 to ``inner``, layer norm, ``4 inner``, GELU, ``width``                  |
    | sound      | :class:`AudioPyramid`: ``a_t^l``, ``width`` numbers on each of ``branches`` levels |
    | past       | causal transformer over ``e_0 .. e_t``, ``width`` to ``hidden``: ``h_t``           |
    | branch l   | ``(h_t, e_t, a_{t+1}^l)`` to velocities ``v^l`` (60) and mask logits ``w^l`` (10)  |
    | next frame | ``x_{t+1} = x_t + sum_l softmax_l(w)^l v^l``                                       |

    One logit serves the six numbers of a keypoint. Every layer of the transformer attends to the last
    ``context`` frames (a banded causal mask), so a frame costs the same however many came before, and
    keys and values stay valid. The last layer starts near zero: an untrained face hardly moves.

    Source: MS-Sync section 3.2 and equations 8 to 10, sizes of section 4.1 and of its released code
        (reference-facts 6.5), with no positions, post-norm and no dropout as there. Deviates: that code
        cuts its input to the last 40 frames, which shifts what older layers have seen and needs all of
        it recomputed at every frame; GELU in the transformer; each branch is one hidden layer after
        ``inner`` as in the keypoint encoder, where the code stacks blocks whose number is not published;
        the small start. ``merge="concat"`` with ``audio_free_branch`` is the code's variant of
        equation 10: a further branch without sound, and a linear map of all masked velocities.
    """

    def __init__(
        self,
        layers: int = 4,
        heads: int = 8,
        width: int = 512,
        feedforward: int = 1024,
        hidden: int = 64,
        inner: int = 272,
        branches: int = 4,
        merge: Merge = "sum",
        audio_free_branch: bool = False,
        interpolation: Interpolation = "time",
        context: int = 40,
        dropout: float = 0.0,
    ) -> None:
        """Build the network.

        Args:
            layers: Transformer layers.
            heads: Attention heads.
            width: Width of embedded keypoints, of the transformer and of the sound's vectors.
            feedforward: Hidden width of the transformer's feed-forward layers.
            hidden: Width of ``h_t``.
            inner: First width of the keypoint encoder and of every branch; the second is four times it.
            branches: Levels of sound to use, 1 to 4, the finest first.
            merge: See :data:`Merge`.
            audio_free_branch: A further, last branch that hears nothing.
            interpolation: See :data:`talkhead.networks.audio_pyramid.Interpolation`.
            context: Frames that a frame attends to, itself among them.
            dropout: Dropout probability in the transformer, also of attention weights.

        Raises:
            ConfigError: A width that does not divide, no context, or an unknown name.
        """
        super().__init__()
        if width % heads or context < 1:
            raise ConfigError(
                f"expected a width divisible by {heads} heads and a context of at least 1 frame, got "
                f"{width} and {context}; change either."
            )
        self.context = context
        self.audio = AudioPyramid(width, branches, interpolation)
        self.embed = keypoint_encoder(inner, width)
        self.blocks = nn.ModuleList(
            PostNormBlock(width, heads, feedforward, dropout) for _ in range(layers)
        )
        self.summary = nn.Linear(width, hidden)
        self.branches = Branches(hidden + width, width, branches, audio_free_branch, inner, merge)

    # -- training --------------------------------------------------------------------------------

    def forward(self, observed: Tensor, audio: Tensor) -> Tensor:
        """:meth:`roll_out` over the :meth:`audio_features` of ``audio (B, 4 T, 26)``."""
        return self.roll_out(observed, self.audio_features(audio))

    def audio_features(self, audio: Tensor) -> Tensor:
        """Vectors of every frame on every level; needed once, not once a frame.

        Args:
            audio: Log filter-bank energies ``(B, 4 T, 26)``.

        Returns:
            ``(B, L, T, D)``, the finest level first.

        Raises:
            ShapeError: Another shape.
        """
        features: Tensor = self.audio(audio)
        return features

    def roll_out(self, observed: Tensor, features: Tensor) -> Tensor:
        """Keypoints of ``T`` frames, differentiable in everything.

        Row 0 is the first observed frame, rows ``1 .. O - 1`` predict an observed frame from those
        before it (teacher forcing), rows ``O ..`` go on from the last observed frame by themselves. Row
        ``t`` hears frame ``t``.

        Args:
            observed: First frames ``(B, O, 60)``, ``1 <= O <= T``.
            features: From :meth:`audio_features`, ``(B, L, T, D)`` with ``T >= 2``.

        Returns:
            ``(B, T, 60)``.

        Raises:
            ShapeError: Shapes that do not belong together.
        """
        self._check(observed, features)
        frames = features.shape[2]
        heard = self.branches.heard(features)
        fed, rows, past = observed[:, : frames - 1], [observed[:, :1]], None
        start = 1
        while start < frames:
            stop = start + fed.shape[1]
            velocity, _, past = self._velocity(fed, heard[:, start:stop], past)
            rows.append(fed + velocity)
            fed, start = rows[-1][:, -1:], stop
        return torch.cat(rows, 1)

    def masks(self, keypoints: Tensor, features: Tensor) -> Tensor:
        """Share of every branch in the velocity of every keypoint along a given run.

        Args:
            keypoints: The run ``(B, T, 60)``, ``T >= 2``.
            features: From :meth:`audio_features`, ``(B, L, T, D)``.

        Returns:
            ``(B, T - 1, L, K)``, entry ``t`` for the step from frame ``t`` to ``t + 1``; sums to one
            over branches, the finest level first, the one without sound last.

        Raises:
            ShapeError: Shapes that do not belong together.
        """
        self._check(keypoints, features)
        if keypoints.shape[1] != features.shape[2]:
            raise ShapeError(
                f"expected keypoints of all {features.shape[2]} frames of sound, got "
                f"{keypoints.shape[1]}; roll them out first."
            )
        heard = self.branches.heard(features)
        _, masks, _ = self._velocity(keypoints[:, :-1], heard[:, 1:], None)
        return masks

    # -- generation ------------------------------------------------------------------------------

    def stream(self, first: Tensor, audio: Iterable[Tensor]) -> Iterator[Tensor]:
        """Keypoints for speech of any length in constant memory, frame by frame, without gradients.

        The same as ``roll_out`` from the first frame three times over, with two frames of mirrored
        sound in front, without its first two rows. In training mode dropout stays on: call ``eval()``.

        Args:
            first: Keypoints to start from, ``(B, 60)``.
            audio: Consecutive blocks ``(B, 4 n, 26)`` of log filter-bank energies, of any length; one
                tensor in a list will do. The first must hold the two frames to be mirrored.

        Returns:
            An iterator over rows ``(B, 60)``, one a frame of sound.

        Raises:
            ConfigError: Stretched interpolation, which needs the length of the whole.
            ShapeError: Other shapes, when the block is reached.

        Source: reference-facts 6.5 (three times the first frame, 8 mirrored steps, warm-up dropped).
        """
        if first.ndim != 2 or first.shape[1] != ROW_DIM:
            raise ShapeError(
                f"expected first keypoints (B, {ROW_DIM}), got {tuple(first.shape)}; pass one packed row "
                "a sequence."
            )
        return self._stream(first, self.audio.by_blocks(_warmed_up(audio)))

    @torch.no_grad()
    def _stream(self, first: Tensor, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Rows from blocks of features ``(B, L, n, D)`` that begin with the warm-up."""
        row, past, frame = first[:, None], None, 0
        for features in blocks:
            self._check(first[:, None], features, shortest=1)
            for heard in self.branches.heard(features).split(1, 1):
                if frame > 0:
                    fed = first[:, None] if frame <= WARM_UP_FRAMES + 1 else row
                    velocity, _, past = self._velocity(fed, heard, past)
                    row = fed + velocity
                if frame >= WARM_UP_FRAMES:
                    yield row[:, 0]
                frame += 1

    # -- private ---------------------------------------------------------------------------------

    def _velocity(
        self, keypoints: Tensor, heard: Tensor, past: list[Past] | None
    ) -> tuple[Tensor, Tensor, list[Past]]:
        """Velocities ``(B, t, 60)``, masks ``(B, t, L, K)`` and the new past of every layer."""
        embedded = self.embed(keypoints)
        x, kept = embedded, []
        for i, block in enumerate(self.blocks):
            assert isinstance(block, PostNormBlock)  # a ModuleList does not say what it holds
            x, layer = block.continued(x, past[i] if past else None, self.context)
            kept.append(layer)
        seen = torch.cat([self.summary(x), embedded], -1)
        velocity, masks = self.branches(seen, heard)
        return velocity, masks, kept

    def _check(self, keypoints: Tensor, features: Tensor, shortest: int = 2) -> None:
        levels, dim = self.branches.sound.shape[:2]
        if (
            keypoints.ndim != 3
            or keypoints.shape[2] != ROW_DIM
            or features.ndim != 4
            or (len(features), features.shape[1], features.shape[3])
            != (len(keypoints), levels, dim)
            or not shortest <= features.shape[2]
            or not 1 <= keypoints.shape[1] <= max(shortest, features.shape[2])
        ):
            raise ShapeError(
                f"expected keypoints (B, O, {ROW_DIM}) with features (B, {levels}, T, {dim}) of at least "
                f"{shortest} frames and 1 <= O <= T, got {tuple(keypoints.shape)} and "
                f"{tuple(features.shape)}; take the features from audio_features."
            )


class Branches(nn.Module):
    """All branches at once, and their merging.

    The first layer of a branch is applied to its parts separately: the sound's for a whole run
    (:meth:`heard`), that of ``(h, e)`` once a frame for all branches.
    """

    def __init__(
        self,
        seen_dim: int,
        audio_dim: int,
        levels: int,
        audio_free: bool,
        inner: int,
        merge: Merge,
    ) -> None:
        """Build the branches; arguments as those of :class:`MotionGenerator`.

        Raises:
            ConfigError: An unknown merge.
        """
        super().__init__()
        if merge not in get_args(Merge):
            raise ConfigError(f"expected merge out of {', '.join(get_args(Merge))}, got {merge!r}.")
        self.count, self.inner = levels + audio_free, inner
        self.seen = nn.Linear(seen_dim, self.count * inner)
        self.sound = nn.Parameter(torch.empty(levels, audio_dim, inner))
        bound = (seen_dim + audio_dim) ** -0.5
        nn.init.uniform_(self.sound, -bound, bound)
        self.norm = nn.GroupNorm(self.count, self.count * inner)
        self.widen = _BranchLinear(self.count, inner, 4 * inner)
        self.narrow = _BranchLinear(self.count, 4 * inner, ROW_DIM + N_KEYPOINTS)
        self.merge = nn.Linear(self.count * ROW_DIM, ROW_DIM) if merge == "concat" else None
        last = self.narrow if self.merge is None else self.merge
        with torch.no_grad():
            last.weight.mul_(START_SHARE)
            last.bias.zero_()

    def heard(self, features: Tensor) -> Tensor:
        """``(B, L, T, D)`` to the sound's part of every branch's first layer, ``(B, T, G, inner)``."""
        parts = torch.einsum("bltd,ldi->btli", features, self.sound)
        return F.pad(parts, (0, 0, 0, self.count - parts.shape[2]))

    def forward(self, seen: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, t, S)`` and ``(B, t, G, inner)`` to velocities ``(B, t, 60)``, masks ``(B, t, G, K)``."""
        rows, frames = seen.shape[:2]
        mixed = (self.seen(seen) + heard.flatten(2)).flatten(0, 1)
        x = self.norm(mixed).view(-1, self.count, self.inner).transpose(0, 1)
        out = self.narrow(F.gelu(self.widen(x))).transpose(0, 1)
        velocities, logits = out.split([ROW_DIM, N_KEYPOINTS], -1)
        masks = logits.softmax(1)
        moved = velocities.unflatten(-1, (N_KEYPOINTS, KEYPOINT_DIM)) * masks[..., None]
        merged = moved.sum(1).flatten(1) if self.merge is None else self.merge(moved.flatten(1))
        return merged.unflatten(0, (rows, frames)), masks.unflatten(0, (rows, frames))


class _BranchLinear(nn.Module):
    """One linear layer a branch, ``(G, n, inputs)`` to ``(G, n, outputs)``."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def _warmed_up(audio: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same blocks, the first of them behind its own first frames backwards."""
    steps = STEPS_PER_FRAME * WARM_UP_FRAMES
    for i, block in enumerate(audio):
        if i > 0:
            yield block
            continue
        check_energies(block)
        if block.shape[1] < steps:
            raise ShapeError(
                f"expected a first block of at least {WARM_UP_FRAMES} frames of sound, got "
                f"{block.shape[1] // STEPS_PER_FRAME}; pass longer blocks."
            )
        yield torch.cat([block[:, :steps].flip(1), block], 1)
