"""Figure 6 of paper 3 from ``curves.csv``: every point checked in the figure's own CSV."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from talkhead.errors import DataError
from talkhead.report.curves import CurvePoint, write_curves
from talkhead.report.results import find_results
from talkhead.report.template_curves import draw_curves
from talkhead.report.templates import PaperColumn, PaperRow, template
from talkhead.report.write import write_templates
from tests.talkhead.report.factory import result

FIGURE = template("ms_sync/figure6")
SCALES = (200, 400, 800)
STEPS = (100, 200, 300)


def write_run(
    root: Path,
    variant: str,
    seed: int,
    *,
    steps: tuple[int, ...] = STEPS,
    fingerprint: str = "abc123abc123abc123",
) -> Path:
    """A run whose confidences are step / 1000, 0.1 more a scale and 0.2 more a seed."""
    folder = root / variant / f"seed{seed}"
    levels = {f"gt/av_confidence_{ms}ms[syncer]": ms / 200 for ms in SCALES}
    made = result(variant, seed, levels, stage="ms_sync", fingerprint=fingerprint)
    made.write(folder / "metrics.json")
    write_curves(
        folder / "curves.csv",
        [
            CurvePoint(step, name, value)
            for step in steps
            for name, value in [
                ("val/loss", 9.0),
                *(
                    (f"val/av_confidence_{ms}ms[syncer]", step / 1000 + i / 10 + seed / 5)
                    for i, ms in enumerate(SCALES)
                ),
            ]
        ],
    )
    return folder


def records(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def of(rows: list[dict[str, str]], **wanted: str) -> list[dict[str, str]]:
    return [row for row in rows if wanted.items() <= row.items()]


def test_mean_and_spread_over_seeds_of_every_variant_on_every_level(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "runs", "ms_sync", seed)
    write_run(tmp_path / "runs", "single_scale", 0)
    figure = draw_curves(FIGURE, find_results([tmp_path / "runs"]), tmp_path)
    assert [path.read_bytes()[:4] for path in figure.pictures] == [b"\x89PNG"]
    rows = records(figure.csv())
    multi = of(rows, variant="ms_sync", panel="400 ms")
    assert [row["step"] for row in multi] == ["100", "200", "300"]
    assert [float(row["value"]) for row in multi] == pytest.approx([0.3, 0.4, 0.5])
    # Two seeds 0.2 apart have a sample deviation of 0.2 / sqrt 2.
    assert [float(row["spread"]) for row in multi] == pytest.approx([0.02**0.5] * 3)
    assert {row["seeds"] for row in multi} == {"2"}
    single = of(rows, variant="single_scale", panel="200 ms")
    assert [float(row["value"]) for row in single] == pytest.approx([0.1, 0.2, 0.3])
    assert {(row["spread"], row["seeds"]) for row in single} == {("", "1")}
    (real,) = of(rows, row="Real motion", panel="800 ms")
    assert (real["value"], real["step"], real["state"]) == ("4.0", "", "drawn")
    assert real["metric"] == "gt/av_confidence_800ms[syncer]"
    text = figure.markdown()
    assert "- talkhead: Multi-scale loss: `ms_sync`, curves.csv of seeds 0, 1\n" in text
    assert "- talkhead: Real motion: GT (real motion), dashed, of the test" in text
    assert "which the paper leaves out (`val/av_confidence_1600ms[syncer]`): missing" in text


def test_a_single_variant_is_drawn_and_the_others_are_missing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "single_scale", 0)
    result("single_scale", 1, {"loss": 1.0}, stage="ms_sync").write(
        tmp_path / "runs/single_scale/seed1/metrics.json"
    )
    figure = draw_curves(FIGURE, find_results([tmp_path / "runs"]), tmp_path)
    assert len(figure.pictures) == 1
    text = figure.markdown()
    assert "- talkhead: Multi-scale loss: missing" in text
    assert "Finest scale only: `single_scale`, curves.csv of seed 0; none of seed 1" in text
    missing = of(records(figure.csv()), state="missing", variant="ms_sync")
    assert [row["panel"] for row in missing] == [column.name for column in FIGURE.columns]
    (folder / "curves.csv").unlink()
    nothing = draw_curves(FIGURE, find_results([tmp_path / "runs"]), tmp_path)
    assert nothing.pictures == []
    assert "no run kept curves.csv: every row is missing" in nothing.markdown()
    assert {row["state"] for row in records(nothing.csv())} == {"missing"}


def test_seeds_that_were_stopped_do_not_enter_later_means(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "ms_sync", 0)
    stopped = write_run(tmp_path / "runs", "ms_sync", 1, steps=(100,))
    write_curves(
        stopped / "curves.csv",
        [
            CurvePoint(100, "val/av_confidence_200ms[syncer]", 0.3),
            CurvePoint(200, "val/av_confidence_200ms[syncer]", float("nan")),
        ],
    )
    rows = records(draw_curves(FIGURE, find_results([tmp_path / "runs"]), tmp_path).csv())
    fine = of(rows, variant="ms_sync", panel="200 ms")
    assert [(row["step"], row["seeds"]) for row in fine] == [
        ("100", "2"),
        ("200", "1"),
        ("300", "1"),
    ]
    assert [float(row["value"]) for row in fine] == pytest.approx([0.2, 0.2, 0.3])


def test_other_data_are_drawn_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "ms_sync", 0)
    write_run(tmp_path / "b", "ms_sync", 0, fingerprint="other")
    figure = draw_curves(FIGURE, find_results([tmp_path]), tmp_path)
    assert [path.name for path in figure.pictures] == ["figure6_A.png", "figure6_B.png"]
    assert {row["source"] for row in records(figure.csv())} == {"talkhead A", "talkhead B"}


def test_any_score_and_several_variants_of_a_row(tmp_path: Path) -> None:
    for variant in ("one", "two"):
        write_run(tmp_path / "runs", variant, 0)
    other = replace(
        FIGURE,
        rows=(PaperRow("Both", ("one", "two")),),
        columns=(PaperColumn("loss", "Loss", "loss", "lower"),),
    )
    figure = draw_curves(other, find_results([tmp_path / "runs"]), tmp_path)
    rows = records(figure.csv())
    assert {(row["variant"], row["value"]) for row in rows} == {("one", "9.0"), ("two", "9.0")}
    assert len(figure.pictures) == 1


def test_the_command_writes_it_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "runs", "ms_sync", 0)
    names = ["ms_sync/figure6"]
    done = write_templates([tmp_path / "runs"], tmp_path / "out", names)
    assert {p.name for p in done.files} == {"figure6.md", "figure6.csv", "figure6.png"}
    assert "![figure6](figure6.png)" in (tmp_path / "out/ms_sync/figure6.md").read_text()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        without = write_templates([tmp_path / "runs"], tmp_path / "without", names)
    assert "talkhead[report]" in without.left_out[0]
    (folder / "curves.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="expected lines of step,name,value"):
        write_templates([tmp_path / "runs"], tmp_path / "broken", ["ms_sync/table1", *names])
    assert not (tmp_path / "broken").exists()
