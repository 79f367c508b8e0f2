from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from talkhead.checkpoint import load_component, read_block, read_checkpoint, read_component, resolve
from talkhead.errors import ConfigError, StageLinkError
from talkhead.networks.component import weights_digest
from talkhead.seeds import step_seed
from talkhead.stages.base import Stage, build
from tests.talkhead.stages.toys import FirstStage, SecondStage, ToyEncoder, ToyHead, loader


def fit(stage: Stage, folder: Path, steps: int, **options: Any) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)],
    )
    trainer.fit(stage, loader(), **options)
    return trainer


@pytest.fixture
def first(tmp_path: Path) -> Path:
    seed_everything(3)
    fit(FirstStage(width=5), tmp_path / "first", 4)
    return tmp_path / "first" / "step=4.ckpt"


def test_unknown_weight_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"no loss term speed; expected some of size, watched"):
        FirstStage(weights={"speed": 1.0})


def test_total_is_the_weighted_sum_and_weight_zero_only_watches() -> None:
    stage = FirstStage(weights={"size": 3.0})
    total = stage.weighted({"size": torch.tensor(2.0), "watched": torch.tensor(50.0)}, "train")
    assert float(total) == 6.0


def test_term_without_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="no weight for the loss terms other"):
        FirstStage().weighted({"other": torch.tensor(1.0)}, "train")


def test_component_passes_to_the_next_stage_with_its_own_architecture(first: Path) -> None:
    second = SecondStage(encoder=str(first))
    assert second.encoder.spec == {"width": 5}
    saved = read_checkpoint(first)["state_dict"]
    assert torch.equal(second.encoder.layer.weight, saved["encoder.layer.weight"])
    assert not any(p.requires_grad for p in second.encoder.parameters())


def test_frozen_part_stays_in_eval_through_an_explicit_train(first: Path) -> None:
    second = SecondStage(encoder=str(first)).train()
    assert second.head.training
    assert not second.encoder.training
    assert not second.encoder.norm.training


def test_frozen_part_is_bit_identical_after_training(first: Path, tmp_path: Path) -> None:
    second = SecondStage(encoder=str(first))
    encoder, head = weights_digest(second.encoder), weights_digest(second.head)
    fit(second, tmp_path / "second", 5)
    assert weights_digest(second.encoder) == encoder
    assert weights_digest(second.head) != head


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_reload_and_resume_after_the_predecessor_is_deleted(first: Path, tmp_path: Path) -> None:
    whole = SecondStage(encoder=str(first))
    fit(whole, tmp_path / "second", 5)
    checkpoint = tmp_path / "second" / "step=3.ckpt"
    first.unlink()
    again = SecondStage.load_from_checkpoint(checkpoint, weights_only=True)
    assert again.encoder.spec == {"width": 5}
    fit(again, tmp_path / "second", 5, ckpt_path=str(checkpoint), weights_only=True)
    assert weights_digest(again.head) == weights_digest(whole.head)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_resumed_steps_repeat_the_random_numbers(tmp_path: Path) -> None:
    seed_everything(7)
    whole = FirstStage()
    fit(whole, tmp_path / "whole", 5)
    torch.manual_seed(99)  # the state of the global generator must not matter
    resumed = FirstStage()
    fit(resumed, tmp_path / "whole", 5, ckpt_path=str(tmp_path / "whole" / "step=2.ckpt"))
    assert weights_digest(resumed.encoder) == weights_digest(whole.encoder)
    assert resumed.batches_seen == 5


def test_block_names_stage_sources_and_specs(first: Path, tmp_path: Path) -> None:
    fit(SecondStage(encoder=str(first)), tmp_path / "second", 1)
    path = tmp_path / "second" / "step=1.ckpt"
    block = read_block(read_checkpoint(path), path)
    assert block["stage"] == "toys"
    assert set(block["components"]) == {"encoder", "head"}
    assert block["sources"]["encoder"]["path"] == str(first)
    assert block["audio"]["samples_per_frame"] == 640
    assert block["batches_seen"] == 1
    assert block["components"]["encoder"]["digest"] == weights_digest(
        resolve(ToyEncoder, str(first), "encoder")
    )


def test_component_of_unknown_name_lists_what_there_is(first: Path) -> None:
    with pytest.raises(StageLinkError, match=r"offers encoder; expected it to hold 'prior'"):
        read_component(first, "prior")


def test_component_of_another_class_is_refused(first: Path) -> None:
    with pytest.raises(StageLinkError, match=r"ToyEncoder, expected a .*ToyHead"):
        resolve(ToyHead, str(first), "encoder")


def test_only_talkhead_classes_are_imported_by_name(first: Path) -> None:
    with pytest.raises(StageLinkError, match="not one of talkhead's"):
        load_component(first, "encoder")


def test_missing_truncated_and_foreign_files_are_told_apart(first: Path, tmp_path: Path) -> None:
    with pytest.raises(StageLinkError, match="found no file"):
        read_checkpoint(tmp_path / "none.ckpt")
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(first.read_bytes()[:2000])
    with pytest.raises(StageLinkError, match="truncated, corrupt"):
        read_checkpoint(cut)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(StageLinkError, match="not written by a talkhead stage"):
        read_block(read_checkpoint(foreign), foreign)
    newer = tmp_path / "newer.ckpt"
    torch.save({"state_dict": {}, "talkhead": {"format": 99}}, newer)
    with pytest.raises(StageLinkError, match="format 99, this version reads 1"):
        read_block(read_checkpoint(newer), newer)


def test_edited_weights_do_not_load(first: Path, tmp_path: Path) -> None:
    content = read_checkpoint(first)
    del content["state_dict"]["encoder.layer.bias"]
    torch.save(content, tmp_path / "edited.ckpt")
    with pytest.raises(StageLinkError, match="do not fit its spec"):
        resolve(ToyEncoder, str(tmp_path / "edited.ckpt"), "encoder")


def test_other_clock_is_refused_before_training(first: Path, tmp_path: Path) -> None:
    content = read_checkpoint(first)
    content["talkhead"]["video"]["fps"] = 30
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="fps: expected 25, got 30"):
        fit(SecondStage(encoder=str(tmp_path / "other.ckpt")), tmp_path / "x", 1)


def test_resuming_from_another_stage_is_refused(first: Path) -> None:
    content = read_checkpoint(first)
    content["talkhead"]["stage"] = "reenactment"
    with pytest.raises(
        StageLinkError, match="expected a checkpoint of stage toys, got one of stage reen"
    ):
        FirstStage().on_load_checkpoint(content)


def test_build_names_the_unknown_option() -> None:
    with pytest.raises(
        ConfigError, match=r"encoder: ToyEncoder has no option depth; expected some of width"
    ):
        build(ToyEncoder, {"depth": 2}, "encoder")


def test_step_seeds_differ_by_seed_batch_and_rank() -> None:
    seeds = {step_seed(s, b, r) for s in range(3) for b in range(3) for r in range(3)}
    assert len(seeds) == 27
    assert all(0 <= s < 2**63 for s in seeds)
