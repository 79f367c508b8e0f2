"""Coefficient tracks beside a prepared set: the right rows, the right clips, and what is said about them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from datamodules.prepare.finish import FinishOptions
from datamodules.prepare.options import ClipOptions
from datamodules.prepare.pipeline import PrepareJob, prepare
from datamodules.shards import ClipRow, PreparedSet, verify
from datamodules.tracks import TrackFolder, TrackStore, write_tracks
from talkhead.commands.prepare import job_from_args, summary
from talkhead.errors import DataError
from talkhead.geometry.deep3d import LAYOUT, MOTION_LAYOUT, N_COEFFICIENTS
from tests.datamodules.fakes import make_prepared
from tests.datamodules.prepare.fake_face import write_clip


def coefficients(rotation: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows with a known head pose, whose first expression entry counts them."""
    rows = np.zeros((len(rotation), N_COEFFICIENTS), np.float32)
    rows[:, LAYOUT["angles"]] = rotation * (1, -1, -1)
    rows[:, LAYOUT["expression"].start] = np.arange(len(rotation))
    return rows


def entries(rows: list[ClipRow], **change: Any) -> list[dict[str, Any]]:
    return [{"start_s": None, "first_frame": 0, "fps_in": 25.0, **change} for _ in rows]


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedSet:
    return PreparedSet(make_prepared(tmp_path, frames=40))


def pose(prepared: PreparedSet, row: ClipRow) -> NDArray[np.float32]:
    return prepared.motion(row)[:, :3]


def write(prepared: PreparedSet, tracks: TrackFolder, **change: Any) -> dict[str, Any]:
    rows = prepared.all_rows
    return write_tracks(
        prepared.root, rows, entries(rows, **change), lambda row: pose(prepared, row), tracks
    )


def save(folder: Path, name: str, rows: NDArray[np.float32]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"coeff": rows})


def test_tracks_are_stored_by_clip_and_judged_by_the_mesh(
    prepared: PreparedSet, tmp_path: Path
) -> None:
    folder, rows = tmp_path / "mat", prepared.all_rows
    first, second, third, fourth = rows[:4]
    save(folder, f"{first.id}.mat", coefficients(pose(prepared, first)))
    late = np.concatenate([pose(prepared, second)[2:], np.zeros((2, 3), np.float32)])
    save(folder, f"{second.id}.mat", coefficients(late))
    save(folder, f"{third.id}.mat", coefficients(np.zeros((10, 3), np.float32)))
    (folder / f"{fourth.id}.mat").write_bytes(b"no numbers")
    record = write(prepared, TrackFolder(folder))
    assert set(record["clips"]) == {first.id, second.id}
    assert record["clips"][first.id]["correlation"] == [1.0, 1.0, 1.0]
    assert record["clips"][first.id]["lag_frames"] == 0
    assert record["clips"][second.id]["lag_frames"] == 2
    assert record["without"] == len(rows) - 4
    assert "got 10 rows" in record["refused"][third.id]
    assert "MATLAB" in record["refused"][fourth.id]

    store = TrackStore(prepared)
    motion = store.motion(first)
    assert motion.shape == (40, 70)
    np.testing.assert_allclose(
        motion[:, MOTION_LAYOUT["rotation"]], pose(prepared, first), atol=1e-6
    )
    assert motion[:, MOTION_LAYOUT["expression"]][:, 0].tolist() == list(range(40))
    with pytest.raises(DataError, match="has no coefficient track; 2 clips"):
        store.motion(third)
    assert verify(prepared.root, deep=True) == []


def test_a_stated_lag_is_taken_out(prepared: PreparedSet, tmp_path: Path) -> None:
    row = prepared.all_rows[0]
    late = np.concatenate([pose(prepared, row)[3:], np.zeros((3, 3), np.float32)])
    save(tmp_path / "mat", f"{row.id}.mat", coefficients(late))
    record = write(prepared, TrackFolder(tmp_path / "mat", lag_rows=3))
    assert record["clips"][row.id]["lag_frames"] == 0
    counted = TrackStore(prepared).motion(row)[:, 3].tolist()
    assert counted[:6] == [0, 0, 0, 0, 1, 2]


def test_names_in_one_folder_will_do_and_others_are_refused(
    prepared: PreparedSet, tmp_path: Path
) -> None:
    folder, row = tmp_path / "mat", prepared.all_rows[0]
    with pytest.raises(DataError, match="found none"):
        TrackFolder(folder).check()
    save(folder, "stranger.mat", coefficients(pose(prepared, row)))
    TrackFolder(folder).check()
    with pytest.raises(DataError, match=r"for example s00/v0/c00.mat"):
        write(prepared, TrackFolder(folder))
    assert TrackFolder(folder).find("a/b/stranger.mp4") == folder / "stranger.mat"


def test_reading_asks_for_tracks_of_this_very_set(prepared: PreparedSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--motion-tracks"):
        TrackStore(prepared)
    row = prepared.all_rows[0]
    save(tmp_path / "mat", f"{row.id}.mat", coefficients(pose(prepared, row)))
    write(prepared, TrackFolder(tmp_path / "mat"))
    path = prepared.root / "tracks" / "deep3d" / "track.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data_fingerprint": "other"}))
    with pytest.raises(DataError, match="other data"):
        TrackStore(prepared)


def test_prepare_finds_the_rows_of_every_piece(tmp_path: Path) -> None:
    """Pieces of a longer clip take their own stretch of its track; a second run has nothing to do."""
    raw, folder = tmp_path / "raw", tmp_path / "mat"
    for speaker in range(3):
        write_clip(raw / f"s{speaker}" / "v.mp4", 2.4, speaker)
    save(folder, "s1/v.mat", coefficients(np.zeros((60, 3), np.float32)))
    job = PrepareJob(
        raw,
        tmp_path / "set",
        clip=ClipOptions(size=48, min_seconds=0.5, max_seconds=1.2),
        finish=FinishOptions(n_expression=3),
        workers=0,
        landmarker="tests.datamodules.prepare.fake_face:FakeFace",
        tracks=TrackFolder(folder),
    )
    outcome = prepare(job)
    assert outcome.report is not None
    assert outcome.report["tracks"]["without"] == 4
    assert "2 clips with deep3d, 0 refused, 4 without" in summary(outcome.report, job.out)
    made = PreparedSet(job.out)
    pieces = [row for row in made.all_rows if row.speaker == "s1"]
    counted = [TrackStore(made).motion(row)[:, 3].tolist() for row in pieces]
    assert [c for piece in counted for c in piece] == list(range(60))
    assert prepare(job).up_to_date
    save(folder, "s2/v.mat", coefficients(np.zeros((60, 3), np.float32)))
    assert not prepare(job).up_to_date
    plain = replace(job, tracks=None, out=tmp_path / "plain")
    prepare(plain)
    assert PreparedSet(plain.out).data_fingerprint == made.data_fingerprint


def test_options_arrive() -> None:
    words = "--dataset folder --raw raw --out set"
    assert job_from_args(words.split()).tracks is None
    job = job_from_args(f"{words} --motion-tracks mat --motion-lag 2".split())
    assert job.tracks == TrackFolder(Path("mat"), 2)
