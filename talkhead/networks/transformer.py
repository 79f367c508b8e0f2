"""The transformer layer of the motion priors, with a key/value cache, and time features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Past = tuple[Tensor, Tensor]
"""Keys and values of the last frames, each ``(B, heads, n, width / heads)``."""


class PostNormBlock(nn.Module):
    """Self-attention and feed-forward layer, each ``norm(x + dropout(f(x)))``.

    The same function as ``torch.nn.TransformerEncoderLayer(norm_first=False, activation="gelu")``,
    with a key/value cache for causal roll-outs: one written in place (:meth:`extend`), and one that
    gradients flow through (:meth:`continued`).
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        """Build the layer; width of the tokens, heads, hidden width and dropout."""
        super().__init__()
        self.heads, self.attention_dropout = heads, dropout
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward, width),
        )
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.attention_in.weight)
        nn.init.zeros_(self.attention_in.bias)
        nn.init.zeros_(self.attention_out.bias)

    def forward(self, x: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
        """One layer over ``(B, T, width)``; ``mask`` as in ``scaled_dot_product_attention``."""
        query, key, value = self._split(x)
        drop = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=drop, is_causal=causal
        )
        return self._finish(x, mixed)

    def extend(self, x: Tensor, keys: Tensor, values: Tensor, start: int) -> Tensor:
        """New frames ``(B, t, width)`` at ``start``; keys and values are written in place."""
        query, key, value = self._split(x)
        stop = start + x.shape[1]
        keys[:, :, start:stop], values[:, :, start:stop] = key, value
        mixed = F.scaled_dot_product_attention(
            query,
            keys[:, :, :stop].to(query.dtype),
            values[:, :, :stop].to(query.dtype),
            is_causal=start == 0 and stop > 1,
        )
        return self._finish(x, mixed)

    def continued(self, x: Tensor, past: Past | None, context: int) -> tuple[Tensor, Past]:
        """New frames after those of ``past``, each attending to the last ``context`` frames.

        Nothing is written in place, so gradients reach every frame that keys and values came from.

        Args:
            x: New frames ``(B, t, width)``.
            past: What the call before returned, None at the start.
            context: Frames that a frame attends to, itself among them.

        Returns:
            The frames ``(B, t, width)``, and keys and values of the last ``context - 1`` frames.
        """
        query, key, value = self._split(x)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        fresh, known = x.shape[1], key.shape[2]
        # A single new frame may see all that was kept.
        mask = _band(fresh, known, context, x.device) if fresh > 1 else None
        drop = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=drop)
        first = max(0, known - context + 1)
        return self._finish(x, mixed), (key[:, :, first:], value[:, :, first:])

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each ``(B, heads, T, width / heads)``."""
        rows, frames, width = x.shape
        parts = self.attention_in(x).view(rows, frames, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        return query, key, value

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Output projection, residuals and feed-forward."""
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        x = self.attention_norm(x + self.dropout(self.attention_out(mixed)))
        out: Tensor = self.feedforward_norm(x + self.dropout(self.feedforward(x)))
        return out


def _band(fresh: int, known: int, context: int, device: torch.device) -> Tensor:
    """``(fresh, known)``, True where one of the last ``fresh`` of ``known`` frames may look."""
    query = torch.arange(known - fresh, known, device=device)[:, None]
    key = torch.arange(known, device=device)
    return (key <= query) & (key > query - context)


def sinusoids(step: Tensor, dim: int) -> Tensor:
    """Sine and cosine features of diffusion steps ``(B,)``, ``(B, dim)`` float32; base 10 000."""
    rates = torch.arange(0, dim, 2, device=step.device, dtype=torch.float32)
    angles = step.float()[:, None] * torch.exp(rates * (-math.log(10_000.0) / dim))
    return torch.cat([angles.sin(), angles.cos()], -1)
