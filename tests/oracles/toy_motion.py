"""A one-to-many process from sound to motion that a tiny prior can learn in a minute.

Motion is a pose mode (one of three, not told by the sound), a slow drift, a part that follows the
sound with a lag of two frames, and rare blinks in the first dimension.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from talkhead.diffusion.schedule import NoiseSchedule
from talkhead.losses.motion import code_loss, velocity_loss
from talkhead.networks.prior import PriorNetwork

FRAMES, AUDIO_DIM, CODE_DIM = 32, 8, 12


def _drift(rows: int, frames: int, dim: int, memory: float, generator: torch.Generator) -> Tensor:
    """Stationary Ornstein-Uhlenbeck paths of unit variance, ``(rows, frames, dim)``."""
    keep = math.exp(-1 / memory)
    noise = torch.randn(rows, frames, dim, generator=generator)
    path = [noise[:, 0]]
    for t in range(1, frames):
        path.append(keep * path[-1] + math.sqrt(1 - keep**2) * noise[:, t])
    return torch.stack(path, 1)


def toy_motion(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Audio ``(rows, FRAMES, AUDIO_DIM)`` and motion ``(rows, FRAMES, CODE_DIM)``."""
    fixed = torch.Generator().manual_seed(7)  # the process itself, the same for every seed
    hear = torch.randn(3, AUDIO_DIM, generator=fixed)
    follow = 0.5 * torch.randn(3, CODE_DIM, generator=fixed)
    sway = 0.5 * torch.randn(4, CODE_DIM, generator=fixed)
    modes = 0.7 * torch.randn(3, CODE_DIM, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    cause = _drift(rows, FRAMES + 2, 3, 4.0, generator)
    audio = torch.tanh(cause[:, 2:] @ hear)
    audio = audio + 0.1 * torch.randn(audio.shape, generator=generator)
    mode = torch.randint(0, 3, (rows,), generator=generator)
    motion = modes[mode][:, None] + _drift(rows, FRAMES, 4, 20.0, generator) @ sway
    motion = motion + torch.tanh(cause[:, :FRAMES]) @ follow
    motion = motion + 0.05 * torch.randn(motion.shape, generator=generator)
    blink = (torch.rand(rows, FRAMES, generator=generator) < 0.03).float()
    motion[..., 0] += 2 * blink + 1.4 * blink.roll(1, 1) + 0.6 * blink.roll(2, 1)
    return audio, motion


def train_toy_prior(steps: int, seed: int = 0) -> PriorNetwork:
    """A tiny diffusion prior trained on the toy process with the stage's losses, averaged."""
    torch.manual_seed(seed)
    network = PriorNetwork(AUDIO_DIM, CODE_DIM, 64, 3, 4, 128, 0.0, FRAMES)
    audio, motion = toy_motion(8000, seed + 1)
    flat = motion.flatten(0, 1)
    network.set_statistics(flat.mean(0), flat.std(0), torch.zeros(AUDIO_DIM), torch.ones(AUDIO_DIM))
    schedule = NoiseSchedule()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    average = {k: v.clone() for k, v in network.state_dict().items()}
    for i in range(steps):
        rows = torch.randint(0, len(audio), (48,))
        codes = network.standardise(motion[rows])
        n = torch.randint(0, schedule.steps, (48,))
        noised = schedule.noised(codes, n, torch.randn(codes.shape))
        predicted = network(noised, n, audio[rows], drop=torch.rand(48) < 0.1)
        loss = code_loss(predicted, codes) + velocity_loss(predicted, codes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rates.step()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 0.05 if i < 300 else 0.005)
            else:
                average[name].copy_(value)
    network.load_state_dict(average)
    return network.eval().requires_grad_(False)
