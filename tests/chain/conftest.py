"""System A trained once in tiny sizes, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chain.recipes import SIZE, STAGES, run, stage_options
from tests.datamodules.fakes import make_prepared


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoints of all five stages, by number; ``data`` and ``root``."""
    root = tmp_path_factory.mktemp("chain")
    data = make_prepared(root / "data", size=SIZE)
    last = {n: root / n / "checkpoints" / "last.ckpt" for n in STAGES}
    for stage in STAGES:
        model, options = stage_options(stage, last)
        run("fit", model, root / stage, data, *options)
    return {"data": data, "root": root, **last}
