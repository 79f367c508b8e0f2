from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from datamodules.prepare.pipeline import prepare
from talkhead.commands.data import main
from talkhead.commands.prepare import summary
from talkhead.errors import DataError
from tests.datamodules.prepare.fake_face import write_clip
from tests.datamodules.prepare.small_job import small_job


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("raw")
    out = tmp_path_factory.mktemp("out") / "set"
    for number in range(3):
        write_clip(raw / f"s{number}" / "v.mp4", 1.6, number)
    write_clip(raw / "s0" / "mute.mp4", sound=False)
    prepare(small_job(raw, out))
    return out


@pytest.fixture
def prepared(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "set"))


def test_shows_and_checks(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(prepared), "--deep"]) == 0
    shown = capsys.readouterr().out
    assert "train      1 clips, 1 speakers, 1 videos, 40 frames" in shown
    assert "rotation, translation, scale" in shown
    assert "sound (every picture)" in shown


def test_json(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(prepared), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["prepared"]["clips"] == 3
    assert data["report"]["rejected"] == {"no_audio": 1}


def test_summary_names_the_reasons(prepared: Path) -> None:
    report = json.loads((prepared / "report.json").read_text())
    text = summary(report, prepared)
    assert "accepted   3 clips, 0.1 min" in text
    assert "rejected   1: no_audio 1" in text
    report["splits"]["val"]["clips"] = 0
    assert "a split is empty" in summary(report, prepared)


def test_truncated_pictures_name_the_shard(prepared: Path) -> None:
    path = prepared / "shards/00000/frames.bin"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="shards/00000"):
        main([str(prepared)])


def test_offsets_that_do_not_increase_are_found(prepared: Path) -> None:
    path = prepared / "shards/00000/frame_offsets.npy"
    offsets = np.load(path)
    offsets[5] = offsets[4]
    np.save(path, offsets)
    with pytest.raises(DataError, match="offsets do not increase"):
        main([str(prepared)])


def test_shared_speaker_is_found(prepared: Path) -> None:
    path = prepared / "index.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["speaker"] = "s0"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="more than one split"):
        main([str(prepared)])


def test_no_set_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared set"):
        main([str(tmp_path)])
