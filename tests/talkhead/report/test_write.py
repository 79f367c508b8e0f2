from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from talkhead.errors import DataError, MissingDependencyError, ShapeError
from talkhead.report import plots
from talkhead.report.contact_sheet import contact_sheet, evenly, frame_grid
from talkhead.report.plots import mean_power
from talkhead.report.tsne import plot_tsne
from talkhead.report.write import write_report
from tests.talkhead.report.factory import result, samples, write_study


def test_report_writes_tables_and_every_plot(tmp_path: Path) -> None:
    write_study(tmp_path / "runs")
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    assert {p.stem for p in report.plots} == {
        "snd_readout",
        "guidance_readout",
        "traces",
        "spectra",
        "tsne_poses",
        "tsne_expressions",
    }
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in report.plots)
    text = report.markdown.read_text()
    assert "**Synthetic data:**" in text
    assert "![snd_readout](plots/snd_readout.png)" in text
    assert "2.31 (data set not named)" in text
    assert "(here 150 on average, half as many in the floor's halves)" in text
    assert not report.left_out
    assert not [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".partial", ".tmp")]


def test_report_of_real_data_without_samples_says_what_is_left_out(tmp_path: Path) -> None:
    result(synthetic=False).write(tmp_path / "runs" / "metrics.json")
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "Synthetic" not in report.markdown.read_text()
    assert [p.stem for p in report.plots] == ["snd_readout"]
    assert "no samples.npz" in report.left_out[0]


def test_tables_are_written_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result().write(tmp_path / "runs" / "metrics.json")
    with pytest.raises(MissingDependencyError, match=r"talkhead\[report\]"):
        plots.plot_bars([result()], "snd[readout]", tmp_path / "x.png")
    report = write_report([tmp_path / "runs"], tmp_path / "out")
    assert "talkhead[report]" in report.left_out[0]
    assert "table 2" in report.markdown.read_text()


def test_power_of_a_sine_peaks_at_its_frequency() -> None:
    t = np.arange(250) / 25.0
    wave = np.sin(2 * np.pi * 3.125 * t).astype(np.float32)[None, :, None]
    power = mean_power(wave, np.ones((1, 250), np.bool_))
    assert power is not None
    assert np.fft.rfftfreq(64, 1 / 25)[power[:, 0].argmax()] == pytest.approx(3.125)
    assert mean_power(wave[:, :50], np.ones((1, 50), np.bool_)) is None


def test_plots_without_their_numbers_are_not_drawn(tmp_path: Path) -> None:
    assert plots.plot_bars([result()], "snd[code]", tmp_path / "a.png") is None
    assert plots.plot_guidance([result()], "readout", tmp_path / "b.png") is None
    assert plots.plot_traces({}, tmp_path / "c.png") is None
    code = samples(0)
    plain = type(code)(code.generated, code.real, code.valid, code.clips, {"code": slice(0, 15)})
    assert plot_tsne({"x": plain}, ("rotation",), "poses", tmp_path / "d.png") is None
    assert not list(tmp_path.iterdir())


def test_grid_places_frames_and_keeps_the_gap_white() -> None:
    frames = np.zeros((3, 4, 5, 3), np.uint8)
    frames[1] = 100
    sheet = frame_grid(frames, columns=2, gap=2)
    assert sheet.shape == (10, 12, 3)
    assert (sheet[:4, 7:] == 100).all()
    assert (sheet[4:6] == 255).all()
    assert (sheet[6:, 7:] == 255).all()
    with pytest.raises(ShapeError, match="uint8"):
        frame_grid(frames.astype(np.float32), 2)
    with pytest.raises(ShapeError, match="at least 1 column"):
        frame_grid(frames, 0)


def test_frames_are_spread_evenly() -> None:
    assert evenly(3, 8) == [0, 1, 2]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]


def test_contact_sheet_from_frames_and_from_video(tmp_path: Path) -> None:
    import av
    import cv2

    frames = np.zeros((10, 32, 32, 3), np.uint8)
    frames[..., 0] = np.arange(10)[:, None, None] * 25
    path = contact_sheet(frames, tmp_path / "frames.png", count=4, columns=2)
    assert cv2.imread(str(path)).shape == (66, 66, 3)
    assert cv2.imread(str(path))[60, 60, 2] == 225  # the last frame, red, in OpenCV's order
    with av.open(str(tmp_path / "v.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    sheet = cv2.imread(
        str(contact_sheet(tmp_path / "v.mp4", tmp_path / "v.png", count=4, columns=4))
    )
    assert sheet.shape == (32, 4 * 34 - 2, 3)
    assert sheet[16, 120, 2] > 200
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="no readable video"):
        contact_sheet(tmp_path / "broken.mp4", tmp_path / "b.png")
