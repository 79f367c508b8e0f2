"""face-vid2vid with a SPADE decoder, slow and by the names of its published file, on plain tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.oracles import fomm

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the three parts; the defaults are those of vox-256-beta."""

    keypoints: int = 15
    width: int = 32
    max_width: int = 1024
    blocks: int = 5
    step: int = 4
    depth: int = 16
    head_width: int = 64
    head_widths: tuple[int, ...] = (256, 512, 1024, 2048)
    head_blocks: tuple[int, ...] = (3, 3, 5, 2)
    paint_width: int = 64
    paint_max_width: int = 512
    downs: int = 2
    channels: int = 32
    residuals: int = 6
    compress: int = 4
    motion_width: int = 32
    motion_max_width: int = 1024
    motion_blocks: int = 5
    middle: int = 6
    guide: int = 128


HEADS = {"fc_roll": 66, "fc_pitch": 66, "fc_yaw": 66, "fc_t": 3}


def _conv(name: str, inputs: int, outputs: int, *kernel: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def _norm(name: str, channels: int) -> Shapes:
    each = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in each} | {f"{name}.num_batches_tracked": ()}


def _block(name: str, inputs: int, outputs: int, *kernel: int) -> Shapes:
    return _conv(f"{name}.conv", inputs, outputs, *kernel) | _norm(f"{name}.norm", outputs)


def _widths(width: int, most: int, levels: int) -> list[int]:
    return [min(most, width * 2**i) for i in range(levels + 1)]


def detector_shapes(s: Sizes) -> Shapes:
    """Names and shapes of the part ``kp_detector``."""
    w = _widths(s.width, s.max_width, s.blocks)
    shapes: Shapes = {}
    for i in range(s.blocks):
        before = 3 if i == 0 else w[i]
        shapes |= _block(f"predictor.down_blocks.down{i}", before, w[i + 1], 3, 3)
        shapes |= _block(
            f"predictor.up_blocks.up{i}", w[s.blocks - i], w[s.blocks - i - 1], 3, 3, 3
        )
    shapes |= _conv("predictor.conv", w[-1], w[-1] * s.depth, 1, 1)
    side = 2 * round(4 * (s.step - 1) / 2) + 1
    return shapes | _conv("kp", s.width, s.keypoints, 3, 3, 3) | {"down.weight": (3, 1, side, side)}


def _bottleneck(name: str, channels: int, halve: bool) -> Shapes:
    inner = channels // 4
    shapes = _conv(f"{name}.conv1", channels, inner, 1, 1) | _norm(f"{name}.norm1", inner)
    shapes |= _conv(f"{name}.conv2", inner, inner, 3, 3) | _norm(f"{name}.norm2", inner)
    shapes |= _conv(f"{name}.conv3", inner, channels, 1, 1) | _norm(f"{name}.norm3", channels)
    if halve:
        shapes |= _conv(f"{name}.skip", channels, channels, 1, 1) | _norm(f"{name}.norm4", channels)
    return shapes


def head_blocks(s: Sizes) -> list[list[tuple[str, bool]]]:
    """Names of the blocks of every stage, and whether they halve."""
    names = [[(f"block1.b1_{i}", False) for i in range(s.head_blocks[0])]]
    for stage, count in enumerate(s.head_blocks[1:]):
        kept = 2 * stage + 3
        names.append([(f"block{2 * stage + 2}", True)])
        names[-1] += [(f"block{kept}.b{kept}_{i}", False) for i in range(count)]
    return names


def estimator_shapes(s: Sizes) -> Shapes:
    """Names and shapes of the part ``he_estimator``."""
    shapes = _conv("conv1", 3, s.head_width, 7, 7) | _norm("norm1", s.head_width)
    before = s.head_width
    for stage, names in enumerate(head_blocks(s)):
        width = s.head_widths[stage]
        shapes |= _conv(f"conv{stage + 2}", before, width, 1, 1) | _norm(f"norm{stage + 2}", width)
        for name, halve in names:
            shapes |= _bottleneck(name, width, halve)
        before = width
    for name, outputs in {**HEADS, "fc_exp": 3 * s.keypoints}.items():
        shapes |= _conv(name, before, outputs)
    return shapes


def _spectral(name: str, inputs: int, outputs: int, kernel: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {
        f"{name}.weight_orig": (outputs, inputs, kernel, kernel),
        f"{name}.weight_u": (outputs,),
        f"{name}.weight_v": (inputs * kernel * kernel,),
    }
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def _spade_block(name: str, inputs: int, outputs: int, guide: int, hidden: int) -> Shapes:
    middle = min(inputs, outputs)
    shapes = _spectral(f"{name}.conv_0", inputs, middle, 3)
    shapes |= _spectral(f"{name}.conv_1", middle, outputs, 3)
    norms = {"norm_0": inputs, "norm_1": middle}
    if inputs != outputs:
        shapes |= _spectral(f"{name}.conv_s", inputs, outputs, 1, bias=False)
        norms["norm_s"] = inputs
    for norm, channels in norms.items():
        shapes |= _conv(f"{name}.{norm}.mlp_shared.0", guide, hidden, 3, 3)
        shapes |= _conv(f"{name}.{norm}.mlp_gamma", hidden, channels, 3, 3)
        shapes |= _conv(f"{name}.{norm}.mlp_beta", hidden, channels, 3, 3)
    return shapes


def generator_shapes(s: Sizes) -> Shapes:
    """Names and shapes of the part ``generator``; the decoder has two doublings, as the published one."""
    w = _widths(s.paint_width, s.paint_max_width, s.downs)
    shapes = _block("first", 3, s.paint_width, 3, 3)
    for i in range(s.downs):
        shapes |= _block(f"down_blocks.{i}", w[i], w[i + 1], 3, 3)
    flat = s.channels * s.depth
    shapes |= _conv("second", w[-1], flat, 1, 1)
    for i in range(s.residuals):
        for part in ("1", "2"):
            shapes |= _norm(f"resblocks_3d.3dr{i}.norm{part}", s.channels)
            shapes |= _conv(f"resblocks_3d.3dr{i}.conv{part}", s.channels, s.channels, 3, 3, 3)
    shapes |= _block("third", flat, w[-1], 3, 3) | _conv("fourth", w[-1], w[-1], 1, 1)
    net, parts = "dense_motion_network", s.keypoints + 1
    inputs = parts * (s.compress + 1)
    shapes |= _conv(f"{net}.compress", s.channels, s.compress, 1, 1, 1)
    shapes |= _norm(f"{net}.norm", s.compress)
    m = _widths(s.motion_width, s.motion_max_width, s.motion_blocks)
    for i in range(s.motion_blocks):
        before = inputs if i == 0 else m[i]
        shapes |= _block(f"{net}.hourglass.encoder.down_blocks.{i}", before, m[i + 1], 3, 3, 3)
    for place, i in enumerate(range(s.motion_blocks - 1, -1, -1)):
        before = m[i + 1] * (1 if i == s.motion_blocks - 1 else 2)
        shapes |= _block(f"{net}.hourglass.decoder.up_blocks.{place}", before, m[i], 3, 3, 3)
    out = s.motion_width + inputs
    shapes |= _block(f"{net}.hourglass.decoder", out, out, 3, 3, 3)
    shapes |= _conv(f"{net}.mask", out, parts, 7, 7, 7)
    shapes |= _conv(f"{net}.occlusion", out * s.depth, 1, 7, 7)
    guide = w[-1]
    shapes |= _conv("decoder.fc", guide, 2 * guide, 3, 3)
    for i in range(s.middle):
        shapes |= _spade_block(f"decoder.G_middle_{i}", 2 * guide, 2 * guide, guide, s.guide)
    shapes |= _spade_block("decoder.up_0", 2 * guide, guide, guide, s.guide)
    shapes |= _spade_block("decoder.up_1", guide, s.paint_width, guide, s.guide)
    return shapes | _conv("decoder.conv_img", s.paint_width, 3, 3, 3)


def random_state(shapes: Shapes, step: int) -> State:
    """Weights with sensible norms, so that every layer matters."""
    state = fomm.random_state(shapes, step)
    for name in shapes:
        if name.endswith((".weight_u", ".weight_v")):
            state[name] = F.normalize(torch.randn(shapes[name]), dim=0)
    return state


# -- networks ------------------------------------------------------------------------------------


Stride = int | tuple[int, int, int]


def _apply_conv(state: State, name: str, x: Tensor, padding: int = 0, stride: Stride = 1) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    if weight.ndim == 4:
        assert isinstance(stride, int)
        return F.conv2d(x, weight, bias, stride, padding)
    return F.conv3d(x, weight, bias, stride, padding)


def _apply_norm(state: State, name: str, x: Tensor) -> Tensor:
    shape = (-1, *(1 for _ in x.shape[2:]))
    mean, var, weight, bias = (
        state[f"{name}.{part}"].view(shape)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def _apply_block(state: State, name: str, x: Tensor, stride: Stride = 1) -> Tensor:
    return _apply_norm(
        state, f"{name}.norm", _apply_conv(state, f"{name}.conv", x, 1, stride)
    ).relu()


def _larger(x: Tensor) -> Tensor:
    """Slices doubled, linearly, one slice after the other."""
    each = [F.interpolate(x[:, :, i], scale_factor=2, mode="bilinear") for i in range(x.shape[2])]
    return torch.stack(each, dim=2)


def place(index: int, count: int) -> float:
    """Coordinate of a voxel when -1 and 1 are the centres of the outermost ones."""
    return 2 * index / (count - 1) - 1


def canonical(state: State, pictures: Tensor, s: Sizes, temperature: float) -> Tensor:
    """Canonical keypoints of pictures in [0, 1]."""
    x = fomm.downsampled(pictures, s.step)
    for i in range(s.blocks):
        x = F.avg_pool2d(_apply_block(state, f"predictor.down_blocks.down{i}", x), 2)
    x = _apply_conv(state, "predictor.conv", x)
    x = x.reshape(len(x), x.shape[1] // s.depth, s.depth, *x.shape[2:])
    for i in range(s.blocks):
        x = _apply_block(state, f"predictor.up_blocks.up{i}", _larger(x))
    logits = _apply_conv(state, "kp", x, 1)
    n, count, depth, height, width = logits.shape
    heat = torch.softmax(logits.flatten(2) / temperature, dim=2).view(logits.shape)
    points = torch.zeros(n, count, 3)
    for z in range(depth):
        for y in range(height):
            for x_ in range(width):
                at = torch.tensor([place(x_, width), place(y, height), place(z, depth)])
                points += heat[:, :, z, y, x_, None] * at
    return points


def head(state: State, pictures: Tensor, s: Sizes) -> dict[str, Tensor]:
    """What the published network returns for pictures in [0, 1]: yaw comes from ``fc_roll``."""
    x = _apply_norm(state, "norm1", _apply_conv(state, "conv1", pictures, 3, 2)).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, names in enumerate(head_blocks(s)):
        x = _apply_norm(state, f"norm{stage + 2}", _apply_conv(state, f"conv{stage + 2}", x)).relu()
        for name, halve in names:
            y = _apply_norm(state, f"{name}.norm1", _apply_conv(state, f"{name}.conv1", x)).relu()
            y = _apply_conv(state, f"{name}.conv2", y, 1, 2 if halve else 1)
            y = _apply_norm(state, f"{name}.norm2", y).relu()
            y = _apply_norm(state, f"{name}.norm3", _apply_conv(state, f"{name}.conv3", y))
            if halve:
                x = _apply_conv(state, f"{name}.skip", x, 0, 2)
                x = _apply_norm(state, f"{name}.norm4", x)
            x = (x + y).relu()
    x = x.mean(dim=(2, 3))
    read = {
        name: x @ state[f"{name}.weight"].T + state[f"{name}.bias"] for name in (*HEADS, "fc_exp")
    }
    return {
        "yaw": read["fc_roll"],
        "pitch": read["fc_pitch"],
        "roll": read["fc_yaw"],
        "t": read["fc_t"],
        "exp": read["fc_exp"].reshape(len(x), s.keypoints, 3),
    }


def rotation(yaw: float, pitch: float, roll: float) -> Tensor:
    """Three matrices multiplied, angles in degrees."""
    y, p, r = (math.radians(angle) for angle in (yaw, pitch, roll))
    about_x = [[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]]
    about_y = [[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]]
    about_z = [[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]]
    x, y_, z = (torch.tensor(m, dtype=torch.float64) for m in (about_x, about_y, about_z))
    return x @ y_ @ z


def keypoints(points: Tensor, motion: dict[str, Tensor]) -> Tensor:
    """Every point by itself: turned, shifted, deformed."""
    out = torch.zeros(len(points), points.shape[1], 3, dtype=torch.float64)
    for i in range(len(points)):
        angles = [
            sum(k * share for k, share in enumerate(torch.softmax(motion[name][i], 0).tolist())) * 3
            - 99
            for name in ("yaw", "pitch", "roll")
        ]
        matrix = rotation(*angles)
        for k in range(points.shape[1]):
            out[i, k] = matrix @ points[i, k].double() + motion["t"][i] + motion["exp"][i, k]
    return out.float()


def spots(points: Tensor, size: tuple[int, int, int], variance: float) -> Tensor:
    """Gaussian spots by a loop over voxels, at least as wide as half the way to the next voxel."""
    depth, height, width = size
    least = torch.tensor(
        [(place(1, count) - place(0, count)) / 2 for count in (width, height, depth)]
    )
    variances = torch.full((3,), variance).maximum(least.square())
    out = torch.zeros(*points.shape[:2], *size)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                at = torch.tensor([place(x, width), place(y, height), place(z, depth)])
                out[:, :, z, y, x] = torch.exp(-((points - at).square() / (2 * variances)).sum(-1))
    return out


def shifts(source: Tensor, driving: Tensor, size: tuple[int, int, int]) -> Tensor:
    """``(n, K + 1, D, h, w, 3)`` by a loop over voxels and points."""
    depth, height, width = size
    n, count = driving.shape[:2]
    out = torch.zeros(n, count + 1, *size, 3)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                at = torch.tensor([place(x, width), place(y, height), place(z, depth)])
                out[:, 0, z, y, x] = at
                for k in range(count):
                    out[:, k + 1, z, y, x] = at - driving[:, k] + source[:, k]
    return out


def _hourglass(state: State, name: str, x: Tensor, blocks: int) -> Tensor:
    sizes = [x]
    for i in range(blocks):
        sizes.append(_apply_block(state, f"{name}.encoder.down_blocks.{i}", sizes[-1], (1, 2, 2)))
    x = sizes[-1]
    for i in range(blocks):
        x = _apply_block(state, f"{name}.decoder.up_blocks.{i}", _larger(x))
        x = torch.cat([x, sizes[blocks - 1 - i]], dim=1)
    return _apply_block(state, f"{name}.decoder", x)


def _apply_spectral(state: State, name: str, x: Tensor, padding: int) -> Tensor:
    weight = state[f"{name}.weight_orig"]
    sigma = state[f"{name}.weight_u"] @ weight.flatten(1) @ state[f"{name}.weight_v"]
    return F.conv2d(x, weight / sigma, state.get(f"{name}.bias"), padding=padding)


def _guided(state: State, name: str, x: Tensor, guide: Tensor) -> Tensor:
    times = x.shape[2] // guide.shape[2]
    guide = guide.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
    hidden = _apply_conv(state, f"{name}.mlp_shared.0", guide, 1).relu()
    mean = x.mean(dim=(2, 3), keepdim=True)
    var = (x - mean).square().mean(dim=(2, 3), keepdim=True)
    normal = (x - mean) / (var + 1e-5).sqrt()
    gamma = _apply_conv(state, f"{name}.mlp_gamma", hidden, 1)
    return normal * (1 + gamma) + _apply_conv(state, f"{name}.mlp_beta", hidden, 1)


def _leaky(x: Tensor, slope: float = 0.2) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def _apply_spade(state: State, name: str, x: Tensor, guide: Tensor) -> Tensor:
    y = _apply_spectral(
        state, f"{name}.conv_0", _leaky(_guided(state, f"{name}.norm_0", x, guide)), 1
    )
    y = _apply_spectral(
        state, f"{name}.conv_1", _leaky(_guided(state, f"{name}.norm_1", y, guide)), 1
    )
    if f"{name}.conv_s.weight_orig" in state:
        x = _apply_spectral(state, f"{name}.conv_s", _guided(state, f"{name}.norm_s", x, guide), 0)
    return x + y


def appearance(state: State, pictures: Tensor, s: Sizes) -> Tensor:
    """Volume of pictures in [0, 1]."""
    x = _apply_block(state, "first", pictures)
    for i in range(s.downs):
        x = F.avg_pool2d(_apply_block(state, f"down_blocks.{i}", x), 2)
    x = _apply_conv(state, "second", x)
    x = x.reshape(len(x), s.channels, s.depth, *x.shape[2:])
    for i in range(s.residuals):
        name = f"resblocks_3d.3dr{i}"
        y = _apply_conv(state, f"{name}.conv1", _apply_norm(state, f"{name}.norm1", x).relu(), 1)
        y = _apply_conv(state, f"{name}.conv2", _apply_norm(state, f"{name}.norm2", y).relu(), 1)
        x = x + y
    return x


def render(
    state: State,
    pictures: Tensor,
    source: Tensor,
    driving: Tensor,
    s: Sizes,
    *,
    align_corners: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures in [0, 1] of sources in [0, 1], occlusion and masks."""
    volume, net = appearance(state, pictures, s), "dense_motion_network"
    size = (s.depth, *volume.shape[3:])
    small = _apply_norm(state, f"{net}.norm", _apply_conv(state, f"{net}.compress", volume)).relu()
    moves = shifts(source, driving, size)
    heat = spots(driving, size, 0.01) - spots(source, size, 0.01)
    evidence = []
    for k in range(s.keypoints + 1):
        evidence.append(torch.zeros_like(heat[:, :1]) if k == 0 else heat[:, k - 1 : k])
        evidence.append(F.grid_sample(small, moves[:, k], align_corners=align_corners))
    maps = _hourglass(state, f"{net}.hourglass", torch.cat(evidence, dim=1), s.motion_blocks)
    masks = torch.softmax(_apply_conv(state, f"{net}.mask", maps, 3), dim=1)
    flow = torch.zeros_like(moves[:, 0])
    for k in range(s.keypoints + 1):
        flow += masks[:, k, ..., None] * moves[:, k]
    flat = maps.reshape(len(maps), -1, *maps.shape[3:])
    occlusion = torch.sigmoid(_apply_conv(state, f"{net}.occlusion", flat, 3))
    moved = F.grid_sample(volume, flow, align_corners=align_corners)
    x = _apply_conv(state, "third.conv", moved.reshape(len(moved), -1, *moved.shape[3:]), 1)
    x = _leaky(_apply_norm(state, "third.norm", x), 0.01)
    guide = _apply_conv(state, "fourth", x) * occlusion
    x = _apply_conv(state, "decoder.fc", guide, 1)
    for i in range(s.middle):
        x = _apply_spade(state, f"decoder.G_middle_{i}", x, guide)
    for i in range(2):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = _apply_spade(state, f"decoder.up_{i}", x, guide)
    return torch.sigmoid(_apply_conv(state, "decoder.conv_img", _leaky(x), 1)), occlusion, masks
