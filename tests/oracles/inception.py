"""FID's Inception v3 written out layer by layer on a state dict, after the tables of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Step = tuple[str, tuple[int, int]]
"""Name of a convolution and its padding."""


def unit(
    x: Tensor, w: State, name: str, stride: int = 1, padding: tuple[int, int] = (0, 0)
) -> Tensor:
    """Convolution, batch norm of evaluation with epsilon 0.001, ReLU."""
    y = F.conv2d(x, w[f"{name}.conv.weight"], None, stride, padding)
    mean, var = (w[f"{name}.bn.running_{k}"][:, None, None] for k in ("mean", "var"))
    gain, bias = (w[f"{name}.bn.{k}"][:, None, None] for k in ("weight", "bias"))
    out: Tensor = ((y - mean) / (var + 1e-3).sqrt() * gain + bias).clamp_min(0)
    return out


def path(x: Tensor, w: State, block: str, steps: Sequence[Step]) -> Tensor:
    for name, padding in steps:
        x = unit(x, w, f"{block}.{name}", padding=padding)
    return x


def neighbours_mean(x: Tensor) -> Tensor:
    """Mean over the 3 x 3 neighbours that lie inside, by counting them."""
    ones = x.new_ones(1, 1, *x.shape[-2:])
    kernel = x.new_ones(1, 1, 3, 3)
    total = F.conv2d(x.flatten(0, 1)[:, None], kernel, padding=1).view_as(x)
    mean: Tensor = total / F.conv2d(ones, kernel, padding=1)
    return mean


def neighbours_max(x: Tensor) -> Tensor:
    edged = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
    height, width = x.shape[-2:]
    shifted = [edged[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.stack(shifted).amax(0)


NONE, ONE, TWO, ROW, COLUMN = (0, 0), (1, 1), (2, 2), (0, 3), (3, 0)


def block_a(x: Tensor, w: State, b: str) -> Tensor:
    parts = [
        path(x, w, b, [("branch1x1", NONE)]),
        path(x, w, b, [("branch5x5_1", NONE), ("branch5x5_2", TWO)]),
        path(x, w, b, [("branch3x3dbl_1", NONE), ("branch3x3dbl_2", ONE), ("branch3x3dbl_3", ONE)]),
        path(neighbours_mean(x), w, b, [("branch_pool", NONE)]),
    ]
    return torch.cat(parts, 1)


def block_b(x: Tensor, w: State, b: str) -> Tensor:
    deep = path(x, w, b, [("branch3x3dbl_1", NONE), ("branch3x3dbl_2", ONE)])
    parts = [
        unit(x, w, f"{b}.branch3x3", 2),
        unit(deep, w, f"{b}.branch3x3dbl_3", 2),
        F.max_pool2d(x, 3, 2),
    ]
    return torch.cat(parts, 1)


def block_c(x: Tensor, w: State, b: str) -> Tensor:
    double = [f"branch7x7dbl_{i}" for i in range(1, 6)]
    parts = [
        path(x, w, b, [("branch1x1", NONE)]),
        path(x, w, b, [("branch7x7_1", NONE), ("branch7x7_2", ROW), ("branch7x7_3", COLUMN)]),
        path(x, w, b, list(zip(double, [NONE, COLUMN, ROW, COLUMN, ROW], strict=True))),
        path(neighbours_mean(x), w, b, [("branch_pool", NONE)]),
    ]
    return torch.cat(parts, 1)


def block_d(x: Tensor, w: State, b: str) -> Tensor:
    first = path(x, w, b, [("branch3x3_1", NONE)])
    second = path(
        x, w, b, [("branch7x7x3_1", NONE), ("branch7x7x3_2", ROW), ("branch7x7x3_3", COLUMN)]
    )
    parts = [
        unit(first, w, f"{b}.branch3x3_2", 2),
        unit(second, w, f"{b}.branch7x7x3_4", 2),
        F.max_pool2d(x, 3, 2),
    ]
    return torch.cat(parts, 1)


def block_e(x: Tensor, w: State, b: str, pooled: Tensor) -> Tensor:
    first = path(x, w, b, [("branch3x3_1", NONE)])
    second = path(x, w, b, [("branch3x3dbl_1", NONE), ("branch3x3dbl_2", ONE)])
    parts = [
        path(x, w, b, [("branch1x1", NONE)]),
        path(first, w, b, [("branch3x3_2a", (0, 1))]),
        path(first, w, b, [("branch3x3_2b", (1, 0))]),
        path(second, w, b, [("branch3x3dbl_3a", (0, 1))]),
        path(second, w, b, [("branch3x3dbl_3b", (1, 0))]),
        path(pooled, w, b, [("branch_pool", NONE)]),
    ]
    return torch.cat(parts, 1)


def inception_features(pictures: Tensor, w: State) -> Tensor:
    """Pooled features ``(n, 2048)`` of pictures ``(n, 3, 299, 299)`` in [0, 1]."""
    x = unit(2 * pictures - 1, w, "Conv2d_1a_3x3", 2)
    x = unit(x, w, "Conv2d_2a_3x3")
    x = F.max_pool2d(unit(x, w, "Conv2d_2b_3x3", padding=ONE), 3, 2)
    x = unit(x, w, "Conv2d_3b_1x1")
    x = F.max_pool2d(unit(x, w, "Conv2d_4a_3x3"), 3, 2)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = block_a(x, w, name)
    x = block_b(x, w, "Mixed_6a")
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = block_c(x, w, name)
    x = block_d(x, w, "Mixed_7a")
    x = block_e(x, w, "Mixed_7b", neighbours_mean(x))
    x = block_e(x, w, "Mixed_7c", neighbours_max(x))
    return x.flatten(2).sum(-1) / (x.shape[-2] * x.shape[-1])
