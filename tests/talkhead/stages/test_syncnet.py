from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn

from datamodules.base import TalkheadDataModule
from talkhead.batch import SyncBatch
from talkhead.checkpoint import load_component, read_checkpoint
from talkhead.errors import ConfigError
from talkhead.metrics.sync_scores import sync_scores
from talkhead.networks import syncnet
from talkhead.networks.syncnet import SyncNet
from talkhead.stages.sync_clips import delayed
from talkhead.stages.syncnet import SyncNetStage
from tests.datamodules.fakes import make_prepared
from tests.talkhead.stages.short_runs import Losses, interrupted, trainer

SIZE, WINDOWS, ROWS = 32, 4, 2
NET: dict[str, Any] = {
    "dim": 16, "hidden": 16, "stem_stride": 1,
    "lip_widths": [8, 8, 8, 8, 8, 16], "audio_widths": [8, 8, 8, 8, 8, 16],
}  # fmt: skip


def stage(**options: Any) -> SyncNetStage:
    torch.manual_seed(0)
    values = {"image_size": SIZE, "windows": WINDOWS, "syncnet": dict(NET), **options}
    return SyncNetStage(**values).train()


def batch(seed: int = 1) -> SyncBatch:
    random = torch.Generator().manual_seed(seed)
    shape = (2 * ROWS, WINDOWS)
    frames = torch.randint(256, (*shape, 5, 3, SIZE, SIZE), generator=random, dtype=torch.uint8)
    return SyncBatch(
        frames=frames,
        mfcc=5 * torch.randn(*shape, 1, 13, 20, generator=random),
        frame_index=torch.arange(WINDOWS).expand(shape),
        clip=[str(i) for i in range(2 * ROWS)],
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("sync"), frames=70, size=SIZE)


def data(root: Path, **options: Any) -> TalkheadDataModule:
    return TalkheadDataModule(str(root), batch_size=2, epoch_items=8, seed=3, **options)


@pytest.mark.parametrize("loss", ["info_nce", "margin"])
def test_a_tiny_fit_lowers_the_loss_and_moves_everything(
    loss: str, root: Path, tmp_path: Path
) -> None:
    seed_everything(0)
    made = stage(loss=loss, windows=8, lr=3e-3)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    assert all(p.requires_grad for p in made.parameters())
    noted = Losses()
    fitted = trainer(tmp_path, 40, noted, limit_val_batches=1)
    fitted.fit(made, datamodule=data(root))
    assert sum(noted.values[-6:]) < 0.85 * sum(noted.values[:6])
    # Biases before a batch norm have no gradient but rounding; every weight has one.
    still = [n for n, p in made.named_parameters() if torch.equal(p, before[n])]
    assert not [n for n in still if n.endswith("weight")]
    assert ("info_nce.log_scale" in before) is (loss == "info_nce")
    found = fitted.callback_metrics
    assert 0 <= found["val/retrieval_top1"] <= 1
    assert found["val/retrieval_chance"] == 1 / 8
    assert {"val/offset_within", "val/gt/sync_confidence[syncnet]"} <= set(found)


@pytest.mark.parametrize("augment", [False, True])
def test_clips_get_another_look_in_training_only_and_only_if_asked(
    augment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, given = stage(augment=augment), batch()
    looks: list[torch.Size] = []

    def look(clips: Tensor) -> Tensor:
        looks.append(clips.shape)
        return clips.flip(-1)

    monkeypatch.setattr("talkhead.stages.syncnet.another_look", look)
    mirrored = replace(given, frames=given.frames.flip(-1))
    made.eval()
    with torch.no_grad():
        expected = made.embed(mirrored if augment else given)[0]
        assert not looks
        made.training = True  # the stage, but no batch norm of its network
        seen = made.embed(given)[0]
    assert looks == [torch.Size([2 * ROWS, WINDOWS * 5, 3, SIZE, SIZE])] * augment
    torch.testing.assert_close(seen, expected)


class Loudness(nn.Module):
    """Stands for a trained network: what both branches see of the loudness, one window each."""

    judge = "syncnet"

    def __init__(self, late: int) -> None:
        super().__init__()
        self.late = late
        content = torch.Generator().manual_seed(0)
        self.content = torch.randn(200, 8, generator=content)
        self.pictures, self.sounds = 20, 20

    def visual(self, pictures: Tensor) -> Tensor:
        count = pictures.shape[1] - 4
        self.pictures += count
        return self.content[None, self.pictures - count : self.pictures]

    def audio(self, mfcc: Tensor) -> Tensor:
        self.sounds += len(mfcc)
        return self.content[self.sounds - len(mfcc) - self.late : self.sounds - self.late]


@pytest.mark.parametrize("late", [0, 2])
def test_known_shifts_of_whole_clips_are_recovered(late: int, root: Path, tmp_path: Path) -> None:
    made = stage()
    made.syncnet = Loudness(late)  # type: ignore[assignment]  # a stand-in with the same two methods
    made.validation_step = made.test_step = lambda *_: None  # type: ignore[method-assign]
    module = data(root)
    result = trainer(tmp_path, 1).test(made, datamodule=module, verbose=False)[0]
    # Whatever the sound lags already adds to every known shift.
    assert result["test/offset_mean_error"] == late
    assert result["test/offset_within"] == (1.0 if late <= 1 else 0.0)
    assert result["test/gt/sync_offset[syncnet]"] == late
    clips = made.per_clip_results
    assert [row["clip"] for row in clips] == [row.id for row in module.prepared.rows("test")]
    assert [row["offset"] for row in clips] == [-late] * 2
    assert {"lse_d", "lse_c"} <= set(clips[0])


def test_delaying_sound_by_hand() -> None:
    clip = torch.arange(6.0)[:, None]
    late, seen = delayed(clip, clip, 2)
    # Two frames late: the picture of frame 2 meets the sound of frame 0.
    assert (late[0].item(), seen[0].item(), len(late)) == (0.0, 2.0, 4)
    early, seen = delayed(clip, clip, -2)
    assert (early[0].item(), seen[0].item(), len(early)) == (2.0, 0.0, 4)
    content = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    for shift in (-10, 0, 10):
        late, seen = delayed(content, content, shift)
        assert sync_scores(seen, late).offset.item() == -shift


def test_whole_clips_are_encoded_as_their_windows_are(root: Path) -> None:
    made, module = stage().eval(), data(root)
    row = module.prepared.rows("test")[0]
    visual, audio = made.encode(module.prepared, row)
    assert visual.shape == audio.shape == (row.frames - 5, 16)
    module.attach(made.needs())
    module.setup("test")
    sample = next(iter(module.test_dataloader()))
    with torch.no_grad():
        seen, heard = made.embed(sample)
    assert sample.clip[0] == row.id
    at = sample.frame_index[0]
    torch.testing.assert_close(visual[at], seen[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(audio[at], heard[0], rtol=1e-3, atol=1e-4)


def test_clips_too_short_to_shift_are_not_scored(tmp_path: Path) -> None:
    short = make_prepared(tmp_path, clips=1, frames=29, size=SIZE)
    made = stage()
    result = trainer(tmp_path, 1).test(made, datamodule=data(short), verbose=False)[0]
    assert not [name for name in result if "sync" in name or "offset" in name]
    assert made.per_clip_results == []


def test_export_reload_and_resume(root: Path, tmp_path: Path) -> None:
    half, path = interrupted(lambda: stage(lr=1e-3), lambda: data(root), tmp_path)
    exported = load_component(path, "syncnet")
    assert isinstance(exported, SyncNet)
    assert exported.spec["image_size"] == SIZE
    assert all(
        torch.equal(v, half.syncnet.state_dict()[k]) for k, v in exported.state_dict().items()
    )
    again = SyncNetStage.load_from_checkpoint(path, weights_only=True)
    assert again.syncnet.spec == half.syncnet.spec
    assert torch.equal(again.eval().embed(batch())[0], half.eval().embed(batch())[0])


def test_published_weights_judge_under_their_name_until_they_are_trained(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "w.model"
    torch.save(stage().syncnet.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(syncnet, "SYNCNET_V2_SHA256", digest)
    made = stage(syncnet={**NET, "weights_path": str(file)})
    result = trainer(tmp_path, 1).test(made, datamodule=data(root), verbose=False)[0]
    assert "test/gt/sync_distance[syncnet_v2]" in result
    run = trainer(tmp_path, 1, limit_val_batches=0)
    run.fit(made, datamodule=data(root))
    run.save_checkpoint(tmp_path / "last.ckpt")
    file.unlink()
    saved = read_checkpoint(tmp_path / "last.ckpt")["hyper_parameters"]["syncnet"]
    assert "weights_path" not in saved
    again = SyncNetStage.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.syncnet.provenance == f"trained from file:{digest}"
    result = trainer(tmp_path, 1).test(again, datamodule=data(root), verbose=False)[0]
    assert "test/gt/sync_distance[syncnet]" in result


def test_command_line_fits_and_tests(root: Path, tmp_path: Path, run: Any) -> None:
    options = [
        "--model=SyncNetStage", f"--model.image_size={SIZE}", "--model.windows=4",
        f"--model.syncnet={json.dumps(NET)}", "--data=TalkheadDataModule", f"--data.root={root}",
        "--data.batch_size=2", "--data.epoch_items=4", "--trainer.max_steps=2",
    ]  # fmt: skip
    folder = run("fit", *options)
    run("test", *options, f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["stage"] == "syncnet"
    assert "gt/sync_confidence[syncnet]" in metrics["metrics"]
    assert len(metrics["per_clip"]) == 2


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="SyncNet has no option depth"):
        stage(syncnet={"depth": 3})
    with pytest.raises(ConfigError, match="no loss term sync"):
        stage(weights={"sync": 1.0})
