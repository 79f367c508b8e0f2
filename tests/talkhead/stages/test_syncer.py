from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from datamodules.base import TalkheadDataModule
from talkhead.batch import SequenceBatch
from talkhead.checkpoint import load_component
from talkhead.errors import ConfigError
from talkhead.losses.sync import sampled_info_nce
from talkhead.networks.mesh_keypoints import MeshKeypoints
from talkhead.networks.syncer import SyncerPyramid
from talkhead.report.units import unit_of
from talkhead.stages.keypoint_features import keypoint_sources
from talkhead.stages.syncer import SyncerStage
from tests.datamodules.fakes import make_prepared
from tests.talkhead.stages.known_delay import KnownDelay
from tests.talkhead.stages.short_runs import Losses, interrupted, trainer

FRAMES = 20
NET: dict[str, Any] = {"levels": 2, "dim": 8, "width": 16, "blocks": 0}


def stage(**options: Any) -> SyncerStage:
    torch.manual_seed(0)
    values = {"run_frames": FRAMES, "hard_negatives": 4, "other_negatives": 6, "syncer": dict(NET)}
    return SyncerStage(**{**values, **options}).train()


def batch(seed: int = 1, rows: int = 4) -> SequenceBatch:
    """Keypoints that tremble, and sound that fades in and out."""
    random = torch.Generator().manual_seed(seed)
    keypoints = torch.randn(rows, 1, 60, generator=random).mul(0.3)
    keypoints = keypoints + 0.03 * torch.randn(rows, FRAMES, 60, generator=random)
    return SequenceBatch(
        features={
            "keypoints": keypoints,
            "keypoints_mirrored": MeshKeypoints().mirror(keypoints),
            "filter_bank": 2 * torch.randn(rows, FRAMES, 104, generator=random) - 8,
        },
        motion=torch.zeros(rows, FRAMES, 1),
        valid=torch.ones(rows, FRAMES, dtype=torch.bool),
        start=torch.arange(rows) % 2 * FRAMES,
        clip=[f"s{i}/c{seed}" for i in range(rows)],
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("syncer"), frames=50, size=16)


def data(root: Path, **options: Any) -> TalkheadDataModule:
    return TalkheadDataModule(str(root), batch_size=4, epoch_items=16, seed=3, **options)


# The bare cosine can only fall from 3.56 to 1.19.
@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"syncer": {**NET, "centre": "window"}, "shift": 0.0, "level": 0.0}, 0.95),
        ({"temperature": 0.1, "learn_temperature": True}, 0.9),
    ],
)
def test_a_tiny_fit_lowers_the_loss_and_moves_everything_but_the_detector(
    options: dict[str, Any], share: float, root: Path, tmp_path: Path
) -> None:
    seed_everything(0)
    made = stage(lr=1e-2, **options)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    frozen = {n: b.clone() for n, b in made.keypoint_detector.named_buffers()}
    noted = Losses()
    fitted = trainer(tmp_path, 50, noted, limit_val_batches=1)
    fitted.fit(made, datamodule=data(root))
    assert sum(noted.values[-6:]) < share * sum(noted.values[:6])
    assert not [n for n, p in made.named_parameters() if torch.equal(p, before[n])]
    assert ("contrasts.1.log_scale" in before) is ("temperature" in options)
    assert frozen
    assert all(torch.equal(b, frozen[n]) for n, b in made.keypoint_detector.named_buffers())
    found = fitted.callback_metrics
    assert {"train/loss/level_200ms", "train/loss/level_400ms"} <= set(found)
    accuracy = [float(found[f"val/pair_accuracy_{scale}ms"]) for scale in (200, 400)]
    assert float(found["val/pair_accuracy"]) == pytest.approx(sum(accuracy) / 2)


def test_a_weight_of_zero_leaves_a_level_alone(root: Path, tmp_path: Path) -> None:
    made = stage(lr=1e-2, weights={"level_400ms": 0.0}, weight_decay=0.0)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    trainer(tmp_path, 2, limit_val_batches=0).fit(made, datamodule=data(root))
    moved = {n.split(".")[2] for n, p in made.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"0"}


def test_fine_levels_take_their_own_run_and_coarse_ones_the_others() -> None:
    given = batch()
    same: dict[str, Any] = {"flip": False, "scale": 0.0, "shift": 0.0, "level": 0.0}
    made = stage(
        hard_negatives=None, other_negatives=None, min_gap_frames=3, temperature=0.5, **same
    )
    with torch.no_grad():
        found = made.losses(given)
        levels = made.syncer(*_read(given))
    expected = [
        sampled_info_nce(audio, points, from_others=others, scale=2.0, min_gap=gap)
        for (points, audio), others, gap in zip(levels, (False, True), (3, 1), strict=True)
    ]
    assert list(found) == ["level_200ms", "level_400ms"]
    torch.testing.assert_close(torch.stack([*found.values()]), torch.stack(expected))
    with torch.no_grad():
        alone = stage(levels_from_others=0, hard_negatives=None, **same).losses(given)
    own = [sampled_info_nce(audio, points) for points, audio in levels]
    torch.testing.assert_close(torch.stack([*alone.values()]), torch.stack(own))


def _read(given: SequenceBatch) -> tuple[Tensor, Tensor]:
    """Smoothed by hand, four steps of sound a frame."""
    rows = given.features["keypoints"]
    padded = torch.cat([rows[:, :1], rows, rows[:, -1:]], dim=1)
    smooth = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    return smooth, given.features["filter_bank"].reshape(len(rows), 4 * FRAMES, 26)


def test_variations_are_for_training_only() -> None:
    made, given = stage(), batch()
    for seed, same in ((3, True), (4, False)):
        torch.manual_seed(3)
        first = made.losses(given)["level_200ms"]
        torch.manual_seed(seed)
        assert torch.equal(made.losses(given)["level_200ms"], first) is same
    made.eval()
    ours = made.predict_step(given, 0)
    for (points, audio), (seen, heard) in zip(ours, made.syncer(*_read(given)), strict=True):
        torch.testing.assert_close(points, seen)
        torch.testing.assert_close(audio, heard)
    assert torch.equal(made.losses(given)["level_400ms"], made.losses(given)["level_400ms"])


@pytest.mark.parametrize("late", [0, 2])
def test_a_known_delay_is_reported_for_real_runs_and_not_for_shuffled_ones(
    late: int, root: Path, tmp_path: Path
) -> None:
    made, module = stage(), data(root)
    made.syncer = KnownDelay(late)  # type: ignore[assignment]  # a stand-in with the same two
    result = trainer(tmp_path, 1).test(made, datamodule=module, verbose=False)[0]
    for scale, ms in ((200, 40), (400, 80)):
        gt = {name: result[f"test/gt/av_{name}_{scale}ms[syncer]"] for name in
              ("offset", "offset_std", "offset_in_ms", "confidence", "pair_accuracy")}  # fmt: skip
        assert (gt["offset"], gt["offset_std"], gt["offset_in_ms"]) == (late, 0, late * ms)
        shuffled = {name: result[f"test/shuffled/av_{name}_{scale}ms[syncer]"] for name in
                    ("confidence", "pair_accuracy")}  # fmt: skip
        assert gt["confidence"] > 1.5 * shuffled["confidence"]
        assert shuffled["pair_accuracy"] == pytest.approx(0.5, abs=0.2)
        assert late or gt["pair_accuracy"] == 1.0
    unnamed = [name for name in result if not unit_of(name.removeprefix("test/"))]
    assert all("loss" in name for name in unnamed)
    # 50 frames hold two whole runs.
    rows = module.prepared.rows("test")
    assert [(row["clip"], row["start"]) for row in made.per_clip_results] == [
        (row.id, start) for row in rows for start in (0, FRAMES)
    ]
    assert {(row["offset_200ms"], row["offset_400ms"]) for row in made.per_clip_results} == {
        (late, late)
    }


def test_batches_do_not_change_the_scores(root: Path, tmp_path: Path) -> None:
    scores = [
        trainer(tmp_path, 1).test(
            stage(), datamodule=data(root, eval_batch_size=size), verbose=False
        )[0]
        for size in (4, 3)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=2e-3)
    assert scores[0]["test/loss"] == pytest.approx(scores[1]["test/loss"], rel=1e-5)


def test_coarse_levels_are_searched_as_far_as_they_go() -> None:
    made = stage(run_frames=80, syncer={**NET, "levels": 4}, hard_negatives=12)
    assert made.offsets.own.max_shift == [15, 15, 15, 5]
    assert [contrast.negatives for contrast in made.contrasts] == [12, 12, 12, 6]
    assert [contrast.from_others for contrast in made.contrasts] == [False, False, False, True]


def test_export_reload_and_resume(root: Path, tmp_path: Path) -> None:
    half, path = interrupted(lambda: stage(lr=1e-3), lambda: data(root), tmp_path)
    exported = load_component(path, "syncer")
    assert isinstance(exported, SyncerPyramid)
    assert exported.spec == half.syncer.spec
    assert isinstance(load_component(path, "keypoint_detector"), MeshKeypoints)
    again = SyncerStage.load_from_checkpoint(path, weights_only=True)
    # The keypoints of a checkpoint are those its syncer was trained on.
    other = stage(keypoint_detector=str(path))
    assert other.keypoint_detector.origin is not None
    assert [s.digest for s in keypoint_sources(other.keypoint_detector).values()] == [
        s.digest for s in again.feature_sources().values()
    ]
    given = batch()
    for mine, theirs in zip(
        again.eval().predict_step(given, 0), half.eval().predict_step(given, 0), strict=True
    ):
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])


def test_command_line_fits_and_tests(root: Path, tmp_path: Path, run: Any) -> None:
    options = [
        "--model=SyncerStage", f"--model.run_frames={FRAMES}", "--model.hard_negatives=4",
        "--model.other_negatives=6", f"--model.syncer={json.dumps(NET)}", "--data=TalkheadDataModule",
        f"--data.root={root}", "--data.batch_size=2", "--data.epoch_items=4", "--trainer.max_steps=2",
    ]  # fmt: skip
    folder = run("fit", *options)
    run("test", *options, f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["stage"] == "syncer"
    assert "gt/av_offset_200ms[syncer]" in metrics["metrics"]
    assert "shuffled/av_pair_accuracy_400ms[syncer]" in metrics["metrics"]
    assert [row["start"] for row in metrics["per_clip"]] == [0, 20, 0, 20]
    units = metrics["settings"]["units"]
    assert units["gt/av_offset_200ms[syncer]"] == "frames of 40 ms"
    assert units["gt/av_pair_accuracy_400ms[syncer]"] == "share"


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="SyncerPyramid has no option depth"):
        stage(syncer={"depth": 3})
    with pytest.raises(ConfigError, match="no loss term level_100ms"):
        stage(weights={"level_100ms": 1.0})
    # 20 frames have 16 windows of 200 ms, the middle ones 11 others at least three away.
    assert stage(hard_negatives=11, min_gap_frames=3).needs().length == FRAMES
    with pytest.raises(
        ConfigError, match="12 false partners of each of the 16 windows of 200 ms, got 11"
    ):
        stage(hard_negatives=12, min_gap_frames=3)
    with pytest.raises(ConfigError, match="of the 1 windows of 400 ms"):
        stage(run_frames=9, hard_negatives=2)
    with pytest.raises(ConfigError, match=r"levels_from_others: expected 0 to 2, got 3"):
        stage(levels_from_others=3)
