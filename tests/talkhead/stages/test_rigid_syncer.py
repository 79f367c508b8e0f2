from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything

from datamodules.base import TalkheadDataModule
from talkhead.batch import LandmarkBatch
from talkhead.checkpoint import load_component
from talkhead.errors import ConfigError
from talkhead.geometry.points68 import ibug_points
from talkhead.metrics.rigid_offset import rigid_offsets
from talkhead.networks.rigid_syncer import RigidSyncer
from talkhead.stages.rigid_syncer import RigidSyncerStage
from tests.datamodules.fakes import make_prepared
from tests.talkhead.metrics.landmark_faces import noisy
from tests.talkhead.stages.known_delay import KnownDelay
from tests.talkhead.stages.short_runs import Losses, interrupted, trainer

FRAMES, LEVELS, SHIFT = 20, 2, 5
NET: dict[str, Any] = {"levels": LEVELS, "dim": 8, "width": 16, "blocks": 1}


def stage(**options: Any) -> RigidSyncerStage:
    torch.manual_seed(0)
    values = {"run_frames": FRAMES, "max_shift": SHIFT, "rigid_syncer": dict(NET), **options}
    return RigidSyncerStage(**values).train()


def batch(seed: int = 1, rows: int = 4) -> LandmarkBatch:
    random = torch.Generator().manual_seed(seed)
    return LandmarkBatch(
        points=noisy(rows, FRAMES, seed).float(),
        filter_bank=torch.randn(rows, 4 * FRAMES, 26, generator=random) - 8,
        start=torch.arange(rows) % 2 * FRAMES,
        clip=[f"s{i}/c{seed}" for i in range(rows)],
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("rigid"), frames=50, size=16)


def data(root: Path, **options: Any) -> TalkheadDataModule:
    return TalkheadDataModule(str(root), batch_size=4, epoch_items=16, seed=3, **options)


@pytest.mark.parametrize(
    "options", [{"mining": "all"}, {"mining": "semi_hard"}, {"loss": "info_nce"}]
)
def test_a_tiny_fit_lowers_the_loss_and_moves_everything(
    options: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    seed_everything(0)
    made = stage(lr=3e-3, **options)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    noted = Losses()
    fitted = trainer(tmp_path, 60, noted, limit_val_batches=1)
    fitted.fit(made, datamodule=data(root))
    assert sum(noted.values[-6:]) < 0.9 * sum(noted.values[:6])
    assert not [n for n, p in made.named_parameters() if torch.equal(p, before[n])]
    assert ("info_nce.1.log_scale" in before) is (options.get("loss") == "info_nce")
    found = fitted.callback_metrics
    assert {"train/loss/level_200ms", "train/loss/level_400ms"} <= set(found)
    accuracy = [float(found[f"val/pair_accuracy_{scale}ms"]) for scale in (200, 400)]
    assert float(found["val/pair_accuracy"]) == pytest.approx(sum(accuracy) / 2)
    assert 0.0 <= min(accuracy) <= max(accuracy) <= 1.0


def test_a_weight_of_zero_leaves_a_level_alone(root: Path, tmp_path: Path) -> None:
    made = stage(lr=1e-2, weights={"level_400ms": 0.0}, weight_decay=0.0)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    trainer(tmp_path, 2, limit_val_batches=0).fit(made, datamodule=data(root))
    moved = {n.split(".")[2] for n, p in made.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"0"}


@pytest.mark.parametrize("late", [0, 2, -1])
def test_a_known_delay_is_reported_for_real_runs_and_not_for_shuffled_ones(
    late: int, root: Path, tmp_path: Path
) -> None:
    made, module = stage(edges="balanced"), data(root)
    made.rigid_syncer = KnownDelay(late)  # type: ignore[assignment]  # a stand-in with the same two
    result = trainer(tmp_path, 1).test(made, datamodule=module, verbose=False)[0]
    for scale, ms in ((200, 40), (400, 80)):
        gt = {name: result[f"test/gt/rigid_{name}_{scale}ms[rigid_syncer]"] for name in
              ("offset", "offset_std", "offset_in_ms", "confidence")}  # fmt: skip
        assert gt["offset"] == abs(late)
        assert gt["offset_std"] == 0
        assert gt["offset_in_ms"] == abs(late) * ms
        shuffled = result[f"test/shuffled/rigid_confidence_{scale}ms[rigid_syncer]"]
        assert gt["confidence"] > 1.5 * shuffled
    # 50 frames hold two whole runs.
    rows = module.prepared.rows("test")
    assert [(row["clip"], row["start"]) for row in made.per_clip_results] == [
        (row.id, start) for row in rows for start in (0, FRAMES)
    ]
    assert {(row["offset_200ms"], row["offset_400ms"]) for row in made.per_clip_results} == {
        (late, late)
    }


def test_sound_is_shuffled_between_clips_only(root: Path, tmp_path: Path) -> None:
    """With a single clip there is no other sound, and so no such number."""
    single = make_prepared(tmp_path, clips=1, frames=50, size=16)
    result = trainer(tmp_path, 1).test(stage(), datamodule=data(single), verbose=False)[0]
    assert not [name for name in result if "shuffled" in name]
    assert "test/gt/rigid_offset_200ms[rigid_syncer]" in result
    several = trainer(tmp_path, 1).test(stage(), datamodule=data(root), verbose=False)[0]
    assert "test/shuffled/rigid_offset_200ms[rigid_syncer]" in several


def test_batches_do_not_change_the_scores(root: Path, tmp_path: Path) -> None:
    scores = [
        trainer(tmp_path, 1).test(
            stage(), datamodule=data(root, eval_batch_size=size), verbose=False
        )[0]
        for size in (4, 3)
    ]
    offsets = [{k: v for k, v in found.items() if "offset" in k} for found in scores]
    assert len(offsets[0]) == 12
    assert offsets[0] == offsets[1]


def test_a_clip_scored_alone_has_the_offsets_of_the_test(root: Path, tmp_path: Path) -> None:
    made, module = stage(), data(root)
    trainer(tmp_path, 1).test(made, datamodule=module, verbose=False)
    row = module.prepared.rows("test")[1]
    points = ibug_points(torch.from_numpy(module.prepared.landmarks(row)))
    wave = torch.from_numpy(module.prepared.audio(row)).float() / 32768
    alone = made.rigid_syncer.eval().embed_clip(points, wave, FRAMES)
    found = rigid_offsets(alone, max_shift=SHIFT).offset.tolist()
    mine = [r for r in made.per_clip_results if r["clip"] == row.id]
    assert [[r["offset_200ms"], r["offset_400ms"]] for r in mine] == found


def test_the_mirror_is_for_training_only() -> None:
    made = stage(max_gap_frames=5, min_gap_frames=2)
    torch.manual_seed(3)
    seen = made.losses(batch())["level_200ms"]
    torch.manual_seed(3)
    assert torch.equal(made.losses(batch())["level_200ms"], seen)
    plain = stage(max_gap_frames=5, min_gap_frames=2, mirror=False)
    assert not torch.equal(plain.losses(batch())["level_200ms"], seen)
    assert torch.equal(
        plain.eval().losses(batch())["level_200ms"], made.eval().losses(batch())["level_200ms"]
    )


def test_export_reload_and_resume(root: Path, tmp_path: Path) -> None:
    half, path = interrupted(lambda: stage(lr=1e-3), lambda: data(root), tmp_path)
    exported = load_component(path, "rigid_syncer")
    assert isinstance(exported, RigidSyncer)
    assert exported.spec == half.rigid_syncer.spec
    again = RigidSyncerStage.load_from_checkpoint(path, weights_only=True)
    given = batch()
    ours = again.eval().predict_step(given, 0)
    for mine, theirs in zip(ours, half.eval().predict_step(given, 0), strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])


def test_command_line_fits_and_tests(root: Path, tmp_path: Path, run: Any) -> None:
    options = [
        "--model=RigidSyncerStage", f"--model.run_frames={FRAMES}", f"--model.max_shift={SHIFT}",
        f"--model.rigid_syncer={json.dumps(NET)}", "--data=TalkheadDataModule", f"--data.root={root}",
        "--data.batch_size=2", "--data.epoch_items=4", "--trainer.max_steps=2",
    ]  # fmt: skip
    folder = run("fit", *options)
    run("test", *options, f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["stage"] == "rigid_syncer"
    assert "gt/rigid_offset_200ms[rigid_syncer]" in metrics["metrics"]
    assert "shuffled/rigid_offset_in_ms_400ms[rigid_syncer]" in metrics["metrics"]
    assert [row["start"] for row in metrics["per_clip"]] == [0, 20, 0, 20]
    settings = metrics["settings"]
    assert (settings["fps"], settings["sample_rate_hz"]) == (25, 16000)
    assert settings["crop"].endswith("px, fixed_box:0.5")
    assert settings["units"]["gt/rigid_offset_200ms[rigid_syncer]"] == "frames of 40 ms"
    lines = (folder / "per_clip.csv").read_text().splitlines()
    assert lines[0].startswith("clip,start,offset_200ms")
    assert len(lines) == 5


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="RigidSyncer has no option depth"):
        stage(rigid_syncer={"depth": 3})
    with pytest.raises(ConfigError, match="no loss term level_100ms"):
        stage(weights={"level_100ms": 1.0})
    # 76 frames leave 15 windows on the third level.
    with pytest.raises(ConfigError, match=r"got 15 on the coarsest; use runs of 77 frames"):
        stage(run_frames=76, max_shift=15, rigid_syncer={"levels": 3})
    assert stage(run_frames=77, max_shift=15, rigid_syncer={"levels": 3}).needs().length == 77
    with pytest.raises(ConfigError, match="info_nce takes all windows"):
        stage(loss="info_nce", max_gap_frames=4)
