"""``talkhead data --audit`` on made-up sets, and back into ``talkhead prepare``."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from datamodules.prepare.offset import shift_audio
from datamodules.prepare.pipeline import prepare
from datamodules.shards import PreparedSet, verify
from talkhead.audit import measure as measuring
from talkhead.audit import sync as judging
from talkhead.commands.audit import describe
from talkhead.commands.data import main
from talkhead.errors import ConfigError, DataError
from talkhead.specs import SAMPLES_PER_FRAME
from tests.datamodules.fakes import make_prepared
from tests.datamodules.prepare.fake_face import write_clip
from tests.datamodules.prepare.small_job import small_job

SIZE, FRAMES, SPEAKERS, CLIPS = 32, 90, 4, 2
LATE = {"s00/v0/c01": 4, "s02/v0/c00": -6}
"""Frames by which the sound of some clips of the set comes late."""
Rows = dict[str, dict[str, str]]


class Loudness(nn.Module):
    """Stands for a trained judge of the made-up faces: mouth height there, loudness here."""

    judge, origin, image_size = "syncnet", None, SIZE

    def visual(self, pictures: Tensor) -> Tensor:
        # The bar is the only dark thing, half as wide as the picture.
        dark = (pictures.mean(2) < -0.6).float().mean((-2, -1)) * 2
        windows: Tensor = (dark / 0.3).unfold(1, 5, 1)
        return windows

    def audio(self, mfcc: Tensor) -> Tensor:
        power = mfcc[:, 0, 0].double().exp().unflatten(1, (5, 4)).mean(2)
        loudness: Tensor = (power.sqrt() / 9.2e4).float()
        return loudness


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set whose pictures and sound are in sync but for the clips in ``LATE``; one is a copy."""
    folder = tmp_path_factory.mktemp("audit")
    root = make_prepared(folder, SPEAKERS, CLIPS, FRAMES, SIZE, frames_per_shard=10_000)
    samples = np.load(root / "shards/00000/audio.npy", mmap_mode="r+")
    for row in PreparedSet(root).all_rows:
        part = samples[row.start * SAMPLES_PER_FRAME : row.stop * SAMPLES_PER_FRAME]
        part[:] = shift_audio(np.array(part), LATE.get(row.id, 0) * SAMPLES_PER_FRAME)
    samples.flush()
    return root


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "load_syncnet", lambda path: Loudness())


def audited(root: Path, out: Path, *more: str) -> Rows:
    """The table by clip; the made-up faces are 20 pixels wide."""
    more = ("--limit=min_face_px=1", *more)
    assert main([str(root), "--no-check", "--audit", f"--out={out}", "--workers=0", *more]) == 0
    with out.open(newline="") as file:
        return {line["id"]: line for line in csv.DictReader(file)}


@pytest.fixture
def network(tmp_path: Path) -> str:
    """A file to hash; the stand-in does not read it."""
    path = tmp_path / "net.ckpt"
    path.write_bytes(b"weights")
    return f"--syncnet={path}"


@pytest.mark.usefixtures("judge")
def test_known_offsets_are_found_with_their_sign(
    made: Path, tmp_path: Path, network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = audited(made, tmp_path / "audit.csv", network)
    assert len(rows) == SPEAKERS * CLIPS
    for name, line in rows.items():
        # Late sound has to come earlier: a shift against its delay.
        assert int(line["offset_frames"]) == -LATE.get(name, 0), name
        assert int(line["shift_frames"]) == -LATE.get(name, 0)
        assert line["recommendation"] == ("fix" if name in LATE else "keep")
        assert float(line["offset_confidence"]) > float(line["offset_chance"])
    shown = capsys.readouterr().out
    assert "audit      keep 6 (0.36 min), fix 2 (0.12 min), drop 0 (0.0 min)" in shown
    assert "fix        frames to delay the sound by: -4 x 1, +6 x 1" in shown
    assert "by syncnet: 8 clips judged, 100% clear" in shown
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["set"]["data_fingerprint"] == PreparedSet(made).data_fingerprint
    assert found["fixes"] == {"-4": 1, "6": 1}
    assert len(found["judge"]["sha256"]) == 64


@pytest.mark.parametrize(("share", "warned"), [(0.9, True), (0.2, False)])
def test_a_set_that_is_off_as_a_whole_is_named(share: float, warned: bool) -> None:
    sync = {
        "judge": "syncnet", "judged": 9, "clear_share": 1.0, "clear_above": 1.5,
        "median_offset": -2.0, "median_share": share,
    }  # fmt: skip
    counts = {"keep": {"clips": 9, "minutes": 1.0}}
    found = {"recommendations": counts, "drop_reasons": {}, "flags": {}, "fixes": {}, "sync": sync}
    shown = describe(found)
    assert ("90% of the clear offsets are near their median of -2 frames" in shown) is warned


def test_other_measures_are_those_of_the_clip(made: Path, tmp_path: Path) -> None:
    """Without a judge; against numpy on the arrays of one clip."""
    rows = audited(made, tmp_path / "audit.csv")
    prepared = PreparedSet(made)
    line, row = rows["s01/v0/c00"], prepared.row("s01/v0/c00")
    assert (line["offset_frames"], line["recommendation"]) == ("", "keep")
    assert "offset_unknown" in line["flags"]
    motion = prepared.motion(row)
    degrees = np.degrees(np.percentile(motion[:, :3], (5, 95), axis=0))
    pose = [
        [float(line[f"{angle}_{end}_deg"]) for angle in ("pitch", "yaw", "roll")]
        for end in ("low", "high")
    ]
    assert np.abs(np.array(pose) - degrees).max() < 2.0
    points = prepared.landmarks(row)
    # The oval is the outline of the mesh, so its width is that of all points.
    width = float(np.median(np.ptp(points[..., 0], axis=1))) * SIZE
    assert float(line["face_px"]) == pytest.approx(width, rel=0.02)
    assert float(line["seconds"]) == FRAMES / 25
    assert line["split"] == "train"


def test_an_interrupted_audit_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole.csv"
    audited(made, whole)
    real = measuring.measure_clip
    measured: list[str] = []

    def fails_after(count: int) -> Any:
        def watched(prepared: Any, row: Any, *rest: Any) -> Any:
            if len(measured) == count:
                raise DataError("the power failed")
            measured.append(row.id)
            return real(prepared, row, *rest)

        return watched

    monkeypatch.setattr(measuring, "measure_clip", fails_after(3))
    out = tmp_path / "audit.csv"
    with pytest.raises(DataError, match="power"):
        audited(made, out)
    part = tmp_path / ".audit.csv.part"
    assert not out.exists()
    # The last line was being written when it happened.
    part.write_text(part.read_text()[:-40])
    monkeypatch.setattr(measuring, "measure_clip", fails_after(100))
    audited(made, out)
    names = [row.id for row in PreparedSet(made).all_rows]
    assert measured == names[:3] + names[2:]
    assert out.read_bytes() == whole.read_bytes()
    assert not part.exists()


def test_another_judge_starts_anew(
    made: Path, tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "audit.csv"
    names = [row.id for row in PreparedSet(made).all_rows]
    stale = [json.dumps(["another set", None, 1]), *(json.dumps({"clip": n}) for n in names)]
    (tmp_path / ".audit.csv.part").write_text("\n".join(stale))
    monkeypatch.setattr(judging, "load_syncnet", lambda path: Loudness())
    assert len(audited(made, out, network)) == len(names)


@pytest.mark.slow
def test_many_processes_give_the_same_table(made: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    audited(made, one)
    audited(made, two, "--workers=2")
    assert two.read_bytes() == one.read_bytes()


def test_options_that_cannot_work(made: Path, tmp_path: Path) -> None:
    for words, message in (
        (["--out=x.csv"], "--out belongs to the audit"),
        (["--audit", "--json"], "one document"),
        (["--audit", "--workers=-1"], "--workers of 0 or more"),
        (["--audit", "--limit=size=3"], "NAME=VALUE"),
        (["--audit", f"--out={tmp_path}/a.csv", "--workers=0", "--device=abacus"], "--device"),
    ):
        with pytest.raises(ConfigError, match=message):
            main([str(made), "--no-check", *words])


# -- back into prepare -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for number in range(4):
        write_clip(folder / f"s{number}" / "v.mp4", 1.6, number)
    return folder


def audit_file(folder: Path, *lines: str) -> Path:
    path = folder / "audit.csv"
    path.write_text("\n".join(["id,recommendation,shift_frames,reason", *lines]) + "\n")
    return path


def test_prepare_shifts_and_drops_what_the_audit_says(raw: Path, tmp_path: Path) -> None:
    prepare(small_job(raw, tmp_path / "plain"))
    table = audit_file(
        tmp_path, "s0/v,fix,3,late", "s1/v,fix,-2,early", "s2/v,drop,0,silent", "gone,fix,9,"
    )
    wanted = small_job(raw, tmp_path / "fixed", fix_from=table, drop_from=table)
    report = prepare(wanted).report
    assert report is not None
    assert report["audio_shift_frames"] == {"s0/v": 3, "s1/v": -2}
    assert report["rejected"] == {"audit": 1}
    assert verify(tmp_path / "fixed", deep=True) == []
    plain, fixed = PreparedSet(tmp_path / "plain"), PreparedSet(tmp_path / "fixed")
    assert [row.id for row in fixed.all_rows] == ["s0/v", "s1/v", "s3/v"]
    assert set(fixed.meta["audits"]) == {"fix_offset", "drop"}
    assert "audits" not in plain.meta
    for name, shift in (("s0/v", 3), ("s1/v", -2), ("s3/v", 0)):
        before, after = plain.audio(name), fixed.audio(name)
        assert fixed.row(name).audio_shift_frames == shift
        samples = shift * SAMPLES_PER_FRAME
        kept = slice(max(0, samples), len(before) + min(0, samples))
        moved = slice(max(0, -samples), len(before) - max(0, samples))
        assert np.array_equal(after[kept], before[moved])
        silent = np.delete(after, np.arange(len(after))[kept])
        assert len(silent) == abs(samples)
        assert not silent.any()
        # Everything made of the sound is made of the shifted one; the pictures stay where they are.
        if shift > 0:
            steps = 4 * shift
            assert np.allclose(
                fixed.mel(name)[steps + 4 : -4], plain.mel(name)[4 : -steps - 4], atol=0.02
            )
        assert np.array_equal(fixed.landmarks(name), plain.landmarks(name))
    assert prepare(wanted).up_to_date
    audit_file(tmp_path, "s0/v,fix,4,later")
    assert not prepare(wanted).up_to_date
    assert PreparedSet(tmp_path / "fixed").row("s0/v").audio_shift_frames == 4


def test_an_audit_of_a_fixed_set_says_what_to_do_to_the_raw_sound(
    raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    prepare(small_job(raw, out, fix_from=audit_file(tmp_path, "s0/v,fix,3,")))
    # Nothing is clear enough to be fixed, so that what was done stays as it is.
    rows = audited(out, tmp_path / "again.csv", "--limit=ridge_clear=9")
    assert (rows["s0/v"]["applied_shift_frames"], rows["s0/v"]["shift_frames"]) == ("3", "3")
    again = prepare(small_job(raw, tmp_path / "twice", fix_from=tmp_path / "again.csv"))
    assert again.report is not None
    assert again.report["audio_shift_frames"] == {"s0/v": 3}


def test_an_audit_of_another_set_is_refused(raw: Path, tmp_path: Path) -> None:
    other = audit_file(tmp_path, "elsewhere/clip,fix,3,")
    with pytest.raises(DataError, match="none of its clips is in this set"):
        prepare(small_job(raw, tmp_path / "set", fix_from=other))
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    with pytest.raises(DataError, match="cannot read the audit"):
        prepare(small_job(raw, tmp_path / "set", drop_from=tmp_path / "absent.csv"))
