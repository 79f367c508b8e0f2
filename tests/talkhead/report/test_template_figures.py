"""Figures 4 and 6 of paper 1 from kept samples, and the command that writes templates."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from talkhead.commands import report
from talkhead.errors import ConfigError, DataError
from talkhead.geometry import face_topology as topology
from talkhead.media.encode import write_video
from talkhead.report import template_figures
from talkhead.report.face_strips import descriptor_faces, rotation_speed
from talkhead.report.results import find_results
from talkhead.report.template_figures import draw
from talkhead.report.templates import template
from talkhead.report.write import write_report, write_templates
from tests.talkhead.report.factory import LAYOUT, prior_metrics, result, samples

FIGURE_4 = template("diffusion_prior/figure4")
FIGURE_6 = template("diffusion_prior/figure6")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two priors with samples of the same clips, one without."""
    for seed, variant in enumerate(("diffusion", "no_velocity", "ar")):
        place = tmp_path / "runs" / variant
        stage = "motion_ar" if variant == "ar" else "motion_diffusion"
        result(variant, metrics=prior_metrics(2.0), stage=stage).write(place / "metrics.json")
        if variant != "ar":
            samples(seed, frames=40).write(place / "samples.npz")
    return tmp_path / "runs"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Six grey frames, from dark to light."""
    path = tmp_path / "video.mp4"
    levels = np.linspace(40, 200, 6).astype(np.uint8)
    write_video(path, np.broadcast_to(levels[:, None, None, None], (6, 32, 32, 3)))
    return path


def records(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_poses_of_every_method_or_that_it_is_missing(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_figures, "POSE_FRAMES", 25)
    figure = draw(FIGURE_4, find_results([runs]), tmp_path)
    assert [path.name for path in figure.pictures] == ["figure4.png"]
    rows = records(figure.csv())
    count = {row: [r["state"] for r in rows if r["row"] == row] for row in {r["row"] for r in rows}}
    assert count["GT"] == count["Ours + Diff."] == ["drawn"] * 25
    assert count["Ours + AR"] == count["MakeItTalk"] == count["Audio2head"] == ["missing"]
    text = figure.markdown()
    assert "![figure4](figure4.png)" in text
    assert "- talkhead: Ours + AR: missing" in text
    assert "- talkhead: Ours + Diff.: `diffusion`, samples.npz" in text


def test_frames_of_one_clip_and_how_fast_the_heads_turn(runs: Path, tmp_path: Path) -> None:
    figure = draw(FIGURE_6, find_results([runs]), tmp_path)
    assert figure.pictures[0].read_bytes().startswith(b"\x89PNG")
    rows = records(figure.csv())
    assert {r["clip"] for r in rows} == {"s0/c0"}
    one = samples(1, frames=40)
    steps = np.linalg.norm(np.diff(one.generated[0, :, :3], axis=0), axis=1)
    ours = [float(r["head_turn_deg_per_s"]) for r in rows if r["row"] == "w/o L_vel"]
    np.testing.assert_allclose(ours, 25 * 180 / np.pi * steps, rtol=1e-5)
    real = [float(r["head_turn_deg_per_s"]) for r in rows if r["row"] == "GT"]
    assert len(real) == 39
    assert real != ours


def test_figures_without_samples_say_so(tmp_path: Path) -> None:
    result().write(tmp_path / "runs" / "metrics.json")
    for known in (FIGURE_4, FIGURE_6):
        figure = draw(known, find_results([tmp_path / "runs"]), tmp_path)
        assert figure.pictures == []
        assert "no run kept samples.npz" in figure.markdown()


def test_codes_are_no_faces(tmp_path: Path) -> None:
    """Samples of a learned code have no angles to draw."""
    result().write(tmp_path / "runs" / "metrics.json")
    codes = replace(samples(0), layout={"code": slice(0, 15)})
    codes.write(tmp_path / "runs" / "samples.npz")
    for known in (FIGURE_4, FIGURE_6):
        figure = draw(known, find_results([tmp_path / "runs"]), tmp_path)
        assert figure.pictures == []
        assert "not drawn" in figure.markdown()


def test_a_video_stands_in_place_of_drawn_faces(runs: Path, tmp_path: Path, video: Path) -> None:
    videos = {"no_velocity": video}
    figure = draw(FIGURE_6, find_results([runs]), tmp_path, videos)
    assert "w/o L_vel: `no_velocity`, frames of video.mp4" in figure.markdown()
    alone = draw(FIGURE_6, [], tmp_path / "alone", videos)
    assert [r["state"] for r in records(alone.csv())] == ["missing", "missing", "video"]
    assert alone.pictures[0].is_file()


def test_faces_have_the_pose_and_openings_of_their_descriptors() -> None:
    motion = np.zeros((2, 15), np.float32)
    motion[:, LAYOUT["translation"]] = 0.5
    motion[:, LAYOUT["scale"]] = 0.3
    motion[:, LAYOUT["eyes"]] = 0.25
    motion[:, LAYOUT["mouth"]] = 0.2
    motion[1, LAYOUT["rotation"]] = (0.0, 0.0, 0.1)
    motion[1, LAYOUT["mouth"]] = 0.4
    faces = descriptor_faces(motion, LAYOUT)
    assert faces is not None
    eyes = faces[:, topology.EYE_OUTER]
    across = eyes[:, 1] - eyes[:, 0]
    np.testing.assert_allclose(np.arctan2(across[:, 1], across[:, 0]), [0.0, 0.1], atol=1e-3)
    lips = faces[:, topology.INNER_LIP_PAIR]
    apart = np.linalg.norm(lips[:, 1] - lips[:, 0], axis=1) / np.linalg.norm(across, axis=1)
    # The canonical lips lie 0.02 behind one another in depth, which no opening changes.
    np.testing.assert_allclose(apart, [0.2, 0.4], atol=0.002)
    assert descriptor_faces(motion, {"code": slice(0, 15)}) is None
    assert descriptor_faces(motion, LAYOUT | {"mouth": slice(13, 14)}) is None


def test_a_steady_turn_has_its_speed() -> None:
    motion = np.zeros((5, 15), np.float32)
    motion[:, 1] = np.radians(np.arange(5))
    np.testing.assert_allclose(rotation_speed(motion, LAYOUT), [25.0] * 4, rtol=1e-5)


def test_command_writes_templates(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_figures, "POSE_FRAMES", 20)
    out = tmp_path / "out"
    wanted = ["--template=diffusion_prior/*", "--template=ms_sync/table4", f"--out={out}"]
    assert report.main([str(runs), *wanted]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed) == sorted(str(path) for path in out.rglob("*.*"))
    names = ("table1", "table2", "table4", "tableI", "multimodality", "figure4", "figure6")
    written = {path.relative_to(out).as_posix() for path in out.rglob("*.md")}
    assert written == {*(f"diffusion_prior/{name}.md" for name in names), "ms_sync/table4.md"}
    assert (out / "diffusion_prior" / "table2.csv").read_text().startswith("template,row,source")


def test_command_lists_templates_and_needs_something_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["--list-templates"]) == 0
    text = capsys.readouterr().out
    assert "diffusion_prior/table2: Table 2, Variance and naturalness" in text
    assert "controltalk/figure8: " in text
    out = f"--out={tmp_path / 'out'}"
    for args, message in (
        ([out], "expected folders with runs"),
        (["--template=ms_sync/table1"], "give --out DIR"),
        ([out, "--template=table1"], "no template 'table1'"),
        ([out, "--template=ms_sync/table1", "--video=x"], "expected VARIANT=FILE"),
        (
            [out, "--template=ms_sync/table1", "--space=x"],
            "no result was measured in 'x'; there are none",
        ),
        ([out, "--space=x", str(tmp_path)], "add --template NAME"),
    ):
        with pytest.raises(ConfigError, match=message):
            report.main(args)
    assert report.main([out, "--template=ms_sync/table1"]) == 0
    assert "talkhead: `ms_sync`" in (tmp_path / "out" / "ms_sync" / "table1.md").read_text()


def test_nothing_is_written_when_the_last_template_is_refused(runs: Path, tmp_path: Path) -> None:
    result("mine", stage="evaluate", metrics={"fid[x]": 1.0}).write(tmp_path / "a" / "metrics.json")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    names = ["diffusion_prior/table2", "ms_sync/table3"]
    with pytest.raises(DataError, match="two results for variant 'mine', seed 0"):
        write_templates([runs, tmp_path / "a", tmp_path / "b"], tmp_path / "out", names)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    names = ["diffusion_prior/table2", "diffusion_prior/figure6"]
    with pytest.raises(DataError, match="holds no readable video"):
        write_templates([runs], tmp_path / "out", names, videos={"diffusion": broken})
    with pytest.raises(DataError, match="holds no readable video"):
        write_report([runs], tmp_path / "out", videos={"diffusion": broken})
    assert not (tmp_path / "out").exists()


def test_figures_are_left_out_without_matplotlib_or_plots(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["diffusion_prior/figure6", "diffusion_prior/table2"]
    off = write_templates([runs], tmp_path / "off", names, plots=False)
    assert off.left_out == ["diffusion_prior/figure6: plots are off"]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    without = write_templates([runs], tmp_path / "without", names)
    assert "talkhead[report]" in without.left_out[0]
    assert [path.name for path in without.files] == ["table2.md", "table2.csv"]


def test_report_shows_contact_sheets_of_samples_and_named_videos(
    tmp_path: Path, video: Path
) -> None:
    run = tmp_path / "runs" / "full"
    result("full", stage="lip_disentangle", metrics={"loss": 1.0}).write(run / "metrics.json")
    (run / "samples").mkdir()
    (run / "samples" / "step_00000001.mp4").write_bytes(b"an older one, not read")
    (run / "samples" / "step_00000002.mp4").write_bytes(video.read_bytes())
    done = write_report([run], tmp_path / "out", videos={"talking": video})
    assert [path.name for path in done.sheets] == ["full_seed0.png", "talking.png"]
    assert "![talking](sheets/talking.png)" in done.markdown.read_text()
    (run / "samples" / "step_00000003.mp4").write_bytes(b"broken")
    again = write_report([run], tmp_path / "again")
    assert again.sheets == []
    assert any("no readable video" in reason for reason in again.left_out)
    with pytest.raises(DataError, match="no readable video"):
        write_report([run], tmp_path / "third", videos={"x": run / "samples/step_00000003.mp4"})
