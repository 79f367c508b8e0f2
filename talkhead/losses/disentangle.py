"""Orthogonal loss between visual and audio codes, measured over several batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.losses.contrastive import gather_with_grad

_VARIANCE_SHARE = 1e-8
_ROUNDING_SHARE = 1e-12


def pearson_matrix(visual: Tensor, audio: Tensor) -> Tensor:
    """Correlation of every visual with every audio dimension over the rows.

    Computed in at least float32. A dimension that never changes (a dead ReLU) has correlation 0: a
    small share of the mean variance is added to every variance. It is a share, so that shrinking
    all codes does not lower the correlation, and a loss on it cannot be evaded that way.

    Args:
        visual: ``(n, d_v)``.
        audio: ``(n, d_a)``, the same rows.

    Returns:
        ``(d_v, d_a)`` in [-1, 1]; all 0 for a single row.

    Raises:
        ShapeError: Not two matrices with as many rows.

    Source: paper 1 eq. 3, with the index order of the equation (the text prints the transpose).
    """
    if visual.ndim != 2 or audio.ndim != 2 or len(visual) != len(audio) or len(visual) == 0:
        raise ShapeError(
            f"expected codes (n, d_v) and (n, d_a) of the same rows, got {tuple(visual.shape)} and "
            f"{tuple(audio.shape)}."
        )
    with torch.autocast(visual.device.type, enabled=False):
        return _standard(visual).T @ _standard(audio) / len(visual)


def orthogonal_loss(visual: Tensor, audio: Tensor) -> Tensor:
    r"""``1/d_v sum_ij P_ij^2`` with the Pearson matrix ``P``.

    Independent codes do not reach 0: with ``n`` rows chance is about ``d_a / (n - 1)``, 34 for 16
    rows of 512 dimensions and 1 for 512 rows, which is why the rows come from a
    :class:`MemoryBank`.

    Args:
        visual: ``f_ol``, ``(n, d_v)``.
        audio: ``f_a``, ``(n, d_a)``.

    Returns:
        Scalar in ``[0, d_a]``.

    Raises:
        ShapeError: Not two matrices with as many rows.

    Source: paper 1 eq. 3.
    """
    return pearson_matrix(visual, audio).square().sum() / visual.shape[1]


class MemoryBank(nn.Module):
    """The visual and audio codes of the last ``steps - 1`` batches, in front of the current one.

    Old rows and all audio rows are constants; only the current visual rows carry gradient. In eval
    mode the stored rows are used but nothing is stored. The rows are part of the state dict, so a
    resumed run goes on with the same loss.

    They are kept outside the module's buffers, which DDP would overwrite with rank 0's before every
    step. A checkpoint of a distributed run holds rank 0's rows, and every rank resumes with them;
    they are replaced within ``steps`` batches.

    Source: paper 1 section 3.1 and supplement I.3 (32 steps of 16 rows). The paper does not say
        what ranks share; here each has its own bank unless ``gather`` is set.
    """

    def __init__(self, steps: int = 32, gather: bool = False) -> None:
        """Start empty.

        Args:
            steps: Batches ``K`` that the loss sees, the current one included; 1 keeps no memory.
            gather: Use the rows of all ranks, with gradients, instead of one bank per rank.

        Raises:
            ConfigError: Fewer than one step.
        """
        super().__init__()
        if steps < 1:
            raise ConfigError(f"steps: expected at least 1 (the current batch), got {steps}.")
        self.steps, self.gather = steps, gather
        self._visual: list[Tensor] = []
        self._audio: list[Tensor] = []

    @property
    def rows(self) -> int:
        """Number of stored rows."""
        return sum(len(x) for x in self._visual)

    def forward(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Stored rows followed by the current ones; stores the current ones while training.

        Args:
            visual: ``(n, d_v)``.
            audio: ``(n, d_a)``.

        Returns:
            ``(m, d_v)`` and ``(m, d_a)`` with ``m`` up to ``steps * n``.

        Raises:
            ShapeError: The two differ in rows, or in width from the stored rows.
        """
        self._check(visual, audio)
        audio = audio.detach()
        if self.gather:
            visual, audio = gather_with_grad(visual), gather_with_grad(audio)
        out = (
            torch.cat([*(x.to(visual) for x in self._visual), visual]),
            torch.cat([*(x.to(audio) for x in self._audio), audio]),
        )
        if self.training and self.steps > 1:
            self._visual = [*self._visual, visual.detach().clone()][-(self.steps - 1) :]
            self._audio = [*self._audio, audio.clone()][-(self.steps - 1) :]
        return out

    def get_extra_state(self) -> dict[str, Any]:
        """Stored batches, for the state dict."""
        return {"visual": list(self._visual), "audio": list(self._audio)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take stored batches back, the newest ``steps - 1`` of them."""
        keep = self.steps - 1
        self._visual = list(state["visual"])[-keep:] if keep else []
        self._audio = list(state["audio"])[-keep:] if keep else []

    def _check(self, visual: Tensor, audio: Tensor) -> None:
        old = (self._visual[-1].shape[1:], self._audio[-1].shape[1:]) if self._visual else None
        if len(visual) != len(audio) or old not in (None, (visual.shape[1:], audio.shape[1:])):
            raise ShapeError(
                f"expected codes (n, d_v) and (n, d_a) as stored before ({old}), got "
                f"{tuple(visual.shape)} and {tuple(audio.shape)}; use one bank per pair of codes."
            )


def _standard(codes: Tensor) -> Tensor:
    """Columns with zero mean and unit variance."""
    codes = codes.to(torch.promote_types(codes.dtype, torch.float32))
    centred = codes - codes.mean(0)
    variance = centred.square().mean(0)
    with torch.no_grad():
        # The second term is the rounding error of constant columns, the last keeps 0 / 0 away, in the
        # gradient, too, which holds its power of -3/2.
        eps = _VARIANCE_SHARE * variance.mean() + _ROUNDING_SHARE * codes.square().mean() + 1e-24
    return centred * torch.rsqrt(variance + eps)
