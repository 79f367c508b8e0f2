"""One optimisation step of every stage at the paper's size, each on what the stage before it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from talkhead.__main__ import main
from tests.chain.recipes import STAGES, stage_options
from tests.datamodules.fakes import make_prepared

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
RUN_FILES = {path.stem[:2]: path for path in (EXPERIMENTS / "runs").glob("*.yaml")}
SIZE = 224
GRADIENTS: dict[str, bool] = {}
"""Parameter -> whether any optimiser met it with a finite gradient that is not all 0."""


class NoteGradients(Callback):
    """Writes down which parameters an optimiser is about to move."""

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in pl_module.named_parameters():
            if id(parameter) in stepped:
                GRADIENTS[name] = _useful(parameter.grad) or GRADIENTS.get(name, False)


def _useful(grad: Tensor | None) -> bool:
    return grad is not None and bool(torch.isfinite(grad).all()) and bool(grad.any())


def _sizes(stage: str) -> Path:
    (found,) = (EXPERIMENTS / "size" / "paper").glob(f"{'40' if stage == '41' else stage}_*.yaml")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paper")
    make_prepared(root / "data", size=SIZE, clips=1, frames=130)
    return root


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stage", STAGES)
def test_one_step(
    stage: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = {n: folder / n / "checkpoints" / "last.ckpt" for n in STAGES}
    _, options = stage_options(stage, last)
    sources = [option for option in options if option.endswith(".ckpt")]
    GRADIENTS.clear()
    main([
        "fit", "--config", str(RUN_FILES[stage]), "--config", str(_sizes(stage)),
        f"--config={EXPERIMENTS}/trainer/cpu.yaml", f"--data.root={folder}/data/prepared", *sources,
        f"--trainer.default_root_dir={folder / stage}", "--trainer.strategy=auto",
        "--trainer.max_steps=1", "--trainer.limit_train_batches=1", "--data.num_workers=0",
        "--data.epoch_items=64",
        "--data.val_items=1",
        "--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=1",
        "--trainer.log_every_n_steps=1",
        "--trainer.callbacks+=tests.chain.test_paper_size.NoteGradients",
    ])  # fmt: skip
    assert last[stage].is_file()
    idle = {name for name, useful in GRADIENTS.items() if not useful}
    assert GRADIENTS
    assert idle <= without_gradient(stage), sorted(idle)


def without_gradient(stage: str) -> set[str]:
    """Parameters that the first step cannot move, each for a reason of its own."""
    return set()
