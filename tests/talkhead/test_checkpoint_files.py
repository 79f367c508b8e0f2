from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from talkhead.checkpoint_files import WholeFileCheckpoints
from tests.conftest import Run
from tests.talkhead.toy_stages import ToyData, ToyStage


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One MiB of disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_round_trip_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    WholeFileCheckpoints().save_checkpoint({"a": torch.arange(3)}, path)
    assert torch.load(path, weights_only=True)["a"].tolist() == [0, 1, 2]
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_keeps_the_old_checkpoint(small_disk: Path) -> None:
    path = small_disk / "last.ckpt"
    files = WholeFileCheckpoints()
    files.save_checkpoint({"a": torch.zeros(1000)}, path)
    with pytest.raises((OSError, RuntimeError)):
        files.save_checkpoint({"a": torch.ones(500_000)}, path)
    assert torch.load(path, weights_only=True)["a"].sum() == 0
    assert [p.name for p in small_disk.iterdir()] == ["last.ckpt"]


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(content: Any, file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        WholeFileCheckpoints().save_checkpoint({}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_every_run_writes_its_checkpoints_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    save = WholeFileCheckpoints.save_checkpoint

    def watched(self: WholeFileCheckpoints, checkpoint: Any, path: Any, **rest: Any) -> None:
        written.append(Path(path).name)
        save(self, checkpoint, path, **rest)

    monkeypatch.setattr(WholeFileCheckpoints, "save_checkpoint", watched)
    run(
        "fit",
        f"--model={ToyStage.__name__}",
        f"--data={ToyData.__name__}",
        "--trainer.max_epochs=1",
    )
    assert set(written) == {"best.ckpt", "last.ckpt"}


def test_the_error_names_the_disk(small_disk: Path) -> None:
    """The number of a full disk survives torch's own wrapping, for the message of the command."""
    from talkhead.error_chain import causes

    with pytest.raises((OSError, RuntimeError)) as raised:
        WholeFileCheckpoints().save_checkpoint({"a": torch.ones(500_000)}, small_disk / "x.ckpt")
    numbers = {getattr(cause, "errno", None) for cause in causes(raised.value)}
    assert errno.ENOSPC in numbers
