from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.prepare.engine import Engine, Job, share_of
from datamodules.prepare.finish import FinishOptions, clip_mel, collect
from datamodules.prepare.layouts import list_clips
from datamodules.prepare.options import ClipOptions
from datamodules.prepare.pipeline import PrepareJob, prepare, rejected_by_reason
from datamodules.prepare.work import WorkFolder
from datamodules.shards import PreparedSet, verify
from talkhead.errors import ConfigError, DataError
from talkhead.geometry.motion import MotionModel
from tests.datamodules.prepare.fake_face import write_clip
from tests.talkhead.media.make_media import tone_bursts, write_media

FAKE = "tests.datamodules.prepare.fake_face:FakeFace"
CRASHING = "tests.datamodules.prepare.fake_face:CrashingFace"
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    for speaker in range(4):
        for video in range(2):
            number = 2 * speaker + video
            write_clip(root / f"s{speaker}" / f"v{video}.mp4", 2.0 + 0.4 * video, number)
    write_clip(root / "s0" / "mute.mp4", sound=False)
    (root / "s1" / "broken.mp4").write_bytes(b"no movie at all")
    return root


def _job(raw: Path, out: Path, **change: object) -> PrepareJob:
    job = PrepareJob(
        raw,
        out,
        clip=ClipOptions(size=48),
        finish=FinishOptions(n_expression=3, frames_per_shard=150),
        workers=0,
        landmarker=FAKE,
    )
    return replace(job, **change)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def done(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "set"
    prepare(_job(raw, out, keep_work=True))
    return out


def _content(out: Path) -> dict[str, bytes]:
    """Every file of a set, but for the finished clips and where it lies."""
    files = (p for p in sorted(out.rglob("*")) if p.is_file() and "work" not in p.parts)
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


def test_prepared_set_is_sound(done: Path) -> None:
    assert verify(done, deep=True) == []
    prepared = PreparedSet(done)
    assert prepared.dataset == "folder"
    assert prepared.meta["landmarker"] == "fake"
    assert prepared.meta["video"]["size"] == 48
    assert len(prepared.all_rows) == 8
    assert len({row.shard for row in prepared.all_rows}) == 3
    splits = {s: {r.speaker for r in prepared.rows(s)} for s in ("train", "val", "test")}
    assert [len(v) for v in splits.values()] == [2, 1, 1]
    assert sum(len(v) for v in splits.values()) == len(set.union(*splits.values()))
    assert rejected_by_reason(done) == {"corrupt": ["s1/broken.mp4"], "no_audio": ["s0/mute.mp4"]}


def test_rows_belong_together(done: Path) -> None:
    prepared = PreparedSet(done)
    model = MotionModel.load(done / "motion_model.npz")
    for row in prepared.all_rows:
        landmarks, audio = prepared.landmarks(row), prepared.audio(row)
        assert prepared.motion(row) == pytest.approx(model.encode(landmarks), abs=1e-5)
        assert prepared.mel(row) == pytest.approx(clip_mel(audio), abs=1e-3)
        assert len(audio) == 640 * row.frames
        # The crop shows the face where the landmarks are.
        for t in (0, row.frames - 1):
            crop = prepared.frames(row, [t])[0].numpy()
            red = (crop[0] > 150) & (crop[2] < 110)
            seen = (np.argwhere(red).mean(axis=0)[::-1] + 0.5) / 48
            assert landmarks[t, :468, :2].mean(axis=0) == pytest.approx(seen, abs=0.03)


def test_statistics_are_those_of_the_training_split(done: Path) -> None:
    prepared = PreparedSet(done)
    rows = np.concatenate([prepared.motion(r) for r in prepared.rows("train")])
    stats = prepared.motion_stats()
    assert stats.mean == pytest.approx(rows.mean(axis=0), abs=1e-5)
    moving = rows.std(axis=0) > 1e-6
    assert stats.std[moving] == pytest.approx(rows.std(axis=0)[moving], rel=1e-3)
    assert (stats.std[~moving] == 1.0).all()


def test_report_counts(done: Path) -> None:
    report = json.loads((done / "report.json").read_text())
    assert report["accepted"] == 8
    assert report["rejected"] == {"no_audio": 1, "corrupt": 1}
    assert report["tracked_share"] == 1.0
    assert report["hours"] == pytest.approx(4 * (2.0 + 2.4) / 3600, rel=1e-2)


def test_doing_it_again_changes_nothing(done: Path, raw: Path) -> None:
    before = _content(done)
    stamps = {p: p.stat().st_mtime_ns for p in done.rglob("*")}
    assert prepare(_job(raw, done, keep_work=True)).up_to_date
    assert {p: p.stat().st_mtime_ns for p in done.rglob("*")} == stamps
    # Finishing alone, from the clips at hand, gives the same bytes.
    (done / "prepared.json").unlink()
    assert not prepare(_job(raw, done, keep_work=True)).up_to_date
    assert _content(done) == before


def test_parts_and_processes_give_the_same_set(done: Path, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    prepare(_job(raw, out, shard=(1, 2)))
    # The other part is still missing.
    job = _job(raw, out)
    folder = WorkFolder(out / "work", job.digest)
    with pytest.raises(DataError, match="not prepared yet"):
        collect(folder, job.listing().clips)
    outcome = prepare(_job(raw, out, shard=(0, 2), workers=2))
    assert outcome.report is None
    assert outcome.done == 5
    assert not (out / "prepared.json").exists()
    prepare(_job(raw, out))
    assert not (out / "work").exists()
    expected, got = _content(done), _content(out)
    assert expected == got


def test_changed_source_or_settings_are_done_again(raw: Path, tmp_path: Path) -> None:
    clips = [c for c in list_clips("folder", raw).clips if c.id == "s0/v0"]
    job = Job(tmp_path / "work", ClipOptions(size=48), "digest", FAKE)
    Engine(job, 0).run(clips)
    folder = WorkFolder(job.work, job.digest)
    assert folder.read_status(clips[0]) is not None
    assert WorkFolder(job.work, "other").read_status(clips[0]) is None
    path = clips[0].path
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert folder.read_status(clips[0]) is None
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert folder.read_status(clips[0]) is not None
    next(job.work.glob("*.npz")).unlink()
    assert folder.read_status(clips[0]) is None


def test_crash_and_bug_cost_one_clip_each(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    raw.mkdir()
    blue, green = np.zeros((2, 120, 160, 3), np.uint8)
    blue[..., 2], green[..., 1] = 255, 255
    times = [i / 25 for i in range(40)]
    for name, picture in (("blue", blue), ("green", green)):
        write_media(raw / f"{name}.mp4", [picture] * 40, times, tone_bursts(1.6))
    for number in range(3):
        write_clip(raw / f"ok{number}.mp4", 1.6, number)
    job = _job(raw, out, speaker_from="stem", workers=2, landmarker=CRASHING)
    report = prepare(job).report
    assert report is not None
    assert report["accepted"] == 3
    assert report["rejected"] == {"crashed": 2}
    details = {r["source"]: r["detail"] for r in _rejections(out)}
    assert "exit 11" in details["blue.mp4"]
    assert "a bug" in details["green.mp4"]


def _rejections(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]


def test_killed_run_resumes_without_doing_finished_clips_again(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    code = (
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    from datamodules.prepare.pipeline import *\n"
        f"    prepare(PrepareJob(Path({str(raw)!r}), Path({str(out)!r}), workers=1,"
        f" clip=ClipOptions(size=48), landmarker={FAKE!r}))"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    work = out / "work"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(work.glob("[!.]*.npz"))) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {p: p.stat().st_mtime_ns for p in work.glob("[!.]*.npz")}
    states = {p.stem for p in work.glob("[!.]*.json")}
    assert len(finished) >= 2
    prepare(_job(raw, out, keep_work=True, landmarker=FAKE))
    assert verify(out) == []
    kept = {p: t for p, t in finished.items() if p.stem.split("-")[0] in states}
    assert kept
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items())


def test_offset_is_measured_and_fixed(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    for number in range(6):
        write_clip(raw / f"s{number}" / "v.mp4", 4.0, number)
    job = _job(raw, out)
    prepare(replace(job, finish=replace(job.finish, fix_offset=True)))
    assert verify(out) == []
    # The sound comes and goes with the drawn mouth, so that every offset is 0 or unclear.
    for row in PreparedSet(out).all_rows:
        assert row.offset_frames is not None
        assert row.offset_confidence is not None
        if row.offset_confidence > 0.15:
            assert abs(row.offset_frames) <= 1


def test_no_clip_accepted(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    write_clip(raw / "a" / "mute.mp4", sound=False)
    with pytest.raises(DataError, match="no_audio: 1"):
        prepare(_job(raw, out))
    assert rejected_by_reason(out) == {"no_audio": ["a/mute.mp4"]}


def test_impossible_settings(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--workers"):
        prepare(_job(raw, tmp_path, workers=-1))
    with pytest.raises(ConfigError, match="--shard"):
        share_of([], 2, 2)
    with pytest.raises(ConfigError, match="face tracker"):
        prepare(_job(raw, tmp_path, landmarker="no.such:Thing"))
    with pytest.raises(ConfigError, match="--expression"):
        FinishOptions(n_expression=0)
    with pytest.raises(ConfigError, match="--val-share"):
        FinishOptions(val_share=0.8, test_share=0.2)


def test_a_missing_tracker_stops_the_workers_too(raw: Path, tmp_path: Path) -> None:
    clips = list_clips("folder", raw).clips[:1]
    job = Job(tmp_path / "work", ClipOptions(size=48), "digest", "no.such:Thing")
    with pytest.raises(ConfigError, match="face tracker"):
        Engine(job, 1).run(clips)
