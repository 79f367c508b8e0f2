"""Notices a training that never leaves its start, and says what to look at."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from talkhead.errors import ConfigError

log = logging.getLogger(__name__)

MOSTLY_OFF = 0.95
"""Share of a branch's units without an output beyond which it counts as dead; after a ReLU, half is usual."""
SAME_COSINE = 0.02


class PlateauWatch(Callback):
    """Warn once when the loss still is that of an answer that tells nothing.

    A lip-sync expert with binary cross-entropy starts near ``ln 2 = 0.693``, the loss of a constant
    verdict, and may stay there for thousands of batches, sometimes for good. The stage says where that is
    (``blind_loss``); when, ``patience`` batches after the start of the fit, the mean of the last
    ``window`` losses is not lower by ``margin``, the warning names the causes in the order in which they
    are worth checking, with what the stage has logged about itself. The run goes on unless ``stop`` is set.

    Source: reports on Wav2Lip's expert (reference-facts 9); thresholds are ours.
    """

    def __init__(
        self,
        patience: int = 2000,
        window: int = 100,
        margin: float = 0.02,
        stop: bool = False,
        term: str = "train/loss/sync",
    ) -> None:
        """Configure the callback.

        Args:
            patience: Batches of the fit before the first look.
            window: Losses averaged.
            margin: How far below the blind loss the mean must be, as a share of the blind loss.
            stop: End the run at the warning.
            term: Logged name of the loss.

        Raises:
            ConfigError: Numbers out of range.
        """
        if patience < 1 or not 1 <= window <= patience or not 0 <= margin < 1:
            raise ConfigError(
                f"PlateauWatch: expected patience >= window >= 1 and 0 <= margin < 1, got patience "
                f"{patience}, window {window} and margin {margin}."
            )
        self.patience, self.window, self.margin = patience, window, margin
        self.stop, self.term = stop, term
        self.seen, self.told, self.left = 0, False, False
        self.losses: deque[float] = deque(maxlen=window)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew; a resumed fit gets its full patience again.

        Raises:
            ConfigError: The stage does not say where its plateau is.
        """
        if not isinstance(getattr(pl_module, "blind_loss", None), float):
            raise ConfigError(
                f"PlateauWatch: {type(pl_module).__name__} has no blind_loss, the loss of an answer that "
                "tells nothing; remove callbacks.plateau_watch.PlateauWatch from this stage's config."
            )
        self.seen, self.told, self.left = 0, False, False
        self.losses.clear()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note the loss; look at the mean once patience is over, until the plateau is left or told."""
        if self.told or self.left:
            return
        loss = trainer.callback_metrics.get(self.term)
        if loss is None:
            return
        self.seen += 1
        if self.seen <= self.patience - self.window:
            return  # reading a loss waits for a GPU
        self.losses.append(float(loss))
        if self.seen < self.patience:
            return
        mean, blind = sum(self.losses) / len(self.losses), float(pl_module.blind_loss)  # type: ignore[arg-type]
        if mean < blind * (1.0 - self.margin):
            self.left = True
            return
        self.told = True
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        log.warning("%s", explanation(self.seen, mean, blind, scores))
        trainer.should_stop = trainer.should_stop or self.stop


def explanation(batches: int, mean: float, blind: float, scores: dict[str, float]) -> str:
    """What the plateau means and what to check, the likeliest first.

    Args:
        batches: Batches seen.
        mean: Mean of the last losses.
        blind: The loss of an answer that tells nothing.
        scores: Logged values by name; ``train/sound_off``, ``train/lips_off``, ``train/cosine_true`` and
            ``train/cosine_false`` are used where they are there.
    """
    lines = [
        f"the loss is {mean:.3f} after {batches} batches; an answer that tells nothing has {blind:.3f}: the "
        "network has not begun to tell true pairs from false ones. Check, in this order:"
    ]
    for branch in ("sound", "lips"):
        off = scores.get(f"train/{branch}_off", 0.0)
        if off > MOSTLY_OFF:
            lines.append(
                f"- {off:.0%} of the outputs of the branch of {branch} are off: it is dead. Lower the rate "
                "and start again, or set sync_expert: {non_negative: false}."
            )
    true, false = scores.get("train/cosine_true"), scores.get("train/cosine_false")
    if true is not None and false is not None and abs(true - false) < SAME_COSINE:
        lines.append(
            f"- true and false pairs have the same cosine ({true:.2f} and {false:.2f}): nothing is learnt "
            "yet, it is not only a matter of scale."
        )
    lines += [
        "- sound and pictures of the data may be out of step: 'talkhead data DIR --audit' measures it, "
        "'talkhead prepare --fix-offset' corrects a constant offset of each clip.",
        "- false pairs may be too hard for a start: raise min_gap_frames (9 frames share no picture), "
        "or begin with loss: info_nce, which learns from all runs of a clip at once.",
        "- too few pairs a step: raise batch_size or runs; leaving the start takes "
        "thousands of steps with 64 pairs.",
        "- the rate: try a third and three times of it for 2000 batches each.",
        "- the clips: blurred mouths, long silence, music or a voice off screen teach nothing; "
        "'talkhead data DIR --audit' lists such clips.",
    ]
    return "\n".join(lines)
