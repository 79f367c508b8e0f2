"""Two ranks of every stage compute what one process computes on both ranks' rows.

Each stage is fitted, validated and (the priors) tested by the real Trainer, once on two CPU processes and
once in one process with the doubled batch: losses, gradients, the memory bank and all metrics must agree.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from talkhead import cli
from talkhead.batch import (
    FrameBatch,
    LandmarkBatch,
    SequenceBatch,
    SpeechRunBatch,
    SyncBatch,
    WindowBatch,
)
from talkhead.diffusion.sampler import SamplerSettings
from talkhead.geometry.thin_plate import ThinPlate, random_thin_plate
from talkhead.stages import landmark_terms, motion_diffusion, pair_reenactment
from talkhead.stages.av_contrastive import AVContrastiveStage
from talkhead.stages.base import Stage
from talkhead.stages.lip_disentangle import LipDisentangleStage
from talkhead.stages.motion_prior import MotionPriorStage
from tests.ranks import run_ranks
from tests.talkhead.stages import (
    test_audio2exp,
    test_face_vid2vid,
    test_gaze,
    test_keypoint_reenactment,
    test_lip_sync_expert,
    test_ms_sync,
    test_rigid_syncer,
    test_shallow_diffusion,
    test_syncer,
    test_syncnet,
)
from tests.talkhead.stages.motion_toys import (
    PRIOR,
    autoregressive,
    diffusion,
    toy_batch,
    with_statistics,
)
from tests.talkhead.stages.test_gan_stages import (
    DIM,
    GENERATOR,
    MOTION_ENCODER,
    SIZE,
    Batches,
    disentangle,
    frame_batch,
    reenact,
    window_batch,
)

B = TypeVar("B", FrameBatch, WindowBatch)
ROWS, STEPS = 2, 3
GRADIENT_ERROR = {"face_vid2vid": 1e-2}
"""Where rounding does more than elsewhere: there, 1e-7 on the weights moves gradients by 5e-4, or 6e-3 with
peaked heat."""
SLOW = 1e-7
"""Adam makes a whole step of a gradient that is all rounding; small steps keep the runs together."""
CONTRASTIVE_HEAD = {"dim": DIM, "out_dim": 16, "hidden": 16}
QUIET = {**GENERATOR, "noise": False}
STILL_PRIOR = {**PRIOR, "dropout": 0.0}
FAST = SamplerSettings(steps=3)


def frames(seed: int) -> FrameBatch:
    return joined(frame_batch(seed), frame_batch(seed + 100))


def windows(seed: int) -> WindowBatch:
    return joined(window_batch(seed), window_batch(seed + 100))


def sequences(seed: int) -> SequenceBatch:
    return toy_batch(2 * ROWS, 16, seed)


def sync_windows(seed: int) -> SyncBatch:
    return test_syncnet.batch(seed=seed)


def landmark_runs(seed: int) -> LandmarkBatch:
    return test_rigid_syncer.batch(seed=seed)


def keypoint_runs(seed: int) -> SequenceBatch:
    return test_syncer.batch(seed=seed)


def joined(first: B, second: B) -> B:
    """Two batches as one."""
    values: dict[str, Any] = {}
    for f in fields(first):
        pair: tuple[Any, Any] = (getattr(first, f.name), getattr(second, f.name))
        values[f.name] = torch.cat(pair) if isinstance(pair[0], Tensor) else [*pair[0], *pair[1]]
    values["clip"] = [f"{name}{i}" for i, name in enumerate(values["clip"])]
    return type(first)(**values)


def part(batch: Any, rank: int, ranks: int) -> Any:
    """The rows of one rank."""
    if ranks == 1:
        return batch
    mine = slice(rank * ROWS, (rank + 1) * ROWS)
    values: dict[str, Any] = {}
    for f in fields(batch):
        value = getattr(batch, f.name)
        values[f.name] = (
            {k: v[mine] for k, v in value.items()} if isinstance(value, dict) else value[mine]
        )
    return type(batch)(**values)


def made_reenactment() -> Stage:
    return reenact(augment=False, generator=QUIET, lr=SLOW, lr_generator=SLOW,
                   weights={"perceptual": 0.0, "descriptor": 1.0})  # fmt: skip


def made_contrastive() -> Stage:
    torch.manual_seed(0)
    return AVContrastiveStage(
        motion_encoder=MOTION_ENCODER, image_size=SIZE, windows=2, contrastive_head=CONTRASTIVE_HEAD,
        audio_encoder={"dim": 16, "widths": [4, 4, 8, 8], "counts": [1, 1, 1, 1]}, lr=SLOW,
    )  # fmt: skip


def made_disentangle() -> Stage:
    return disentangle(bank_over_ranks=True, generator=QUIET, lr=SLOW, lr_generator=SLOW)


def made_diffusion() -> Stage:
    torch.manual_seed(0)
    return diffusion(prior=STILL_PRIOR, sampler=FAST, validation_clips=3, condition_drop=0.0, free_share=1.0,
                     prefix_share=0.0)  # fmt: skip


def made_ar() -> Stage:
    torch.manual_seed(0)
    return autoregressive(prior=STILL_PRIOR, sampler=FAST, validation_clips=3)


def made_keypoint_reenactment() -> Stage:
    return test_keypoint_reenactment.stage(augment=False, lr=SLOW, lr_detector=SLOW)


def made_face_vid2vid() -> Stage:
    soft = {**test_face_vid2vid.EXTRACTOR, "temperature": 1.0}  # peaked heat magnifies rounding
    return test_face_vid2vid.stage(augment=False, motion_extractor=soft, lr=SLOW, lr_extractor=SLOW)


def made_landmark_renderer() -> Stage:
    return test_keypoint_reenactment.driven(augment=False, lr=SLOW)


def faces(seed: int) -> FrameBatch:
    """Landmarks of faces, and noise: batch statistics of flat pictures would be ill-conditioned."""
    batch, noise = joined(*map(test_keypoint_reenactment.faces, (seed, seed + 100))), frames(seed)
    batch.identity, batch.target = noise.identity, noise.target
    return batch


def made_gaze() -> Stage:
    return test_gaze.stage(
        gaze={**test_gaze.NET, "widths": [4, 8, 8]}, augment=False, corner_noise=0.0, lr=SLOW
    )


def made_syncnet() -> Stage:
    return test_syncnet.stage(lr=SLOW)


def made_rigid_syncer() -> Stage:
    return test_rigid_syncer.stage(lr=SLOW, mirror=False)


def made_syncer() -> Stage:
    """With all false partners there are, so that no draw differs between ranks."""
    return test_syncer.stage(
        lr=SLOW, hard_negatives=None, other_negatives=None, temperature=0.5, learn_temperature=True,
        flip=False, scale=0.0, shift=0.0, level=0.0,
    )  # fmt: skip


def made_ms_sync() -> Stage:
    return test_ms_sync.stage(lr=SLOW, lr_discriminator=SLOW, augment=False)


def motion_runs(seed: int) -> SequenceBatch:
    return test_ms_sync.batch(seed=seed)


def made_lip_sync_expert() -> Stage:
    """With two runs a clip, so that every run has one false partner."""
    return test_lip_sync_expert.stage(lr=SLOW, runs=2)


def speech_runs(seed: int) -> SpeechRunBatch:
    return test_lip_sync_expert.batch(seed=seed, runs=2)


def made_audio2exp() -> Stage:
    """Every run hears silence first, so that no draw differs between ranks."""
    return test_audio2exp.stage(lr=SLOW, silent_share=1.0)


def adapter_runs(seed: int) -> SpeechRunBatch:
    return test_audio2exp.batch(seed=seed, rows=2 * ROWS)


def made_shallow_diffusion() -> Stage:
    """Without draws of portraits and known frames, which are each rank's own."""
    made = test_shallow_diffusion.stage(
        lr=SLOW, chain_share=0.0, measure_time=False, validation_clips=3
    )
    made.motion_model.set_statistics(torch.zeros(136), torch.ones(136), torch.full((136,), 0.1))
    return made


def landmark_motion(seed: int) -> SequenceBatch:
    return test_shallow_diffusion.batch(seed=seed)


STAGES: dict[str, tuple[Callable[[], Stage], Callable[[int], Any]]] = {
    "reenactment": (made_reenactment, frames),
    "av_contrastive": (made_contrastive, windows),
    "lip_disentangle": (made_disentangle, windows),
    "motion_diffusion": (made_diffusion, sequences),
    "motion_ar": (made_ar, sequences),
    "keypoint_reenactment": (made_keypoint_reenactment, frames),
    "face_vid2vid": (made_face_vid2vid, frames),
    "landmark_renderer": (made_landmark_renderer, faces),
    "gaze": (made_gaze, frames),
    "syncnet": (made_syncnet, sync_windows),
    "rigid_syncer": (made_rigid_syncer, landmark_runs),
    "syncer": (made_syncer, keypoint_runs),
    "ms_sync": (made_ms_sync, motion_runs),
    "lip_sync_expert": (made_lip_sync_expert, speech_runs),
    "audio2exp": (made_audio2exp, adapter_runs),
    "shallow_diffusion": (made_shallow_diffusion, landmark_motion),
}


class Rows(LightningDataModule):
    """The rows of one rank of ready batches."""

    motion_stats = Batches.motion_stats

    def __init__(self, make: Callable[[int], Any], rank: int, ranks: int) -> None:
        super().__init__()
        self.batches = [part(make(seed), rank, ranks) for seed in range(STEPS)]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]  # a list is a dataset

    val_dataloader = test_dataloader = train_dataloader


class Noted(Callback):
    """Losses of every batch, and the gradients that the first optimiser steps saw."""

    def __init__(self) -> None:
        self.losses: dict[str, list[Tensor]] = {}
        self.gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, value in pl_module.named_parameters():
            if id(value) in held and value.grad is not None and name not in self.gradients:
                self.gradients[name] = value.grad.clone()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train/"):
                self.losses.setdefault(name, []).append(value.clone())


class OneDraw(ModuleType):
    """Stands for ``torch`` in the diffusion stages: every rank takes its rows of one draw."""

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__("torch")
        self._mine = slice(rank * ROWS, (rank + 1) * ROWS) if ranks > 1 else slice(None)
        self._generator = torch.Generator().manual_seed(5)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def randint(self, high: int, shape: tuple[int, ...], **_: Any) -> Tensor:
        return torch.randint(high, (2 * ROWS,), generator=self._generator)[self._mine]

    def randn(self, shape: torch.Size, **_: Any) -> Tensor:
        return torch.randn((2 * ROWS, *shape[1:]), generator=self._generator)[self._mine]


def one_warp(n: int, **options: Any) -> ThinPlate:
    """Stands for the random warps: the same one for every picture on every rank."""
    options["generator"] = torch.Generator().manual_seed(3)
    return random_thin_plate(1, **options)


def everything(name: str, rank: int, ranks: int, folder: Path) -> dict[str, Any]:
    """What a stage computed: losses, gradients, bank and metrics."""
    make, batches = STAGES[name]
    cli.quieten(["fit"])
    patch = pytest.MonkeyPatch()
    for drawing in (motion_diffusion, landmark_terms):
        patch.setattr(drawing, "torch", OneDraw(rank, ranks))
    patch.setattr(pair_reenactment, "random_thin_plate", one_warp)
    noted, data, stage = Noted(), Rows(batches, rank, ranks), make()
    options: dict[str, Any] = {
        "default_root_dir": folder / f"{name}{rank}", "accelerator": "cpu", "devices": ranks,
        "strategy": "ddp_find_unused_parameters_true" if ranks > 1 else "auto", "logger": False,
        "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        "num_sanity_val_steps": 0, "use_distributed_sampler": False,
    }  # fmt: skip
    if isinstance(stage, MotionPriorStage):
        with_statistics(stage)
    trainer = Trainer(max_steps=STEPS, limit_val_batches=0, callbacks=[noted], **options)
    trainer.fit(stage, datamodule=data)
    assert trainer.world_size == ranks
    metrics = dict(Trainer(**options).validate(stage, datamodule=data, verbose=False)[0])
    metrics.update(Trainer(**options).test(stage, datamodule=data, verbose=False)[0])
    patch.undo()
    bank = stage.bank.get_extra_state() if isinstance(stage, LipDisentangleStage) else {}
    return {
        "losses": {k: torch.stack(v) for k, v in noted.losses.items()},
        "gradients": noted.gradients,
        "bank": {k: torch.cat(v) for k, v in bank.items()},
        "metrics": {k: float(v) for k, v in metrics.items()},
    }


def both_ranks(rank: int, ranks: int) -> dict[str, Any]:
    """Every stage on this rank."""
    folder = Path(os.environ["TALKHEAD_TEST_FOLDER"])
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks),
        GROUP_RANK="0", TORCHELASTIC_RUN_ID="two ranks",
    )  # fmt: skip
    return {name: everything(name, rank, ranks, folder) for name in STAGES}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKHEAD_TEST_FOLDER", str(folder))
        return run_ranks(both_ranks, folder)


@pytest.mark.parametrize("name", STAGES)
def test_two_ranks_equal_one(name: str, two: list[dict[str, Any]], tmp_path: Path) -> None:
    whole = everything(name, 0, 1, tmp_path)
    first, second = (rank[name] for rank in two)
    assert whole["losses"].keys() == first["losses"].keys()
    for term, values in whole["losses"].items():
        assert len(values) == STEPS
        mean = (first["losses"][term] + second["losses"][term]) / 2
        assert mean.tolist() == pytest.approx(values.tolist(), rel=1e-3, abs=1e-4), term
    largest = max(float(value.abs().max()) for value in whole["gradients"].values())
    assert len(whole["gradients"]) > (1 if name == "audio2exp" else 10)  # one linear layer learns
    for parameter, value in whole["gradients"].items():
        scale = max(float(value.abs().max()), 5e-2 * largest)
        for rank in (first, second):
            error = float((rank["gradients"][parameter] - value).abs().max())
            assert error < GRADIENT_ERROR.get(name, 2e-3) * scale, parameter
    for key, value in whole["bank"].items():
        torch.testing.assert_close(first["bank"][key], value, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(second["bank"][key], first["bank"][key], rtol=0, atol=0)
    assert len(whole["metrics"]) > 3
    assert first["metrics"] == pytest.approx(whole["metrics"], rel=2e-3, abs=1e-5, nan_ok=True)
