"""Samplers for denoisers that predict the clean data: DDPM, DDIM and DPM-Solver++(2M).

The number of network evaluations and where they lie decide cost and quality; the arithmetic around
the network is negligible. Evaluations spaced evenly in log-SNR let the second-order solver match 50
first-order steps with 12; spacing them evenly in time at that count costs several times the motion
distance. Predictions are never clipped: standardised codes have no fixed range.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from talkhead.diffusion.guidance import Denoiser
from talkhead.diffusion.schedule import NoiseSchedule
from talkhead.errors import ConfigError, ShapeError

SamplerKind = Literal["ddpm", "ddim", "dpmpp2m"]
Spacing = Literal["auto", "log_snr", "uniform"]
Start = Literal["noise", "portrait"]
EditMode = Literal["input", "prediction"]
NoiseSource = Callable[[], Tensor]

LOG_SNR_START = -4.5
"""Half log-SNR from which log-SNR spacing counts. The cosine schedule goes down to about -10, where
the denoiser can only say the mean; evaluations spent there are lost."""


@dataclass(frozen=True)
class SamplerSettings:
    """How to draw samples; chosen at test time, never stored with the weights.

    Attributes:
        kind: ``"dpmpp2m"`` (deterministic given the start noise), ``"ddim"`` or ``"ddpm"``.
        steps: Network evaluations per window (a guided one counts once here, two rows).
        spacing: Where they lie; ``"auto"`` is log-SNR for DPM-Solver++(2M) and uniform in time for
            the others.
        guidance: Classifier-free guidance scale; 1 is plain conditional, 0 ignores the audio.
        eta: DDIM only: share of the ancestral noise, 0 (deterministic) to 1 (DDPM).
        overlap: Clean frames carried from one window to the next.
        seed: Base seed of all draws.
        start: ``"noise"``, or ``"portrait"``: a sample begins with the code of the portrait. In a test
            the portrait is the clip's first frame, as usual for one-shot talking heads.

    Raises:
        ConfigError: A value is out of range.
    """

    kind: SamplerKind = "dpmpp2m"
    steps: int = 12
    spacing: Spacing = "auto"
    guidance: float = 2.5
    eta: float = 0.0
    overlap: int = 1
    seed: int = 0
    start: Start = "noise"

    def __post_init__(self) -> None:
        """Check every value."""
        choices = {
            "kind": ("ddpm", "ddim", "dpmpp2m"),
            "spacing": ("auto", "log_snr", "uniform"),
            "start": ("noise", "portrait"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"expected sampler {name} out of {', '.join(allowed)}, got "
                    f"{getattr(self, name)!r}."
                )
        if self.steps < 1:
            raise ConfigError(f"expected at least 1 sampling step, got {self.steps}; raise steps.")
        if not 0.0 <= self.eta <= 1.0 or (self.eta > 0 and self.kind != "ddim"):
            raise ConfigError(
                f"expected eta in [0, 1] and only with kind ddim, got eta {self.eta} with "
                f"{self.kind}; set eta to 0 or kind to ddim."
            )
        if self.overlap < 1:
            raise ConfigError(
                f"expected an overlap of at least 1 frame, got {self.overlap}; windows are chained "
                "through their shared frames."
            )
        if not math.isfinite(self.guidance):
            raise ConfigError(
                f"expected a finite guidance scale, got {self.guidance}; set a number."
            )

    @property
    def resolved_spacing(self) -> Literal["log_snr", "uniform"]:
        """The spacing in force once ``"auto"`` is settled."""
        if self.spacing != "auto":
            return self.spacing
        return "log_snr" if self.kind == "dpmpp2m" else "uniform"


@dataclass(frozen=True)
class CleanFrames:
    """Frames whose codes are given and must come out as they went in.

    Attributes:
        codes: ``(B, T, D)`` in the denoiser's space; only the masked frames are read.
        mask: ``(B, T)`` bool, True where the frame is given.
    """

    codes: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        """Refuse a mask that does not fit the codes."""
        if self.mask.shape != self.codes.shape[:2] or self.mask.dtype != torch.bool:
            raise ShapeError(
                f"expected a bool mask {tuple(self.codes.shape[:2])} for clean frames, got "
                f"{self.mask.dtype} {tuple(self.mask.shape)}; mark one flag per frame."
            )

    def written_into(self, x: Tensor) -> Tensor:
        """``x`` ``(B, T, D)`` with the given frames replaced by their clean codes."""
        return torch.where(self.mask[..., None], self.codes.to(x), x)


class ItemNoise:
    """Unit Gaussian noise from one generator per item.

    An item's draws follow from its own seed alone, so the other members of a batch, their number
    and their order do not change its sample. A draw always covers ``length`` frames and is cut,
    because a longer draw of torch does not start with the shorter one. Drawing happens on the CPU:
    a seed means the same noise on every device.
    """

    def __init__(
        self, seeds: Sequence[int], length: int, dim: int, device: torch.device | str = "cpu"
    ) -> None:
        """One generator per seed; ``length`` is the longest draw in frames, ``dim`` its width."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._length, self._dim, self._device = length, dim, device

    def draw(self, frames: int, rows: Sequence[int] | None = None) -> Tensor:
        """Fresh noise ``(B, frames, D)`` float32.

        Args:
            frames: Length of the draw.
            rows: Items to draw for, the others' generators stay where they are; None is all.

        Raises:
            ShapeError: More frames than the declared length.
        """
        if frames > self._length:
            raise ShapeError(
                f"expected at most {self._length} frames of noise, got {frames}; sample in windows."
            )
        chosen = range(len(self._generators)) if rows is None else rows
        drawn = [
            torch.randn(self._length, self._dim, generator=self._generators[i])[:frames]
            for i in chosen
        ]
        return torch.stack(drawn).to(self._device)


def item_seed(seed: int, key: str, take: int = 0) -> int:
    """Seed of one sample from the base seed, the item's name and the number of the take."""
    digest = hashlib.sha256(f"{seed}/{take}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def step_positions(
    schedule: NoiseSchedule, settings: SamplerSettings, start_step: int | None = None
) -> list[int]:
    """Diffusion steps at which the network is evaluated, strictly falling from ``N - 1`` to 0.

    Uniform spacing places them evenly in time. Log-SNR spacing places them at the table entries
    nearest to equal steps between :data:`LOG_SNR_START` and the log-SNR of step 0, with the first
    moved to ``N - 1`` where sampling starts. Entries that would coincide are moved to the next free
    one.

    Args:
        schedule: Tables of ``N`` steps.
        settings: Number of evaluations of the full chain and their spacing.
        start_step: ``K``, 1 to ``N``: enter that chain at step ``K - 1`` and keep only its evaluations
            below, so a shallow start saves evaluations and moves none. None is the full chain.

    Raises:
        ConfigError: More evaluations than diffusion steps, or a start outside the schedule.
    """
    if start_step is not None:
        if not 1 <= start_step <= schedule.steps:
            raise ConfigError(
                f"expected a start step of 1 to {schedule.steps} for this schedule, got {start_step}; "
                "the full chain has all of them."
            )
        full = step_positions(schedule, settings)
        return [start_step - 1, *(n for n in full if n < start_step - 1)]
    count, last = settings.steps, schedule.steps - 1
    if count > schedule.steps:
        raise ConfigError(
            f"expected at most {schedule.steps} sampling steps for this schedule, got {count}; "
            "lower steps."
        )
    if settings.resolved_spacing == "uniform":
        wanted = torch.linspace(last, 0, count, dtype=torch.float64).round().long().tolist()
    else:
        table = schedule.log_snr
        start = max(LOG_SNR_START, float(table[-1]))
        targets = torch.linspace(start, float(table[0]), count, dtype=torch.float64)
        wanted = (table[None, :] - targets[:, None]).abs().argmin(1).tolist()
    wanted[0] = last
    positions: list[int] = []
    for i, n in enumerate(wanted):
        below = positions[-1] - 1 if positions else last
        positions.append(max(min(n, below), count - 1 - i))
    return positions


def ddim_step(
    x: Tensor, x0: Tensor, schedule: NoiseSchedule, n: int, m: int, eta: float, noise: Tensor | None
) -> Tensor:
    """One jump from step ``n`` to ``m < n``; ``eta`` 0 is DDIM, 1 the DDPM posterior.

    ``x_m = alpha_m x0 + sqrt(sigma_m^2 - v) eps + sqrt(v) noise`` with ``eps = (x - alpha_n x0) /
    sigma_n`` and ``v = eta^2 (sigma_m / sigma_n)^2 (1 - (alpha_n / alpha_m)^2)``, the small
    posterior variance between the two steps.

    Source: Song et al. (2021), eq. 12 and 16.
    """
    alpha_n, alpha_m = float(schedule.alpha[n]), float(schedule.alpha[m])
    sigma_n, sigma_m = float(schedule.sigma[n]), float(schedule.sigma[m])
    variance = eta**2 * (sigma_m / sigma_n) ** 2 * (1 - (alpha_n / alpha_m) ** 2)
    eps = (x - alpha_n * x0) / sigma_n
    moved = alpha_m * x0 + math.sqrt(max(sigma_m**2 - variance, 0.0)) * eps
    return moved if noise is None else moved + math.sqrt(variance) * noise


def dpmpp2m_step(
    x: Tensor,
    x0: Tensor,
    schedule: NoiseSchedule,
    path: tuple[int | None, int, int],
    previous_x0: Tensor | None,
) -> Tensor:
    """One second-order multistep jump in log-SNR; first order where there is no previous answer.

    With ``h = l_m - l_n`` and ``r = (l_n - l_k) / h`` the clean data are extrapolated to
    ``d = (1 + 1/(2r)) x0_n - 1/(2r) x0_k`` and ``x_m = sigma_m / sigma_n x - alpha_m (e^-h - 1)
    d``.

    Args:
        x: State at step ``n``, ``(B, T, D)``.
        x0: The network's answer at ``n``.
        schedule: Tables.
        path: Steps ``(k, n, m)``: previous (None at the start), current, next.
        previous_x0: The answer at ``k``.

    Source: Lu et al. (2022), DPM-Solver++, algorithm 2.
    """
    k, n, m = path
    table = schedule.log_snr
    h = float(table[m] - table[n])
    direction = x0
    if k is not None and previous_x0 is not None:
        half = h / float(table[n] - table[k]) / 2
        direction = (1 + half) * x0 - half * previous_x0
    ratio = float(schedule.sigma[m] / schedule.sigma[n])
    return ratio * x - float(schedule.alpha[m]) * math.expm1(-h) * direction


def sample(
    denoise: Denoiser,
    noise: NoiseSource,
    schedule: NoiseSchedule,
    settings: SamplerSettings,
    *,
    clean: CleanFrames | None = None,
    edit_mode: EditMode = "input",
    positions: Sequence[int] | None = None,
    coarse: Tensor | None = None,
) -> Tensor:
    """Draw one batch of samples.

    The last evaluation's answer is the sample: the jump to zero noise is first order by nature.

    Args:
        denoise: Bound denoiser, see :func:`talkhead.diffusion.guidance.guided_denoiser`.
        noise: Gives fresh unit noise of the sample's shape ``(B, T, D)``: once for the start and
            once after every evaluation but the last where the sampler is stochastic.
        schedule: The schedule the denoiser was trained with.
        settings: Sampler, number of evaluations and spacing.
        clean: Frames to keep. They are exact in the result.
        edit_mode: ``"input"`` rewrites clean frames, un-noised, before every evaluation, as a
            denoiser trained with clean frames expects; ``"prediction"`` overwrites them in every
            answer instead, for a denoiser that never saw clean frames (MDM's editing).
        positions: Explicit evaluation steps, falling; default :func:`step_positions`.
        coarse: A rough sample ``(B, T, D)``. Sampling then starts from it, diffused to the first of
            the positions, instead of from pure noise.

    Returns:
        Clean samples ``(B, T, D)`` in the type of the noise.
    """
    path = list(positions) if positions is not None else step_positions(schedule, settings)
    eta = {"ddpm": 1.0, "ddim": settings.eta, "dpmpp2m": 0.0}[settings.kind]
    x, previous, answer = noise(), None, None
    if coarse is not None:
        x = schedule.noised(coarse.to(x), torch.full((x.shape[0],), path[0]), x)
    for i, n in enumerate(path):
        if clean is not None and edit_mode == "input":
            x = clean.written_into(x)
        previous, answer = answer, denoise(x, torch.full((x.shape[0],), n, device=x.device)).to(x)
        if clean is not None and edit_mode == "prediction":
            answer = clean.written_into(answer)
        if i + 1 == len(path):
            break
        if settings.kind == "dpmpp2m":
            before = path[i - 1] if i else None
            x = dpmpp2m_step(x, answer, schedule, (before, n, path[i + 1]), previous)
        else:
            fresh = noise() if eta > 0 else None
            x = ddim_step(x, answer, schedule, n, path[i + 1], eta, fresh)
    assert answer is not None  # a path has at least one step
    return answer if clean is None else clean.written_into(answer)
