"""Every stage killed in the middle of an epoch goes on as if nothing had happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chain.recipes import STAGES, arguments, stage_options

CHECKPOINT, KILLED, END = 4, 9, 12
"""In batches; an epoch has seven, so all of it happens inside epochs."""


def fit(stage: str, chain: dict[str, Path], folder: Path, log: Path, *extra: str) -> int:
    """Train in a process of its own; its exit code."""
    model, options = stage_options(stage, chain)
    command = arguments(
        "fit", model, folder, chain["data"], *options, "--data.epoch_items=14",
        f"--trainer.max_steps={END}", f"--checkpoint_every_n_steps={CHECKPOINT}",
        "--trainer.callbacks+=tests.chain.interrupt.LossLog", f"--trainer.callbacks.path={log}", *extra,
    )  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-m", "talkhead", *command],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, -9), done.stderr[-2000:]
    return done.returncode


@pytest.mark.parametrize(
    "stage",
    [s if s in ("30", "40") else pytest.param(s, marks=pytest.mark.slow) for s in STAGES],
)
def test_losses_after_sigkill_are_those_of_an_uninterrupted_run(
    chain: dict[str, Path], tmp_path: Path, stage: str
) -> None:
    whole, parts = tmp_path / "whole.log", tmp_path / "parts.log"
    assert fit(stage, chain, tmp_path / "whole", whole) == 0
    folder = tmp_path / "parts"
    assert fit(stage, chain, folder, parts, f"--trainer.callbacks.kill_at={KILLED}") == -9
    expected = whole.read_text().splitlines()
    assert len(expected) == END
    assert len({line.partition(" ")[2] for line in expected}) == END
    assert parts.read_text().splitlines() == expected[:KILLED]
    parts.unlink()
    assert fit(stage, chain, folder, parts, f"--ckpt_path={folder}/checkpoints/last.ckpt") == 0
    saved = KILLED - KILLED % CHECKPOINT
    assert parts.read_text().splitlines() == expected[saved:]
