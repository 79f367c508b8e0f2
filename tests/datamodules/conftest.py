from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.datamodules.fakes import make_prepared


@pytest.fixture(scope="session")
def shared_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set nobody writes into: 4 speakers x 2 clips x 60 frames of 32 pixels."""
    return make_prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture
def own_set(shared_set: Path, tmp_path: Path) -> Path:
    """A copy to break or to fill."""
    return Path(shutil.copytree(shared_set, tmp_path / "prepared"))
