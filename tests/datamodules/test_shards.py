from __future__ import annotations

import hashlib
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.shards import (
    ClipRow,
    PreparedSet,
    ShardWriter,
    data_fingerprint,
    encode_jpeg,
    split_fingerprint,
    verify,
)
from talkhead.audio.mel import mel_windows
from talkhead.errors import DataError, ShapeError, SpecError
from tests.datamodules.fakes import make_prepared


def _clip(frames: int, value: int = 0) -> dict[str, Any]:
    picture = np.full((16, 16, 3), value, np.uint8)
    return {
        "jpegs": [encode_jpeg(picture)] * frames,
        "mel": np.full((4 * frames, 80), value / 255, np.float32),
        "landmarks": np.full((frames, 478, 3), value, np.float32),
        "motion": np.full((frames, 5), value, np.float32),
        "audio": np.full(640 * frames, value, np.int16),
    }


def test_clips_come_back_as_written(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, frames_per_shard=10) as writer:
        places = [writer.add(f"c{i}", **_clip(4, 10 * i)) for i in range(5)]
    # 4 + 4 + 4 frames reach the limit of 10, the other two clips open the second shard.
    assert places == [(0, 0), (0, 4), (0, 8), (1, 0), (1, 4)]
    folder = tmp_path / "shards" / "00000"
    for name, rows, dtype in [("mel", 48, "f2"), ("landmarks", 12, "f4"), ("audio", 7680, "i2")]:
        array = np.load(folder / f"{name}.npy")
        assert (len(array), array.dtype) == (rows, np.dtype(dtype))
    assert np.load(folder / "landmarks.npy")[[3, 4, 8], 0, 0].tolist() == [0, 10, 20]
    assert not list((tmp_path / "shards").glob(".*"))


def test_a_failed_run_leaves_only_whole_shards(tmp_path: Path) -> None:
    def write() -> None:
        with ShardWriter(tmp_path, frames_per_shard=4) as writer:
            writer.add("whole", **_clip(4))
            writer.add("unfinished", **_clip(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [p.name for p in (tmp_path / "shards").iterdir()] == ["00000"]


def test_parts_of_unequal_length_are_refused(tmp_path: Path) -> None:
    clip = _clip(4)
    clip["mel"] = clip["mel"][:-1]
    with ShardWriter(tmp_path) as writer, pytest.raises(ShapeError, match=r"mel \(16, 80\)"):
        writer.add("c", **clip)


def test_reader_serves_every_part(shared_set: Path) -> None:
    prepared = PreparedSet(shared_set)
    row = prepared.rows("val")[1]
    assert (row.speaker, row.frames, row.start) == ("s02", 60, 120)
    shard = shared_set / "shards" / f"{row.shard:05d}"
    landmarks = np.load(shard / "landmarks.npy")[120:180]
    np.testing.assert_array_equal(prepared.landmarks(row.id), landmarks)
    np.testing.assert_array_equal(prepared.landmarks(row, [5, 2]), landmarks[[5, 2]])
    np.testing.assert_array_equal(
        prepared.motion(row, slice(3, 9)), np.load(shard / "motion.npy")[123:129]
    )
    np.testing.assert_array_equal(
        prepared.audio(row), np.load(shard / "audio.npy")[640 * 120 : 640 * 180]
    )
    frames = prepared.frames(row, [0, 59, 7])
    assert frames.shape == (3, 3, 32, 32)
    torch.testing.assert_close(frames[2], prepared.frames(row, [7])[0])
    assert prepared.frames(row, [0], size=16).shape == (1, 3, 16, 16)
    assert prepared.frames(row, []).shape == (0, 3, 32, 32)


def test_mel_windows_equal_the_audio_modules(shared_set: Path) -> None:
    prepared = PreparedSet(shared_set)
    row = prepared.all_rows[3]
    frames = [0, 1, 2, 30, 57, 58, 59]
    whole = torch.from_numpy(prepared.mel(row))
    expected = mel_windows(whole, torch.tensor(frames))
    torch.testing.assert_close(prepared.mel_windows(row, frames), expected, rtol=0, atol=0)
    # Frame 0's window begins two frames before the clip.
    assert prepared.mel_windows(row, [0])[0, 0, :, :8].abs().max() == 0


def test_frames_outside_the_clip_are_refused(shared_set: Path) -> None:
    prepared = PreparedSet(shared_set)
    with pytest.raises(DataError, match="frames 0 to 59, got 0 to 60"):
        prepared.frames(prepared.all_rows[0], [0, 60])
    with pytest.raises(DataError, match="expected a clip"):
        prepared.motion("nobody")
    with pytest.raises(DataError, match="expected a split"):
        prepared.rows("dev")


def test_learnable_content(shared_set: Path) -> None:
    """The fake's own promise: the mouth follows the sound, brightness the yaw."""
    prepared = PreparedSet(shared_set)
    layout = prepared.meta["motion"]["layout"]
    row = prepared.all_rows[0]
    motion = prepared.motion(row)
    energy = prepared.mel(row).reshape(60, -1).mean(axis=1)
    assert np.corrcoef(energy, motion[:, layout["mouth"][0]])[0, 1] > 0.95
    brightness = prepared.frames(row, range(60))[:, :, :8].float().mean(dim=(1, 2, 3)).numpy()
    assert np.corrcoef(brightness, motion[:, layout["rotation"][0] + 1])[0, 1] > 0.95


def test_missing_and_foreign_sets(tmp_path: Path, own_set: Path) -> None:
    with pytest.raises(DataError, match=r"no prepared set.*talkhead prepare"):
        PreparedSet(tmp_path / "nowhere")
    meta = json.loads((own_set / "prepared.json").read_text())
    (own_set / "prepared.json").write_text(json.dumps({**meta, "format": 9}))
    with pytest.raises(DataError, match="expected format 1, got 9"):
        PreparedSet(own_set)
    (own_set / "prepared.json").write_text(json.dumps({**meta, "video": {"fps": 30}}))
    with pytest.raises(SpecError, match="fps: expected 25, got 30"):
        PreparedSet(own_set)
    (own_set / "prepared.json").write_text("{")
    with pytest.raises(DataError, match="expected JSON"):
        PreparedSet(own_set)
    (own_set / "prepared.json").unlink()
    with pytest.raises(DataError, match="unfinished set"):
        PreparedSet(own_set)


@pytest.mark.parametrize("name", ["frames.bin", "landmarks.npy", "frame_offsets.npy"])
def test_truncated_shard(own_set: Path, name: str) -> None:
    path = own_set / "shards" / "00000" / name
    path.write_bytes(path.read_bytes()[:-100])
    prepared = PreparedSet(own_set)
    read = prepared.landmarks if name == "landmarks.npy" else prepared.audio
    with pytest.raises(DataError, match="truncated"):
        read(prepared.all_rows[0])
    assert any("truncated" in problem for problem in verify(own_set))


def test_missing_shard_file(own_set: Path) -> None:
    (own_set / "shards" / "00000" / "frames.bin").unlink()
    with pytest.raises(DataError, match=r"frames\.bin is missing"):
        PreparedSet(own_set).frames("s00/v0/c00", [0])


def test_verify_names_what_is_wrong(own_set: Path) -> None:
    assert verify(own_set, deep=True) == []
    array = np.load(own_set / "shards" / "00001" / "motion.npy")
    array[7] += 1
    np.save(own_set / "shards" / "00001" / "motion.npy", array)
    assert verify(own_set) == []
    assert [p for p in verify(own_set, deep=True) if "motion changed" in p]
    (own_set / "splits" / "val.txt").write_text("s00\n")
    lines = (own_set / "index.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["split"] = "test"
    (own_set / "index.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
    problems = " ".join(verify(own_set))
    for words in ("more than one split: s00", "val.txt does not list", "data_fingerprint differs"):
        assert words in problems
    assert "no prepared set" in verify(own_set / "nowhere")[0]


def test_broken_index_line_is_named(own_set: Path) -> None:
    with (own_set / "index.jsonl").open("a") as lines:
        lines.write("{}\n")
    with pytest.raises(DataError, match="line 9"):
        PreparedSet(own_set)


def test_fingerprints_follow_the_content(tmp_path: Path, shared_set: Path) -> None:
    first = PreparedSet(shared_set)
    again = PreparedSet(make_prepared(tmp_path / "again"))
    other = PreparedSet(make_prepared(tmp_path / "other", seed=1))
    assert first.data_fingerprint == again.data_fingerprint != other.data_fingerprint
    assert first.split_fingerprint == other.split_fingerprint
    assert split_fingerprint({"train": ["b", "a"]}) == split_fingerprint({"train": ["a", "b"]})
    assert split_fingerprint({"train": ["a"]}) != split_fingerprint({"test": ["a"]})


def _read(prepared: PreparedSet, queue: Any) -> None:
    torch.set_num_threads(1)  # as in a loader worker; a forked child has no OpenMP threads
    queue.put(int(prepared.frames("s03/v0/c01", [11]).long().sum()))


def test_sets_from_before_sound_was_shifted_stay_sound(own_set: Path) -> None:
    """Their index has no such column, and their fingerprint was made without it."""
    path = own_set / "index.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row.pop("audio_shift_frames") for row in rows} == {0}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert verify(own_set) == []
    prepared = PreparedSet(own_set)
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode())
    for shard in sorted({row["shard"] for row in rows}):
        info = json.loads((own_set / f"shards/{shard:05d}/shard.json").read_text())
        digest.update(json.dumps(info["sha256"], sort_keys=True).encode())
    assert prepared.data_fingerprint == digest.hexdigest()[:16]
    shifted = [replace(prepared.all_rows[0], audio_shift_frames=2), *prepared.all_rows[1:]]
    assert data_fingerprint(own_set, shifted) != prepared.data_fingerprint


def test_content_digest_sees_pictures_and_sound_only(own_set: Path) -> None:
    prepared = PreparedSet(own_set)
    digests = {row.id: prepared.content_digest(row) for row in prepared.all_rows}
    assert len(set(digests.values())) == len(digests)
    first = prepared.all_rows[0]
    assert prepared.content_digest(replace(first, id="copy", speaker="x")) == digests[first.id]
    samples = np.load(own_set / "shards/00000/audio.npy", mmap_mode="r+")
    samples[0] += 1
    samples.flush()
    changed = PreparedSet(own_set)
    differs = [name for name in digests if changed.content_digest(name) != digests[name]]
    assert differs == [first.id]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_works_in_child_processes(shared_set: Path, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    prepared = PreparedSet(shared_set)
    expected = int(prepared.frames("s03/v0/c01", [11]).long().sum())
    queue = context.Queue()
    process = context.Process(target=_read, args=(prepared, queue), daemon=True)
    process.start()
    assert queue.get(timeout=60) == expected
    process.join()
    assert process.exitcode == 0


def test_few_descriptors_stay_open(
    tmp_path: Path, shared_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.shards.OPEN_SHARDS", 2)
    prepared = PreparedSet(shared_set)
    for row in prepared.all_rows:
        prepared.frames(row, [0])
    assert len({row.shard for row in prepared.all_rows}) == 3
    assert len(prepared._shards) == 2


def test_rows_survive_json(shared_set: Path) -> None:
    row = replace(PreparedSet(shared_set).all_rows[0], offset_frames=-1.0, box=(1, 2, 3, 4))
    line = json.dumps({**row.__dict__, "later_addition": 1})
    assert ClipRow.from_json(line) == row
