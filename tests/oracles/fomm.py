"""First Order Motion Model, slow and by the names of its published file, on plain dictionaries of tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """Sizes of both networks; the defaults are those of vox-adv-256."""

    keypoints: int = 10
    width: int = 32
    max_width: int = 1024
    blocks: int = 5
    paint_width: int = 64
    paint_max_width: int = 512
    downs: int = 2
    residuals: int = 6
    motion_width: int = 64
    motion_max_width: int = 1024
    motion_blocks: int = 5
    step: int = 4


Shapes = dict[str, tuple[int, ...]]


def _conv(name: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def _norm(name: str, channels: int) -> Shapes:
    each = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in each} | {f"{name}.num_batches_tracked": ()}


def _block(name: str, inputs: int, outputs: int, kernel: int = 3) -> Shapes:
    return _conv(f"{name}.conv", inputs, outputs, kernel) | _norm(f"{name}.norm", outputs)


def _hourglass(name: str, inputs: int, width: int, most: int, blocks: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(blocks):
        before = inputs if i == 0 else min(most, width * 2**i)
        shapes |= _block(f"{name}.encoder.down_blocks.{i}", before, min(most, width * 2 ** (i + 1)))
    for place, i in enumerate(range(blocks - 1, -1, -1)):
        before = min(most, width * 2 ** (i + 1)) * (1 if i == blocks - 1 else 2)
        shapes |= _block(f"{name}.decoder.up_blocks.{place}", before, min(most, width * 2**i))
    return shapes


def _filter(name: str, step: int) -> Shapes:
    side = 2 * round(4 * (step - 1) / 2) + 1
    return {f"{name}.weight": (3, 1, side, side)} if step > 1 else {}


def detector_shapes(s: Sizes) -> Shapes:
    """Names and shapes of the part ``kp_detector``."""
    return (
        _hourglass("predictor", 3, s.width, s.max_width, s.blocks)
        | _conv("kp", s.width + 3, s.keypoints, 7)
        | _conv("jacobian", s.width + 3, 4 * s.keypoints, 7)
        | _filter("down", s.step)
    )


def generator_shapes(s: Sizes) -> Shapes:
    """Names and shapes of the part ``generator``."""
    inputs, parts = 4 * (s.keypoints + 1), "dense_motion_network"
    shapes = _hourglass(
        f"{parts}.hourglass", inputs, s.motion_width, s.motion_max_width, s.motion_blocks
    )
    shapes |= _conv(f"{parts}.mask", s.motion_width + inputs, s.keypoints + 1, 7)
    shapes |= _conv(f"{parts}.occlusion", s.motion_width + inputs, 1, 7)
    shapes |= _filter(f"{parts}.down", s.step) | _block("first", 3, s.paint_width, 7)
    widths = [min(s.paint_max_width, s.paint_width * 2**i) for i in range(s.downs + 1)]
    for i in range(s.downs):
        shapes |= _block(f"down_blocks.{i}", widths[i], widths[i + 1])
        shapes |= _block(f"up_blocks.{i}", widths[s.downs - i], widths[s.downs - i - 1])
    for i in range(s.residuals):
        for part in ("1", "2"):
            shapes |= _norm(f"bottleneck.r{i}.norm{part}", widths[-1])
            shapes |= _conv(f"bottleneck.r{i}.conv{part}", widths[-1], widths[-1], 3)
    return shapes | _conv("final", s.paint_width, 3, 7)


def filter_weights(step: int) -> Tensor:
    """Gaussian of the downsampling, one tap after the other."""
    deviation = (step - 1) / 2
    reach = round(4 * deviation)
    taps = torch.zeros(2 * reach + 1, 2 * reach + 1)
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            taps[y + reach, x + reach] = math.exp(-(x * x + y * y) / (2 * deviation**2))
    return taps / taps.sum()


def random_state(shapes: Shapes, step: int) -> dict[str, Tensor]:
    """Weights with sensible norms, so that every layer matters."""
    state = {}
    for name, shape in shapes.items():
        if "down.weight" in name:
            state[name] = filter_weights(step).expand(shape).contiguous()
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
        elif name.endswith("running_var") or ("norm" in name and name.endswith(".weight")):
            state[name] = 0.5 + torch.rand(shape)
        else:
            state[name] = torch.randn(shape) / math.sqrt(max(1, math.prod(shape[1:])))
    return state


State = dict[str, Tensor]


def _apply_conv(state: State, name: str, x: Tensor, padding: int) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)


def _apply_norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def _apply_block(state: State, name: str, x: Tensor, padding: int = 1) -> Tensor:
    return _apply_norm(state, f"{name}.norm", _apply_conv(state, f"{name}.conv", x, padding)).relu()


def _doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def _halved(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def hourglass(state: State, name: str, x: Tensor, blocks: int) -> Tensor:
    """Maps after all halvings and doublings."""
    sizes = [x]
    for i in range(blocks):
        sizes.append(_halved(_apply_block(state, f"{name}.encoder.down_blocks.{i}", sizes[-1])))
    x = sizes[-1]
    for i in range(blocks):
        x = _apply_block(state, f"{name}.decoder.up_blocks.{i}", _doubled(x))
        x = torch.cat([x, sizes[blocks - 1 - i]], dim=1)
    return x


def downsampled(pictures: Tensor, step: int) -> Tensor:
    """Every pixel blurred, and then every ``step``-th picked."""
    if step == 1:
        return pictures
    taps = filter_weights(step)
    reach = taps.shape[0] // 2
    padded = F.pad(pictures, [reach] * 4)
    rows, columns = range(0, pictures.shape[2], step), range(0, pictures.shape[3], step)
    out = pictures.new_zeros(*pictures.shape[:2], len(rows), len(columns))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            cut = padded[:, :, y : y + 2 * reach + 1, x : x + 2 * reach + 1]
            out[:, :, i, j] = (cut * taps).sum(dim=(-2, -1))
    return out


def place(index: int, count: int) -> float:
    """Coordinate of a pixel when -1 and 1 are the centres of the outermost ones."""
    return 2 * index / (count - 1) - 1


def detect(state: State, pictures: Tensor, s: Sizes, temperature: float) -> tuple[Tensor, Tensor]:
    """Points and Jacobians of pictures in [0, 1]."""
    maps = hourglass(state, "predictor", downsampled(pictures, s.step), s.blocks)
    logits, frames = _apply_conv(state, "kp", maps, 0), _apply_conv(state, "jacobian", maps, 0)
    n, count, height, width = logits.shape
    points, jacobians = torch.zeros(n, count, 2), torch.zeros(n, count, 2, 2)
    for i in range(n):
        for k in range(count):
            heat = torch.softmax(logits[i, k].flatten() / temperature, dim=0)
            for pixel, share in enumerate(heat.tolist()):
                y, x = divmod(pixel, width)
                points[i, k] += share * torch.tensor([place(x, width), place(y, height)])
                jacobians[i, k] += share * frames[i, 4 * k : 4 * k + 4, y, x].view(2, 2)
    return points, jacobians


def local_motions(
    source: tuple[Tensor, Tensor], driving: tuple[Tensor, Tensor], height: int, width: int
) -> Tensor:
    """``(n, K + 1, h, w, 2)`` by one matrix product a pixel, the inverse taken as it is."""
    n, count = driving[0].shape[:2]
    out = torch.zeros(n, count + 1, height, width, 2, dtype=driving[0].dtype)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                z = torch.tensor([place(x, width), place(y, height)], dtype=out.dtype)
                out[i, 0, y, x] = z
                for k in range(count):
                    affine = source[1][i, k] @ torch.linalg.inv(driving[1][i, k])
                    out[i, k + 1, y, x] = affine @ (z - driving[0][i, k]) + source[0][i, k]
    return out


def spots(points: Tensor, height: int, width: int, variance: float) -> Tensor:
    """Gaussian spots by a loop over pixels."""
    out = torch.zeros(*points.shape[:2], height, width)
    for y in range(height):
        for x in range(width):
            away = points - torch.tensor([place(x, width), place(y, height)])
            out[..., y, x] = torch.exp(-away.square().sum(-1) / (2 * variance))
    return out


def render(
    state: State,
    pictures: Tensor,
    source: tuple[Tensor, Tensor],
    driving: tuple[Tensor, Tensor],
    s: Sizes,
    *,
    variance: float,
    align_corners: bool,
) -> Tensor:
    """Pictures in [0, 1] of sources in [0, 1]; features and motion must have the same size."""
    x = _apply_block(state, "first", pictures, 3)
    for i in range(s.downs):
        x = _halved(_apply_block(state, f"down_blocks.{i}", x))
    small, net = downsampled(pictures, s.step), "dense_motion_network"
    height, width = small.shape[2:]
    motions = local_motions(source, driving, height, width)
    heat = spots(driving[0], height, width, variance) - spots(source[0], height, width, variance)
    evidence = []
    for k in range(s.keypoints + 1):
        evidence.append(torch.zeros_like(small[:, :1]) if k == 0 else heat[:, k - 1 : k])
        evidence.append(F.grid_sample(small, motions[:, k], align_corners=align_corners))
    maps = hourglass(state, f"{net}.hourglass", torch.cat(evidence, dim=1), s.motion_blocks)
    masks = torch.softmax(_apply_conv(state, f"{net}.mask", maps, 3), dim=1)
    flow = sum(masks[:, k, :, :, None] * motions[:, k] for k in range(s.keypoints + 1))
    assert isinstance(flow, Tensor)
    x = F.grid_sample(x, flow, align_corners=align_corners)
    x = x * torch.sigmoid(_apply_conv(state, f"{net}.occlusion", maps, 3))
    for i in range(s.residuals):
        name = f"bottleneck.r{i}"
        inner = _apply_conv(
            state, f"{name}.conv1", _apply_norm(state, f"{name}.norm1", x).relu(), 1
        )
        x = x + _apply_conv(
            state, f"{name}.conv2", _apply_norm(state, f"{name}.norm2", inner).relu(), 1
        )
    for i in range(s.downs):
        x = _apply_block(state, f"up_blocks.{i}", _doubled(x))
    return torch.sigmoid(_apply_conv(state, "final", x, 3))
