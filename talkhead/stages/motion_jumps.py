"""Smoothness of sampled motion where windows are chained and where frames are edited."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from talkhead.diffusion.sampler import CleanFrames, SamplerSettings, item_seed
from talkhead.metrics.jumps import jump_ratio, window_borders
from talkhead.metrics.sequences import Standard, standardised
from talkhead.stages.motion_evaluation import ClipSample
from talkhead.stages.motion_sampling import MotionSamplingStage

EDIT_EVERY_FRAMES = 25
"""One frame a second is edited."""


class JumpScores:
    """``border_jump`` at the borders of windows and ``edit_jump`` into and out of edited frames.

    For ``edit_jump`` the clip is sampled once more with one frame a second fixed to the real motion's
    code, as in the paper's video editing. Both are 1 for motion without a seam; for the real motion
    (``gt/``) they say what chance makes of so few steps. Clips of one window have no border.

    Source: paper 1 section 4.3, figure 7 and supplement II.3, which show jitter but do not measure it.
    """

    def __init__(self, stage: MotionSamplingStage, standard: Standard, space: str) -> None:
        """Keep the stage to sample from; scores are in units of ``standard``."""
        self._stage, self._standard, self._space = stage, standard, space

    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores by name with the space in brackets."""
        if sample.variant not in ("model", "gt"):
            return {}
        frames = sample.generated.shape[1]
        settings: SamplerSettings = self._stage.sampler
        borders = window_borders(frames, self._stage.prior.max_length, settings.overlap)
        found = {}
        if borders:
            found["border_jump"] = self._ratio(sample.generated, borders)
        edits = list(range(EDIT_EVERY_FRAMES // 2, frames - 1, EDIT_EVERY_FRAMES))
        if edits:
            motion = self._edited(sample, edits) if sample.variant == "model" else sample.generated
            into_and_out = [step for frame in edits for step in (frame, frame + 1)]
            found["edit_jump"] = self._ratio(motion, into_and_out)
        return {f"{name}[{self._space}]": value for name, value in found.items()}

    def _ratio(self, motion: Tensor, at: list[int]) -> float:
        return float(jump_ratio(standardised(motion, self._standard), at))

    def _edited(self, sample: ClipSample, edits: list[int]) -> Tensor:
        """One take that passes through the real codes at the edited frames, ``(1, T, D)``."""
        mask = torch.zeros(1, len(sample.real), dtype=torch.bool, device=sample.real.device)
        mask[:, edits] = True
        seed = item_seed(self._stage.sampler.seed, f"edit/{sample.clip}@{sample.start}")
        return self._stage.sample(
            sample.audio[None], [seed], clean=CleanFrames(sample.real[None], mask)
        )
