"""Shared by the command-line tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
]
Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run("fit", "--model=ToyStage", …)`` in a folder of its own, which it returns."""
    from talkhead.__main__ import main

    def runner(*args: str, folder: str = "run") -> Path:
        root = tmp_path / folder
        main([*args, *QUIET, f"--trainer.default_root_dir={root}"])
        return root

    return runner


@pytest.fixture
def shared_data() -> Path:
    """The folder of real media beside the repository (or ``TALKHEAD_SHARED_DATA``); skips without it."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TALKHEAD_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real media at {folder}")
    return folder
