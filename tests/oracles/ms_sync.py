"""Slow referees of MS-Sync's networks: no cache, no batching, plain loops over frames and windows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from talkhead.networks.motion_discriminator import MotionDiscriminator
from talkhead.networks.motion_generator import Branches, MotionGenerator
from talkhead.networks.transformer import PostNormBlock


def next_row(network: MotionGenerator, rows: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """The frame after ``rows (B, t, 60)`` from all of them, and the masks ``(B, G, K)``.

    Every layer of the transformer is computed again for every frame, one query at a time.
    """
    embedded = network.embed(rows)
    x = embedded
    for block in network.blocks:
        assert isinstance(block, PostNormBlock)
        x = torch.stack([one_query(block, x, t, network.context) for t in range(x.shape[1])], 1)
    seen = torch.cat([network.summary(x[:, -1]), embedded[:, -1]], -1)
    moved, logits = [], []
    for branch in range(network.branches.count):
        sound = features[:, branch, rows.shape[1]] if branch < features.shape[1] else None
        velocity, logit = one_branch(network.branches, branch, seen, sound)
        moved.append(velocity)
        logits.append(logit)
    masks = torch.stack(logits, 1).softmax(1)
    wide = [v * masks[:, i].repeat_interleave(6, -1) for i, v in enumerate(moved)]
    merge = network.branches.merge
    velocity = torch.stack(wide).sum(0) if merge is None else merge(torch.cat(wide, -1))
    return rows[:, -1] + velocity, masks


def one_query(block: PostNormBlock, x: Tensor, t: int, context: int) -> Tensor:
    """Frame ``t`` of one post-norm layer by softmax over its last ``context`` frames."""
    width = x.shape[2]
    query, key, value = block.attention_in(x).split(width, -1)
    first, size = max(0, t - context + 1), width // block.heads
    mixed = []
    for head in range(block.heads):
        part = slice(head * size, (head + 1) * size)
        scores = (query[:, t : t + 1, part] * key[:, first : t + 1, part]).sum(-1) / math.sqrt(size)
        mixed.append((scores.softmax(-1)[..., None] * value[:, first : t + 1, part]).sum(1))
    y = block.attention_norm(x[:, t] + block.attention_out(torch.cat(mixed, -1)))
    out: Tensor = block.feedforward_norm(y + block.feedforward(y))
    return out


def one_branch(
    branches: Branches, index: int, seen: Tensor, sound: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Velocities ``(B, 60)`` and logits ``(B, 10)`` of one branch from its own concatenated input."""
    part = slice(index * branches.inner, (index + 1) * branches.inner)
    weight = branches.seen.weight[part].T
    if sound is not None:
        seen, weight = torch.cat([seen, sound], -1), torch.cat([weight, branches.sound[index]])
    x = seen @ weight + branches.seen.bias[part]
    x = torch.nn.functional.layer_norm(
        x, x.shape[-1:], branches.norm.weight[part], branches.norm.bias[part]
    )
    x = torch.nn.functional.gelu(x @ branches.widen.weight[index] + branches.widen.bias[index])
    out = x @ branches.narrow.weight[index] + branches.narrow.bias[index]
    return out[:, :60], out[:, 60:]


def recomputed_roll_out(network: MotionGenerator, observed: Tensor, features: Tensor) -> Tensor:
    """One full pass over the whole prefix for every frame."""
    fed, rows = observed[:, :1], [observed[:, 0]]
    for t in range(1, features.shape[2]):
        row, _ = next_row(network, fed, features)
        rows.append(row)
        known = observed[:, t] if t < observed.shape[1] else row
        fed = torch.cat([fed, known[:, None]], 1)
    return torch.stack(rows, 1)


def interpolated(samples: Tensor, times: list[float], frames: int) -> Tensor:
    """Samples ``(B, N, D)`` at increasing ``times``, read at every whole frame, held outside."""
    out = []
    for frame in range(frames):
        after = next((j for j, time in enumerate(times) if time > frame), len(times))
        if after in (0, len(times)):
            out.append(samples[:, min(after, len(times) - 1)])
            continue
        share = (frame - times[after - 1]) / (times[after] - times[after - 1])
        out.append((1 - share) * samples[:, after - 1] + share * samples[:, after])
    return torch.stack(out, 1)


def lstm_state(network: MotionDiscriminator, embedded: Tensor) -> Tensor:
    """Last state of the LSTM over ``(w, width)``, gate by gate."""
    lstm = network.lstm
    into, back, *biases = (p for _, p in lstm.named_parameters())
    bias = biases[0] + biases[1]
    state, cell = torch.zeros(lstm.hidden_size), torch.zeros(lstm.hidden_size)
    for frame in embedded:
        gates = into @ frame + back @ state + bias
        enter, forget, new, leave = gates.chunk(4)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        state = leave.sigmoid() * cell.tanh()
    return state


@torch.no_grad()
def window_logits(
    network: MotionDiscriminator, keypoints: Tensor, observed: int
) -> list[list[float]]:
    """Logits of one run ``(T, 60)``, a list a window length, by loops over windows."""
    embedded = network.embed(keypoints)
    condition = lstm_state(network, embedded[:observed])
    generated, out = len(keypoints) - observed, []
    for window in network.windows:
        stride, logits = window // 2, []
        start = max(-observed, stride - window)
        while start + window <= generated:
            state = lstm_state(network, embedded[observed + start : observed + start + window])
            phi = network.phi(state).relu()
            likeness = float(condition @ network.project(phi)) * max(1, start) ** (
                -1.0 / float(network.beta)
            )
            logits.append(float(network.answer(likeness + network.psi(phi).relu())))
            start += stride
        if logits:
            out.append(logits)
    return out
