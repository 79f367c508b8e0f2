from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from datamodules.base import TalkheadDataModule
from talkhead.audio import hubert
from talkhead.batch import SpeechRunBatch, to_float
from talkhead.checkpoint import load_component, read_checkpoint
from talkhead.errors import ConfigError
from talkhead.losses.lip_sync import lip_sync_loss
from talkhead.metrics.sync_scores import sync_scores
from talkhead.networks.sync_expert import SyncExpert
from talkhead.stages.lip_sync_expert import LipSyncExpertStage, embed_track
from tests.datamodules.fakes import make_prepared
from tests.talkhead.audio.test_hubert import tiny
from tests.talkhead.stages.short_runs import Losses, interrupted, trainer

SIZE, RUNS, ROWS, DIM = 32, 4, 2, 8
NET: dict[str, Any] = {
    "side": 16, "dim": DIM, "audio_widths": [16], "video_widths": [8, 16], "blocks": 1, "dropout": 0.0,
}  # fmt: skip


def stage(**options: Any) -> LipSyncExpertStage:
    torch.manual_seed(0)
    values = {"front": "mel", "image_size": SIZE, "runs": RUNS, "sync_expert": dict(NET), **options}
    return LipSyncExpertStage(**values).train()


def batch(seed: int = 1, runs: int = RUNS) -> SpeechRunBatch:
    random = torch.Generator().manual_seed(seed)
    shape = (2 * ROWS, runs)
    return SpeechRunBatch(
        frames=torch.randint(256, (*shape, 9, 3, SIZE, SIZE), generator=random, dtype=torch.uint8),
        points=torch.rand(*shape, 9, 68, 2, generator=random),
        speech=torch.rand(*shape, 18, 160, generator=random),
        frame_speech=torch.empty(*shape, 0, 18, 160),
        frame_index=10 * torch.arange(runs).expand(shape),
        clip=[str(i) for i in range(2 * ROWS)],
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("expert"), frames=70, size=SIZE)


def data(root: Path, **options: Any) -> TalkheadDataModule:
    return TalkheadDataModule(str(root), batch_size=2, epoch_items=8, seed=3, **options)


@pytest.mark.parametrize("loss", ["info_nce", "bce"])
def test_a_tiny_fit_lowers_the_loss_and_moves_everything(
    loss: str, root: Path, tmp_path: Path
) -> None:
    seed_everything(0)
    made = stage(loss=loss, runs=8, lr=3e-3)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    noted = Losses()
    fitted = trainer(tmp_path, 40, noted, limit_val_batches=1)
    fitted.fit(made, datamodule=data(root))
    assert sum(noted.values[-6:]) < 0.97 * sum(noted.values[:6])
    still = [n for n, p in made.named_parameters() if torch.equal(p, before[n])]
    assert not [n for n in still if n.endswith("weight")]
    found = fitted.callback_metrics
    # Binary decisions need longer than this to hold on another speaker.
    assert found["val/sync_accuracy"] > (0.5 if loss == "info_nce" else 0.0)
    names = {"val/offset_within", "val/gt/sync_confidence[sync_expert]", "val/verdicts"}
    assert names | {"train/cosine_true", "train/lips_off"} <= set(found)
    assert made.sync_expert.spec["front_digest"] == made.front.digest()


@pytest.mark.parametrize(("loss", "share"), [("bce", 0.5), ("bce", 0.2), ("one_minus_cosine", 0.5)])
def test_the_loss_weighs_true_and_false_pairs(loss: str, share: float) -> None:
    made = stage(loss=loss, negative_share=share).eval()
    given = batch()
    audio, video = (x.flatten(0, 1) for x in made.embed(given))
    # In evaluation the false partner lies half-way round the clip.
    other = audio.unflatten(0, (-1, RUNS)).roll(-RUNS // 2, 1).flatten(0, 1)
    count = len(audio)
    true = lip_sync_loss(audio, video, torch.ones(count), loss)  # type: ignore[arg-type]  # parametrised
    false = lip_sync_loss(other, video, torch.zeros(count), loss)  # type: ignore[arg-type]
    wanted = (1 - share) * true + share * false
    torch.testing.assert_close(made.losses(given)["sync"], wanted)


def test_training_meets_every_other_run_of_the_clip_and_never_its_own() -> None:
    made = stage()
    partners = torch.stack([made._partners(5, RUNS) for _ in range(60)])
    assert not (partners == torch.arange(RUNS)).any()
    assert {tuple(pair) for row in partners.flatten(0, 1) for pair in enumerate(row.tolist())} == {
        (i, j) for i in range(RUNS) for j in range(RUNS) if i != j
    }


def test_the_blind_loss_is_that_of_a_constant_cosine() -> None:
    assert stage().blind_loss == pytest.approx(math.log(2))
    assert stage(loss="info_nce").blind_loss == pytest.approx(math.log(RUNS))
    for share in (0.5, 0.3):
        entropy = min(
            -(1 - share) * math.log(c) - share * math.log(1 - c)
            for c in torch.linspace(0.01, 0.99, 99, dtype=torch.float64).tolist()
        )
        assert stage(negative_share=share).blind_loss == pytest.approx(entropy)
        assert stage(loss="one_minus_cosine", negative_share=share).blind_loss == pytest.approx(
            share
        )


@pytest.mark.parametrize("augment", [False, True])
def test_mouths_get_another_look_in_training_only_and_only_if_asked(
    augment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, looks = stage(augment=augment), []

    def look(clips: Tensor) -> Tensor:
        looks.append(clips.shape)
        return clips

    monkeypatch.setattr("talkhead.stages.lip_sync_expert.another_look", look)
    made.eval().embed(batch())
    assert not looks
    made.train().embed(batch())
    assert looks == [torch.Size([2 * ROWS * RUNS, 9, 3, 16, 16])] * augment


def test_whole_clips_are_encoded_as_their_runs_are(root: Path, tmp_path: Path) -> None:
    made, module = stage().eval(), data(root)
    result = trainer(tmp_path, 1).test(made, datamodule=module, verbose=False)[0]
    assert {"test/sync_accuracy", "test/offset_within", "test/gt/sync_offset[sync_expert]"} <= set(
        result
    )
    assert [row["clip"] for row in made.per_clip_results] == [
        row.id for row in module.prepared.rows("test")
    ]
    row = module.prepared.rows("test")[0]
    visual, audio = made.encode(module.prepared, row)
    assert visual.shape == audio.shape == (70 - 8, DIM)
    torch.testing.assert_close(visual.norm(dim=1), torch.ones(62))
    sample = next(iter(module.test_dataloader()))
    with torch.no_grad():
        heard, seen = made.embed(sample)
    unit = torch.nn.functional.normalize
    at = sample.frame_index[0]
    torch.testing.assert_close(visual[at], unit(seen[0], dim=-1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(audio[at], unit(heard[0], dim=-1), rtol=1e-3, atol=1e-3)


class Content(SyncExpert):
    """Stands for a trained expert: speech and mouths both say which step of the clip they are."""

    codes = torch.rand(400, DIM, generator=torch.Generator().manual_seed(0))

    def audio(self, windows: Tensor) -> Tensor:
        return self.codes[windows[:, 0, 0].long()]

    def video(self, mouths: Tensor) -> Tensor:
        return self.codes[mouths[:, 0, 0, 0, 0].round().long()]


@pytest.mark.parametrize("late", [-3, 0, 2])
def test_a_track_shows_by_how_much_its_sound_is_late(late: int) -> None:
    expert = Content(feature_dim=1, **NET).eval()
    frames = torch.arange(80.0)
    pictures = (2 * (frames + 20))[:, None, None, None].expand(80, 3, 8, 8)
    features = 2 * (20.0 - late) + torch.arange(160.0)[:, None]
    visual, audio = embed_track(
        expert, lambda at: pictures[list(at)], torch.rand(80, 68, 2), features, torch.device("cpu")
    )
    assert len(visual) == len(audio) == 72
    assert sync_scores(visual, audio).offset.item() == -late
    none, _ = embed_track(
        expert, lambda at: pictures[list(at)], torch.rand(8, 68, 2), features, torch.device("cpu")
    )
    assert none.shape == (0, DIM)


def test_export_reload_and_resume(root: Path, tmp_path: Path) -> None:
    half, path = interrupted(
        lambda: stage(lr=1e-3, augment=True, sync_expert={**NET, "dropout": 0.1}),
        lambda: data(root),
        tmp_path,
    )
    exported = load_component(path, "sync_expert")
    assert isinstance(exported, SyncExpert)
    assert exported.front_digest == half.front.digest()
    assert (exported.front, exported.frames, exported.feature_dim) == ("mel", 9, 160)
    own = half.sync_expert.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in exported.state_dict().items())
    again = LipSyncExpertStage.load_from_checkpoint(path, weights_only=True)
    assert again.sync_expert.spec == half.sync_expert.spec
    assert torch.equal(again.eval().embed(batch())[0], half.eval().embed(batch())[0])


def test_hubert_features_are_cached_and_then_need_no_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubert, "hubert_base", lambda: tiny("base"))
    monkeypatch.setitem(hubert.WIDTHS, "base", 24)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    file = tmp_path / "hubert.pth"
    torch.save(tiny("base").state_dict(), file)
    made = stage(front="hubert", hubert={"kind": "base", "weights_path": str(file)})
    run = trainer(tmp_path, 2, limit_val_batches=0)
    run.fit(made, datamodule=data(root))
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert made.sync_expert.feature_dim == 24
    file.unlink()
    saved = read_checkpoint(tmp_path / "last.ckpt")["hyper_parameters"]
    assert saved["hubert"] == {"kind": "base"}
    assert saved["sync_expert"]["front_kind"] == "base"
    again = LipSyncExpertStage.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    result = trainer(tmp_path, 1).test(again, datamodule=data(root), verbose=False)[0]
    assert "test/sync_accuracy" in result
    with pytest.raises(ConfigError, match="expected the weights of HuBERT base"):
        stage(front="hubert", hubert={"kind": "base"}).feature_sources()


def test_command_line_fits_and_tests(root: Path, tmp_path: Path, run: Any) -> None:
    options = [
        "--model=LipSyncExpertStage", "--model.front=mel", f"--model.image_size={SIZE}",
        "--model.runs=3", f"--model.sync_expert={json.dumps(NET)}", "--data=TalkheadDataModule",
        f"--data.root={root}", "--data.batch_size=2", "--data.epoch_items=4", "--trainer.max_steps=2",
        "--trainer.callbacks=PlateauWatch", "--trainer.callbacks.patience=2",
        "--trainer.callbacks.window=1",
    ]  # fmt: skip
    folder = run("fit", *options)
    run("test", *options, f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["stage"] == "lip_sync_expert"
    assert "gt/sync_confidence[sync_expert]" in metrics["metrics"]
    assert len(metrics["per_clip"]) == 2


def test_dark_pictures_and_silence_give_finite_losses() -> None:
    given = batch()
    blank = replace(
        given, frames=torch.zeros_like(given.frames), speech=torch.zeros_like(given.speech)
    )
    for loss in ("bce", "one_minus_cosine", "info_nce"):
        assert stage(loss=loss).losses(blank)["sync"].isfinite()
    assert to_float(blank.frames).max() == -1


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected runs >= 2"):
        stage(runs=1)
    with pytest.raises(ConfigError, match="0 < negative_share < 1"):
        stage(negative_share=1.0)
    with pytest.raises(ConfigError, match="SyncExpert has no option depth"):
        stage(sync_expert={"depth": 3})
    with pytest.raises(ConfigError, match="no loss term contrastive"):
        stage(weights={"contrastive": 1.0})
