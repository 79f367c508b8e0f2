"""Stage gaze on drawn eyes: it learns, it hands its network on, and it says how well it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn

from datamodules.base import TalkheadDataModule
from talkhead.batch import FrameBatch, to_float
from talkhead.checkpoint import load_component
from talkhead.corpus.prosody import Prosody
from talkhead.corpus.state import FaceState
from talkhead.corpus.truth import save_truth
from talkhead.errors import ConfigError, StageLinkError
from talkhead.geometry.motion import MotionModel
from talkhead.losses.gaze import gaze_loss
from talkhead.networks.gaze import GazeNet
from talkhead.stages.gaze import READ, GazeStage
from talkhead.stages.lip_disentangle import LipDisentangleStage
from tests.datamodules.fakes import make_prepared
from tests.talkhead.networks.test_gaze import faces
from tests.talkhead.stages.short_runs import interrupted, trainer
from tests.talkhead.stages.test_gan_stages import (
    SIZE,
    disentangle,
    fit,
    moved,
    weights,
    window_batch,
)

NET: dict[str, Any] = {"height": 8, "width": 12, "widths": [4, 8], "dim": 8}


def stage(**options: Any) -> GazeStage:
    torch.manual_seed(0)
    return GazeStage(**{"image_size": SIZE, "gaze": dict(NET), **options}).train()


def drawn(count: int, seed: int = 0) -> FrameBatch:
    """Bright eyes with a dark spot where they look and a dark lid over as much as is shut."""
    random = torch.Generator().manual_seed(seed)
    motion = torch.zeros(count, 15)
    motion[:, -5:-3] = 0.2 + 0.2 * torch.rand(count, 2, generator=random)
    motion[:, -3:-1] = torch.rand(count, 2, generator=random) - 0.5
    pictures = torch.full((count, 3, 64, 64), 120, dtype=torch.uint8)
    at = torch.arange(64)
    for i in range(count):
        x, y = motion[i, -3:-1].tolist()
        for eye, middle in enumerate((19, 45)):
            opening = float(motion[i, -5 + eye])
            lid = 26 - round(24 * opening)
            pictures[i, :, lid:27, middle - 6 : middle + 6] = 230
            near = (at[None] - middle - 6 * x) ** 2 + (at[:, None] - 25.6 - 6 * y) ** 2 < 9
            pictures[i][:, near] = 10
    return FrameBatch(
        identity=torch.zeros(count, 0, 3, 64, 64, dtype=torch.uint8),
        target=pictures,
        landmarks=faces(count),
        motion=motion,
        extra=torch.zeros(count, 0, 3, 64, 64, dtype=torch.uint8),
        extra_motion=torch.zeros(count, 0, 15),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("gaze"), frames=30, size=SIZE)


def data(root: Path, **options: Any) -> TalkheadDataModule:
    return TalkheadDataModule(str(root), batch_size=4, epoch_items=16, seed=3, **options)


def test_it_reads_what_the_descriptors_hold() -> None:
    layout = MotionModel(np.zeros(1434), np.eye(4, 1434), 4).layout
    columns = list(range(15))
    assert columns[READ] == [*columns[layout["eyes"]], *columns[layout["gaze"]]]


def test_drawn_eyes_are_learned_and_new_ones_are_read() -> None:
    made = stage(image_size=64, augment=False, corner_noise=0.02)
    seen, unseen = drawn(128), drawn(64, seed=1)
    labels = seen.motion[:, READ]
    made.gaze.set_statistics(labels.mean(0), labels.std(0))
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
    first: dict[str, float] = {}
    for _ in range(60):
        terms = made.losses(seen)
        first = first or {name: value.item() for name, value in terms.items()}
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    made.eval()
    with torch.no_grad():
        read = made.predict_step(unseen, 0)
    wanted = unseen.motion[:, READ]
    explained = 1 - (read - wanted).square().sum(0) / (wanted - wanted.mean(0)).square().sum(0)
    assert explained.min() > 0.5
    assert set(first) == {"eyes", "gaze"}
    assert {name: bool(value < first[name]) for name, value in made.losses(seen).items()} == {
        "eyes": True,
        "gaze": True,
    }


def test_loss_terms_by_hand() -> None:
    class Fixed(nn.Module):
        mean, std = torch.tensor([0.3, 0.3, 0.0, 0.0]), torch.tensor([0.1, 0.1, 0.5, 0.5])

        def standardised(self, pictures: Tensor, landmarks: Tensor) -> Tensor:
            return torch.zeros(len(pictures), 4)

    made = stage(image_size=64).eval()
    made.gaze = Fixed()  # type: ignore[assignment]  # a stand-in with the method that is asked for
    batch = drawn(1)
    batch.motion[:, READ] = torch.tensor([0.35, 0.3, 1.5, 0.0])
    # Standardised: 0.5 and 0; 3 and 0. Smooth L1: x^2 / 2 below 1, |x| - 1/2 above, mean of two columns.
    terms = made.losses(batch)
    assert terms["eyes"].item() == pytest.approx(0.125 / 2, rel=1e-5)
    assert terms["gaze"].item() == pytest.approx(2.5 / 2, rel=1e-5)


def test_noise_only_while_training_and_no_larger_than_said() -> None:
    made = stage(image_size=64, corner_noise=0.1)
    batch = drawn(4)
    shift = (made._misplaced(batch.landmarks) - batch.landmarks).abs()
    assert 0.015 < shift.max() <= 0.02 + 1e-6  # a tenth of an eye of 0.2
    made.eval()
    with torch.no_grad():
        assert torch.equal(made.losses(batch)["gaze"], made.losses(batch)["gaze"])
    read = made.gaze.read(to_float(batch.target), batch.landmarks)
    assert torch.equal(made.predict_step(batch, 0), read)


def test_fit_resume_and_hand_over(root: Path, tmp_path: Path) -> None:
    seed_everything(5)
    whole = stage()
    fitted = trainer(tmp_path, 6, limit_val_batches=2)
    fitted.fit(whole, datamodule=data(root))
    assert {"val/gaze_r2", "val/eyes_r2", "val/gaze_error", "val/eyes_error"} <= set(
        fitted.callback_metrics
    )
    stats = data(root).motion_stats
    np.testing.assert_allclose(whole.gaze.mean, stats.mean[READ])
    before = stage().gaze.state_dict()
    still = [n for n, p in whole.gaze.named_parameters() if torch.equal(p, before[n])]
    assert not still
    _, path = interrupted(stage, lambda: data(root), tmp_path)
    exported = load_component(path, "gaze")
    assert isinstance(exported, GazeNet)
    assert exported.spec == whole.gaze.spec
    again = GazeStage.load_from_checkpoint(path, weights_only=True)
    assert torch.equal(again.gaze.mean, whole.gaze.mean)


def test_errors_of_an_epoch_are_those_of_all_its_frames(root: Path, tmp_path: Path) -> None:
    made, module = stage(), data(root)
    mean, std = (torch.from_numpy(part[READ]) for part in module.motion_stats)
    made.gaze.set_statistics(mean, std)
    logged = trainer(tmp_path, 1).validate(made, datamodule=module, verbose=False)[0]
    module.attach(made.needs())
    module.setup("validate")
    batches = list(module.val_dataloader())
    made.eval()
    with torch.no_grad():
        read = torch.cat([made.predict_step(batch, 0) for batch in batches])
    wanted = torch.cat([batch.motion[:, READ] for batch in batches])
    error = (read - wanted).abs().mean(0)
    spread = (wanted - wanted.mean(0)).square().sum(0)
    r2 = 1 - (read - wanted).square().sum(0) / spread
    assert logged["val/gaze_error"] == pytest.approx(error[2:].mean().item(), rel=1e-4)
    assert logged["val/eyes_error"] == pytest.approx(error[:2].mean().item(), rel=1e-4)
    assert logged["val/gaze_r2"] == pytest.approx(r2[2:].mean().item(), rel=1e-3)


class Told(nn.Module):
    """Stands for a trained network: gives back the tracker's values, clip by clip."""

    def __init__(self, motion: Tensor) -> None:
        super().__init__()
        self.motion, self.at = motion, 0

    def read(self, pictures: Tensor, landmarks: Tensor) -> Tensor:
        self.at += len(pictures)
        return self.motion[self.at - len(pictures) : self.at, READ]


def test_whole_clips_are_compared_with_tracker_and_truth(root: Path, tmp_path: Path) -> None:
    made, module = stage(), data(root)
    rows = module.prepared.rows("test")
    motion = [torch.from_numpy(module.prepared.motion(row)) for row in rows]
    truths = []
    for row, clip in zip(rows, motion, strict=True):
        path = module.clip_truth_path(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = FaceState.neutral(row.frames)
        state.lids[:] = 3.0 * clip[:, -5:-3].numpy()
        state.gaze[:] = -clip[:, -3:-1].numpy()
        zeros, no = np.zeros(row.frames, np.float32), np.zeros(row.frames, np.bool_)
        prosody = Prosody(zeros, zeros, no, no, np.zeros((row.frames, 4), np.float32))
        save_truth(path, state, [], prosody, 0, 0)
        truths.append(path)
    made.gaze = Told(torch.cat(motion))  # type: ignore[assignment]  # a stand-in with one method
    made.test_step = lambda *_: None  # type: ignore[method-assign]
    made._log_epoch = lambda *_: None  # type: ignore[method-assign]
    result = trainer(tmp_path, 1).test(made, datamodule=module, verbose=False)[0]
    assert result["test/gaze_follows_tracker"] == pytest.approx(1.0)
    assert result["test/eyes_follows_tracker"] == pytest.approx(1.0)
    assert result["test/eyes_follows_truth"] == pytest.approx(1.0)
    assert result["test/gaze_follows_truth"] == pytest.approx(-1.0)
    assert result["test/gaze_follows_truth[tracker]"] == pytest.approx(-1.0)
    assert [clip["clip"] for clip in made.per_clip_results] == [row.id for row in rows]
    for path in truths:
        path.unlink()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the stage, trained on other data of the same clock."""
    folder = tmp_path_factory.mktemp("trained")
    fitted = trainer(folder, 1, limit_val_batches=0)
    fitted.fit(stage(), datamodule=data(make_prepared(folder, frames=20, size=SIZE)))
    fitted.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def test_its_checkpoint_measures_the_gaze_term(checkpoint: Path, tmp_path: Path) -> None:
    part = {"perceptual": 0.0, "gaze": 1.0}
    made = disentangle(gaze=str(checkpoint), weights=part)
    assert isinstance(made.gaze, GazeNet)
    made.train()
    assert not made.gaze.training
    batch = window_batch()
    real, fake, landmarks, terms, condition = made.reconstruct(batch)
    assert condition is None
    expected = gaze_loss(load_component(checkpoint, "gaze"), fake, real, landmarks)
    assert terms["gaze"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert terms["gaze"] > 0
    terms["gaze"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in made.generator.parameters())
    frozen = weights(made.gaze)
    fitted = fit(made, window_batch, tmp_path, steps=2)
    assert not moved(made.gaze, frozen)
    # The stage's own checkpoint carries the network on: its source may be gone.
    path = tmp_path / "gan.ckpt"
    fitted.save_checkpoint(path)
    again = LipDisentangleStage.load_from_checkpoint(path, weights_only=True)
    assert isinstance(again.gaze, GazeNet)
    assert torch.equal(weights(again.gaze), frozen)
    assert isinstance(load_component(path, "gaze"), GazeNet)


def test_gaze_term_is_left_out_without_a_network_or_a_weight(checkpoint: Path) -> None:
    part = {"perceptual": 0.0, "gaze": 1.0}
    assert disentangle(weights=part).gaze is None
    assert disentangle(gaze=str(checkpoint)).gaze is None  # the weight is 0 there
    with pytest.raises(ConfigError, match="expected one gaze network, got two"):
        disentangle(gaze=str(checkpoint), gaze_weights="l2cs.pkl", weights=part)


def test_other_checkpoints_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    part = {"perceptual": 0.0, "gaze": 1.0}
    with pytest.raises(StageLinkError, match="no file"):
        disentangle(gaze=str(tmp_path / "absent.ckpt"), weights=part)
    held = torch.load(checkpoint, weights_only=True)
    held["talkhead"]["components"]["gaze"]["class"] = "talkhead.networks.perceptual.GazeFeatures"
    torch.save(held, tmp_path / "other.ckpt")
    with pytest.raises(StageLinkError, match=r"GazeFeatures, expected a .*GazeNet"):
        disentangle(gaze=str(tmp_path / "other.ckpt"), weights=part)


def test_command_line_fits_and_tests(root: Path, run: Any) -> None:
    options = [
        "--model=GazeStage", f"--model.image_size={SIZE}", f"--model.gaze={json.dumps(NET)}",
        "--data=TalkheadDataModule", f"--data.root={root}", "--data.batch_size=4",
        "--data.epoch_items=8", "--trainer.max_steps=2",
    ]  # fmt: skip
    folder = run("fit", *options)
    run("test", *options, f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["stage"] == "gaze"
    assert {"gaze_r2", "gaze_follows_tracker"} <= set(metrics["metrics"])
    assert len(metrics["per_clip"]) == 2


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="GazeNet has no option depth"):
        stage(gaze={"depth": 3})
