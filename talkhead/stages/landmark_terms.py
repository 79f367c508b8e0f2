"""Loss terms of the landmark motion model, for training and validation alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from talkhead.diffusion.shallow import boundary_step, squares
from talkhead.errors import ConfigError
from talkhead.losses.motion_streams import (
    Independence,
    Norm,
    independence_loss,
    latent_regularisation,
    mean_distance,
)
from talkhead.networks.landmark_coarse import Coarse, Heard
from talkhead.networks.landmark_motion_model import LandmarkMotionModel
from talkhead.stages.landmark_features import LandmarkRun


@dataclass(frozen=True)
class TermOptions:
    """Forms of the terms.

    Attributes:
        independence: Of equation 5.
        norm: Of equations 3, 4, 10 and the literal 5.
        diffusion_norm: Of the denoiser's error.
        train_below: Steps the denoiser is trained on, None for all.
        tolerance: Nats an entry that the boundary always allows.

    Raises:
        ConfigError: A value out of range.
    """

    independence: Independence = "decorrelated"
    norm: Norm = "l2"
    diffusion_norm: Norm = "l2"
    train_below: int | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Check every value."""
        for name, known in (
            ("independence", get_args(Independence)),
            ("norm", get_args(Norm)),
            ("diffusion_norm", get_args(Norm)),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}."
                )
        if self.tolerance < 0:
            raise ConfigError(f"tolerance: expected at least 0, got {self.tolerance}.")


class Scored(NamedTuple):
    """Loss terms by name, the coarse motion, and the real one relative to the portraits."""

    terms: dict[str, Tensor]
    coarse: Coarse
    motion: Tensor


def motion_terms(
    model: LandmarkMotionModel,
    run: LandmarkRun,
    known: int,
    first: Tensor,
    options: TermOptions,
    *,
    generator: torch.Generator | None = None,
) -> Scored:
    """Every term the model has parts for.

    Args:
        model: The model.
        run: Real runs.
        known: Frames at their beginning that are given.
        first: Portraits ``(B, 136)``.
        options: Forms of the terms.
        generator: Source of steps and noise; None is the global one.
    """
    face, motion = model.face(first), model.relative(run.rows, first)
    heard = model.hear(run.mel, run.prosody)
    coarse = model.coarse(heard, motion[:, :known], face)
    made, real = coarse.motion[:, known:], motion[:, known:]
    terms = {"reconstruction": mean_distance(made, real, options.norm)}
    if model.pose is not None:
        terms |= latent_terms(model, heard, motion, face, options)
    if coarse.pose_codes is not None and model.rhythmic is not None:
        rhythmic = heard.rhythm.codes[:, known:]
        terms["independence"] = independence_loss(
            rhythmic, coarse.pose_codes, options.independence, options.norm
        )
    if model.denoiser is not None:
        terms |= diffusion_terms(model, coarse, motion, face, known, options, generator)
    return Scored(terms, coarse, motion)


def latent_terms(
    model: LandmarkMotionModel, heard: Heard, motion: Tensor, face: Tensor, options: TermOptions
) -> dict[str, Tensor]:
    """Equations 3 and 4 on codes of real frames without their rhythmic part."""
    coder = model.pose
    assert coder is not None  # asked for with the pose stream only
    codes = coder.encode(motion - heard.rhythm.offsets.detach(), face[:, None])
    unchanged = coder.decode(torch.zeros_like(codes), codes)
    before, after = codes[:, :-1], codes[:, 1:]
    return {
        "regularisation": latent_regularisation(codes, unchanged, options.norm),
        "cycle": mean_distance(coder.decode(before - after, after), before, options.norm),
    }


def diffusion_terms(
    model: LandmarkMotionModel,
    coarse: Coarse,
    motion: Tensor,
    face: Tensor,
    known: int,
    options: TermOptions,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """The denoiser at uniformly drawn steps, and the step predictor."""
    assert model.denoiser is not None  # asked for with diffusion only
    limit, device = options.train_below or model.schedule.steps, motion.device
    step = torch.randint(limit, (len(motion),), device=device, generator=generator)
    noise = torch.randn(motion.shape, device=device, generator=generator)
    given = torch.zeros(motion.shape[:2], dtype=torch.bool, device=device)
    given[:, :known] = True
    shown = torch.where(given[..., None], motion, model.schedule.noised(motion, step, noise))
    told = Coarse(coarse.pose.detach(), coarse.rhythm.detach(), None)
    said = model.denoiser(shown, step, model.condition(told, face), given=given).float()
    wanted = model.answer(motion, shown, step, told.motion)
    distance, power = squares(coarse.motion[:, known:], motion[:, known:])
    entries = motion[0, known:].numel()
    boundary = boundary_step(distance, power, entries, model.schedule, tolerance=options.tolerance)
    share = (boundary / model.schedule.steps).float()
    return {
        "diffusion": mean_distance(said[:, known:], wanted[:, known:], options.diffusion_norm),
        "step": mean_distance(model.predicted_share(told, face), share),
    }
