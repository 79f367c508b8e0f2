from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from talkhead.__main__ import main
from talkhead.commands import evaluate as command
from talkhead.errors import ConfigError, DataError
from talkhead.media.decode import iter_frames
from talkhead.media.encode import write_video
from talkhead.report.results import RunResult
from talkhead.report.write import write_report
from tests.datamodules.prepare.fake_face import write_clip
from tests.talkhead.evaluation.test_judges import checkpoint, small_syncnet

FAKE = "tests.datamodules.prepare.fake_face:FakeFace"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real clips ``a`` and ``deep/b`` in ``real``, the same ones in ``same``."""
    root = tmp_path_factory.mktemp("clips")
    write_clip(root / "real" / "a.mp4", 1.4, seed=0)
    write_clip(root / "real" / "deep" / "b.mp4", 1.4, seed=1)
    shutil.copytree(root / "real", root / "same")
    return root


def score(clips: Path, out: Path, *more: str, generated: str = "same") -> RunResult:
    words = ["--generated", str(clips / generated), "--reference", str(clips / "real")]
    words += ["--out", str(out), "--workers", "0", "--size", "64", *more]
    command.evaluate(command.parser().parse_args(words), "talkhead evaluate …", FAKE)
    return RunResult.read(out / "metrics.json")


def test_clips_against_themselves_give_the_perfect_row(clips: Path, tmp_path: Path) -> None:
    syncnet = checkpoint(tmp_path / "s.ckpt", "syncnet", small_syncnet(), "fixed_box:0.7", 32)
    result = score(clips, tmp_path / "out", "--syncnet", str(syncnet), "--synthetic")
    perfect = {k: v for k, v in result.metrics.items() if "lmd" in k and "shuffled" not in k}
    assert len(perfect) == 12
    assert set(perfect.values()) == {0.0}
    assert result.metrics["psnr"] == 100.0
    assert result.metrics["ssim"] == pytest.approx(1.0, abs=1e-9)
    for name in ("blink_rate", "sync_confidence[syncnet]", "var[descriptor]", "found"):
        assert result.metrics[name] == result.metrics[f"gt/{name}"]
    assert result.metrics["shuffled/mouth_distance"] > 0
    assert (result.stage, result.variant, result.extractor) == ("evaluate", "same", "fake")
    assert (result.data.clips, result.data.frames, result.data.dataset) == (2, 70, "real")
    settings = result.settings
    assert (settings["fps"], settings["crop"]) == (25, "64 px, fixed_box:0.5, of the real video")
    assert settings["judges"] == {"syncnet": "32 px, fixed_box:0.7"}
    assert len(settings["digests"]["syncnet"]) == 64
    assert settings["units"]["lmd_mouth[px256]"] == "px at 256"
    assert settings["spread"]["psnr"] == {"std": 0.0, "clips": 2}
    assert set(settings["missing"]) >= {"lpips[alex]", "fid[inception_v3]", "sync_nlse"}
    rows = list(csv.DictReader((tmp_path / "out" / "per_clip.csv").read_text().splitlines()))
    assert [row["clip"] for row in rows] == ["a", "deep/b"]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Missing: lpips[alex]" in text
    # An untrained judge finds the sound of the real clips anywhere.
    assert result.metrics["gt/sync_offset[syncnet]"] > 3
    assert "- unfit judge: gt/sync_offset[syncnet] is" in text
    assert result.data.synthetic
    report = write_report([tmp_path / "out"], tmp_path / "report", plots=False)
    written = report.markdown.read_text()
    assert "| psnr ↑ (dB) |" in written
    assert "- rate: 25 fps\n- crop: 64 px, fixed_box:0.5, of the real video\n" in written
    assert f"- files of the judges: syncnet {settings['digests']['syncnet'][:12]}\n" in written


def test_copies_are_worse_in_the_way_they_were_spoiled(clips: Path, tmp_path: Path) -> None:
    for name in ("a", "deep/b"):
        frames = [p.copy() for p in iter_frames(clips / "real" / f"{name}.mp4")]
        frozen, late = [frames[0]] * len(frames), [frames[0]] * 3 + frames[:-3]
        lighter = [p + np.uint8(12) for p in frames]
        for kind, spoiled in (("frozen", frozen), ("late", late), ("lighter", lighter)):
            write_video(clips / kind / f"{name}.mp4", spoiled, crf=0)
    results = {
        kind: score(clips, tmp_path / kind, generated=kind).metrics
        for kind in ("frozen", "late", "lighter")
    }
    assert results["frozen"]["var[descriptor]"] < 1e-3 < results["frozen"]["gt/var[descriptor]"]
    assert results["frozen"]["jitter[px256]"] == pytest.approx(0.0, abs=1e-6)
    assert results["late"]["pose_distance[descriptor]"] == pytest.approx(0.0, abs=1e-4)
    assert results["late"]["lmd_mouth[px256]"] > 0
    # 8-bit luma has 219 steps for 255, so that 12 arrives as 10 of them.
    by_hand = 20 * np.log10(219 / 10)
    assert results["lighter"]["psnr"] == pytest.approx(by_hand, abs=0.2)


def test_a_repeated_command_measures_only_what_changed(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "videos"
    shutil.copytree(clips / "real", ours / "real")
    shutil.copytree(clips / "real", ours / "same")
    first = score(ours, tmp_path / "out")
    measured: list[str] = []
    from datamodules.prepare import tracked

    real = tracked.TrackedVideo.__init__

    def counted(self: tracked.TrackedVideo, path: Path, *more: object) -> None:
        measured.append(path.name)
        real(self, path, *more)  # type: ignore[arg-type]  # passes on what it was given

    monkeypatch.setattr(tracked.TrackedVideo, "__init__", counted)
    again = score(ours, tmp_path / "out")
    assert measured == []
    assert again.metrics == first.metrics
    shutil.copy(ours / "real" / "deep" / "b.mp4", ours / "same" / "a.mp4")
    changed = score(ours, tmp_path / "out")
    assert measured == ["a.mp4", "a.mp4"]  # each file of the pair once
    assert changed.metrics["psnr"] < first.metrics["psnr"]
    (tmp_path / "out" / "clips" / "deep" / "b.npz").write_bytes(b"half a file")
    score(ours, tmp_path / "out", "--size", "64")
    assert measured[2:] == ["b.mp4", "b.mp4"]


def test_workers_measure_the_same(clips: Path, tmp_path: Path) -> None:
    here = score(clips, tmp_path / "here")
    there = score(clips, tmp_path / "there", "--workers", "1")
    assert there.metrics == pytest.approx(here.metrics, rel=1e-9, nan_ok=True)


def test_files_that_cannot_be_used_are_left_out_and_said(clips: Path, tmp_path: Path) -> None:
    ours = tmp_path / "videos"
    shutil.copytree(clips / "real", ours / "real")
    shutil.copytree(clips / "real", ours / "same")
    (ours / "same" / "a.mp4").write_bytes(b"no video")
    result = score(ours, tmp_path / "out")
    assert result.data.clips == 1
    assert "corrupt or unknown file" in result.settings["left_out"]["a"]
    assert "left out: a (" in (tmp_path / "out" / "table.md").read_text()
    (ours / "same" / "deep" / "b.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"no pair could be measured: a .*deep/b .*is empty"):
        score(ours, tmp_path / "out")


def test_lengths_that_differ_and_missing_partners_are_said(clips: Path, tmp_path: Path) -> None:
    ours = tmp_path / "videos"
    shutil.copytree(clips / "real", ours / "real")
    frames = list(iter_frames(ours / "real" / "a.mp4"))[:-4]
    write_video(ours / "same" / "a.mp4", frames)
    with pytest.raises(DataError, match=r"deep/b only in .*--allow-missing"):
        score(ours, tmp_path / "out")
    result = score(ours, tmp_path / "out", "--allow-missing")
    assert result.data.frames == 31
    text = (tmp_path / "out" / "table.md").read_text()
    assert "- cut to the common part: a 31 and 35 frames (generated and real)" in text
    assert "- silent file, judged with the real sound: a" in text
    assert "deep/b only in" in text


def test_bad_options_are_refused(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["--size", "8"], "64 to 1024"),
        (["--face-share", "0.9"], r"0\.2 to 0\.8"),
        (["--fid-every", "0"], "at least 1"),
        (["--sface", "absent.onnx"], "absent.onnx"),
        (["--motion-space", "absent"], "expected a prepared set in absent"),
        (["--training-confidence", "0", "--syncnet", "x"], "above 0, got 0"),
        (["--training-confidence", "nan", "--syncnet", "x"], "above 0, got nan"),
        (["--training-confidence", "7.35"], "give --syncnet"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            score(clips, tmp_path / "out", *words)
        assert not (tmp_path / "out").exists()
    for folder in ("same", "real"):
        with pytest.raises(ConfigError, match="another folder"):
            score(clips, clips / folder)
    absent = ["evaluate", "--generated", "absent", "--reference", "absent", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        main(absent)
    assert stopped.value.code == 2
    assert "--generated: expected a folder of videos" in capsys.readouterr().err
