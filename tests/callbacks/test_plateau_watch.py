from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from callbacks.plateau_watch import PlateauWatch, explanation
from talkhead.errors import ConfigError

BLIND = 0.6931


def watched(losses: list[float], **options: Any) -> tuple[PlateauWatch, SimpleNamespace]:
    """The callback after a fit with these losses."""
    watch = PlateauWatch(**{"patience": 10, "window": 4, **options})
    trainer = SimpleNamespace(callback_metrics={}, should_stop=False)
    stage = SimpleNamespace(blind_loss=BLIND)
    run, module = cast(Trainer, trainer), cast(LightningModule, stage)
    watch.on_fit_start(run, module)
    for number, loss in enumerate(losses):
        trainer.callback_metrics["train/loss/sync"] = torch.tensor(loss)
        watch.on_train_batch_end(run, module, None, None, number)
    return watch, trainer


def test_a_loss_that_stays_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        watch, trainer = watched([BLIND] * 30)
    assert watch.told
    assert not trainer.should_stop
    assert len(caplog.records) == 1
    assert "the loss is 0.693 after 10 batches" in caplog.text


def test_patience_comes_first_and_a_loss_that_falls_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not watched([BLIND] * 9)[0].told
        # The mean of the last four of ten: 0.675 < 0.98 * 0.6931.
        falling, _ = watched([BLIND] * 6 + [0.68, 0.68, 0.67, 0.67] + [BLIND] * 20)
    assert falling.left
    assert not falling.told
    assert not caplog.records


def test_the_run_ends_only_if_asked() -> None:
    assert watched([0.69] * 10, stop=True)[1].should_stop
    assert not watched([0.60] * 10, stop=True)[1].should_stop


def test_the_explanation_uses_what_the_stage_logged() -> None:
    plain = explanation(2000, 0.693, BLIND, {})
    assert "--fix-offset" in plain
    assert "cosine" not in plain
    scores = {"train/lips_off": 0.97, "train/cosine_true": 0.71, "train/cosine_false": 0.70}
    dead = explanation(2000, 0.693, BLIND, scores)
    assert "97% of the outputs of the branch of lips" in dead
    assert "(0.71 and 0.70)" in dead
    alive = explanation(
        2000, 0.69, BLIND, {**scores, "train/lips_off": 0.5, "train/cosine_false": 0.5}
    )
    assert "outputs" not in alive
    assert "same cosine" not in alive


def test_other_stages_and_wrong_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no blind_loss"):
        PlateauWatch().on_fit_start(cast(Trainer, None), LightningModule())
    with pytest.raises(ConfigError, match="expected patience >= window"):
        PlateauWatch(patience=10, window=20)
