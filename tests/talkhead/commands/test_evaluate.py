from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from talkhead.__main__ import main
from talkhead.commands import evaluate as command
from talkhead.errors import ConfigError, DataError
from talkhead.evaluation.pairs import file_sha256
from talkhead.media.decode import iter_frames
from talkhead.media.encode import write_video
from talkhead.report.results import RunResult
from talkhead.report.write import write_report
from tests.datamodules.prepare.fake_face import write_clip
from tests.talkhead.evaluation.test_judges import checkpoint, small_syncnet
from tests.talkhead.metrics.cases import gaze_network

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


def test_gaze_and_lids_as_a_network_reads_them(clips: Path, tmp_path: Path) -> None:
    network = checkpoint(tmp_path / "g.ckpt", "gaze", gaze_network(), "fixed_box:0.6", 48)
    for name in ("a", "deep/b"):
        frames = list(iter_frames(clips / "real" / f"{name}.mp4"))
        write_video(clips / "still" / f"{name}.mp4", [frames[0]] * len(frames), crf=0)
    perfect = score(clips, tmp_path / "same", "--gaze", str(network))
    frozen = score(clips, tmp_path / "still", "--gaze", str(network), generated="still")
    for name, unit in (("gaze", "half eye widths"), ("lid", "eye widths")):
        full = f"{name}_reading_distance[gaze]"
        assert perfect.metrics[full] == perfect.metrics[f"gt/{full}"] == 0.0
        assert perfect.metrics[f"shuffled/{full}"] > 0
        assert frozen.metrics[full] > 0
        assert perfect.settings["units"][full] == unit
        text = (tmp_path / "same" / "table.md").read_text()
        assert f"| {full} ↓ | {unit} | 0 ± 0 | 0 ± 0 | - |" in text
        assert full in perfect.per_clip[0]
    assert perfect.settings["judges"] == {"gaze": "48 px, fixed_box:0.6"}
    assert perfect.settings["digests"] == {"gaze": file_sha256(network)}
    missing = "*_reading_distance[gaze]"
    assert missing not in perfect.settings["missing"]
    without = score(clips, tmp_path / "without")
    assert without.settings["missing"][missing] == "give --gaze, a checkpoint of stage gaze"
    assert not any("_reading_distance" in name for name in without.metrics)
    assert without.config_digest != perfect.config_digest


def write_track(path: Path, frames: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = 0.1 * np.random.default_rng(seed).standard_normal((frames, 257))
    savemat(path, {"coeff": rows.astype(np.float32)})


def test_face_model_tracks_are_scored_beside_the_mesh(clips: Path, tmp_path: Path) -> None:
    for kind in ("real", "made"):
        write_track(tmp_path / kind / "a.mat", 35, seed=0)
    write_track(tmp_path / "real" / "deep" / "b.mat", 35, seed=1)
    options = ["--generated-tracks", str(tmp_path / "made")]
    options += ["--reference-tracks", str(tmp_path / "real")]
    result = score(clips, tmp_path / "out", *options)
    for name in ("snd", "fid_fm", "fid_dfm", "pose_distance", "expression_distance"):
        assert result.metrics[f"{name}[deep3d]"] == pytest.approx(0.0, abs=1e-6)
        assert result.metrics[f"shuffled/{name}[deep3d]"] > 0
    assert result.metrics["floor/snd[deep3d]"] > 0
    assert result.metrics["var[deep3d]"] == pytest.approx(0.01, rel=0.1)
    assert result.settings["spread"]["var[deep3d]"]["clips"] == 1
    assert result.settings["spread"]["gt/var[deep3d]"]["clips"] == 2
    assert result.settings["units"]["pose_distance[deep3d]"] == "rad"
    missing = "*[deep3d] of deep/b (generated)"
    assert result.settings["missing"][missing] == "no file"
    assert set(result.settings["digests"]) == {"generated_tracks", "reference_tracks"}
    # Coefficients may come later: what was measured stays, another lag is another result.
    again = score(clips, tmp_path / "out", *options, "--generated-track-lag", "2")
    assert again.metrics["pose_distance[deep3d]"] > 0.1
    assert again.metrics["psnr"] == result.metrics["psnr"]
    assert again.config_digest != result.config_digest
    write_track(tmp_path / "made" / "a.mat", 20, seed=0)
    short = score(clips, tmp_path / "out", *options).settings["missing"]
    assert "is it of another video" in short["*[deep3d] of a (generated)"]


def test_tracks_that_cannot_serve_are_refused(clips: Path, tmp_path: Path) -> None:
    write_track(tmp_path / "tracks" / "a.mat", 35, seed=0)
    write_track(tmp_path / "others" / "z.mat", 35, seed=0)
    tracks, others, empty = (str(tmp_path / name) for name in ("tracks", "others", "empty"))
    for words, error, message in (
        (["--generated-tracks", tracks], ConfigError, "pass --reference-tracks, too"),
        (["--reference-tracks", tracks], ConfigError, "pass --generated-tracks, too"),
        (
            ["--generated-tracks", empty, "--reference-tracks", tracks],
            DataError,
            "found none; pass the folder that holds them as --generated-tracks",
        ),
        (
            ["--generated-tracks", tracks, "--reference-tracks", others],
            DataError,
            "--reference-tracks: expected files named as the clips",
        ),
    ):
        with pytest.raises(error, match=message):
            score(clips, tmp_path / "out", *words)
        assert not (tmp_path / "out").exists()


def test_another_stage_or_half_a_file_is_no_gaze_judge(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = checkpoint(tmp_path / "s.ckpt", "syncnet", small_syncnet(), "fixed_box:0.7", 32)
    half = tmp_path / "half.ckpt"
    half.write_bytes(other.read_bytes()[:500])
    folders = ["--generated", str(clips / "same"), "--reference", str(clips / "real")]
    for path, problem in ((other, "expected it to hold 'gaze'"), (half, "truncated")):
        with pytest.raises(SystemExit) as stopped:
            main(["evaluate", *folders, "--out", str(tmp_path / "out"), "--gaze", str(path)])
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert problem in said
        assert said.count("\n") == 1
        assert not (tmp_path / "out").exists()


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
