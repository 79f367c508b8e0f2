"""Batch normalisation whose statistics span all ranks, on any device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverRanks(torch.autograd.Function):
    """Sum a tensor over ranks; the gradient of every rank's loss flows back to every rank."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _batch_norm_over_ranks(
    norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, x: Tensor
) -> Tensor:
    axes = [d for d in range(x.ndim) if d != 1]
    values = x.to(torch.promote_types(x.dtype, torch.float32))  # half precision loses the sums
    count = values.new_tensor([float(x.numel() // x.shape[1])])
    moments = torch.cat([values.sum(axes), values.square().sum(axes), count])
    moments = _SumOverRanks.apply(moments)
    channels = x.shape[1]
    n = moments[-1]
    mean = moments[:channels] / n
    var = (moments[channels : 2 * channels] / n - mean.square()).clamp_min(0)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            rate = norm.momentum if norm.momentum is not None else 0.1
            norm.running_mean.lerp_(mean.to(norm.running_mean), rate)
            norm.running_var.lerp_((var * n / (n - 1)).to(norm.running_var), rate)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
    shape = [1, channels] + [1] * (x.ndim - 2)
    normed: Tensor = (values - mean.view(shape)) * torch.rsqrt(var.view(shape) + norm.eps)
    if norm.affine:
        normed = normed * norm.weight.view(shape) + norm.bias.view(shape)
    return normed.to(x.dtype)


class SharedBatchNorm1d(nn.BatchNorm1d):
    """:class:`torch.nn.BatchNorm1d` with statistics over all ranks while training."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(n, C)`` or ``(n, C, L)``."""
        return _batch_norm_over_ranks(self, x) if _across_ranks(self) else super().forward(x)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` with statistics over all ranks while training."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(n, C, H, W)``."""
        return _batch_norm_over_ranks(self, x) if _across_ranks(self) else super().forward(x)


class SharedBatchNorm3d(nn.BatchNorm3d):
    """:class:`torch.nn.BatchNorm3d` with statistics over all ranks while training."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(n, C, T, H, W)``."""
        return _batch_norm_over_ranks(self, x) if _across_ranks(self) else super().forward(x)


def share_batch_norm(module: nn.Module) -> None:
    """Turn every batch norm of a module into its shared kind, in place; weights and names stay.

    ``torch.nn.SyncBatchNorm`` does the same on CUDA only; this one also serves CPU ranks, so that the
    claim "two ranks compute what one computes" can be tested without a GPU.
    """
    for part in module.modules():
        if type(part) is nn.BatchNorm1d:
            part.__class__ = SharedBatchNorm1d
        elif type(part) is nn.BatchNorm2d:
            part.__class__ = SharedBatchNorm2d
        elif type(part) is nn.BatchNorm3d:
            part.__class__ = SharedBatchNorm3d


def _across_ranks(norm: nn.Module) -> bool:
    return (
        norm.training
        and dist.is_available()
        and dist.is_initialized()
        and dist.get_world_size() > 1
    )
