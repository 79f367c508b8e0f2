from __future__ import annotations

import csv
import io
import math
import statistics

import pytest

from talkhead.evaluation.measure import Measurement
from talkhead.evaluation.scores import scores_against
from talkhead.evaluation.spaces import MeshSpace
from talkhead.evaluation.summary import (
    Summary,
    summarise,
    table,
)
from talkhead.report.results import clips_csv
from talkhead.report.units import unit_of
from tests.talkhead.evaluation.faces import side

CLIPS = {
    name: Measurement(side(60, seed=10 + i), side(60, seed=i), {"psnr": 30.0 + i}, {"frames": 60})
    for i, name in enumerate(("a", "b/c", "d"))
}
SPACE = MeshSpace.of_clips(list(CLIPS), lambda name: CLIPS[name].reference)
SPACES = [SPACE]


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarise(list(CLIPS), CLIPS.__getitem__, SPACES, training_confidence=2.0)


def test_means_and_spread_by_hand(summary: Summary) -> None:
    assert summary.metrics["psnr"] == pytest.approx(31.0)
    deviation, count = summary.spread["psnr"]
    assert deviation == pytest.approx(1.0)
    assert count == 3
    values = [
        scores_against(c.generated, c.reference, SPACES)["lmd_face[px256]"] for c in CLIPS.values()
    ]
    assert summary.metrics["lmd_face[px256]"] == pytest.approx(statistics.fmean(values))
    assert summary.spread["lmd_face[px256]"][0] == pytest.approx(statistics.stdev(values))
    other = scores_against(CLIPS["b/c"].reference, CLIPS["a"].reference, SPACES)
    row = summary.per_clip[0]
    assert row["shuffled/lmd_face[px256]"] == pytest.approx(other["lmd_face[px256]"])


def test_rows_of_real_clips(summary: Summary) -> None:
    assert summary.metrics["gt/lmd_mouth[px256]"] == 0.0
    assert summary.metrics["gt/fid[inception]"] == pytest.approx(0.0, abs=1e-6)
    assert summary.metrics["fid[inception]"] > summary.metrics["floor/fid[inception]"] > 0
    assert summary.metrics["gt/sync_offset[judge]"] == 0.0
    confidence = summary.metrics["sync_confidence[judge]"]
    assert summary.metrics["sync_nlse[judge]"] == pytest.approx(abs(confidence - 2.0) / 2.0)


def test_a_single_clip_has_no_other_to_be_shuffled_with() -> None:
    alone = summarise(["a"], CLIPS.__getitem__, SPACES)
    assert not [name for name in alone.metrics if name.startswith("shuffled/")]
    assert alone.metrics["psnr"] == 30.0
    assert math.isnan(alone.spread["psnr"][0])


def test_csv_has_a_line_a_clip_and_leaves_gaps_empty(summary: Summary) -> None:
    rows = [*summary.per_clip, {"clip": "e", "psnr": math.nan, "extra": 1}]
    lines = list(csv.DictReader(io.StringIO(clips_csv(rows))))
    assert [line["clip"] for line in lines] == ["a", "b/c", "d", "e"]
    assert float(lines[1]["psnr"]) == 31.0
    assert (lines[3]["psnr"], lines[3]["extra"], lines[0]["extra"]) == ("", "1", "")


def test_table_names_units_directions_and_what_is_missing(summary: Summary) -> None:
    summary.missing = {"lpips[alex]": "give --lpips"}
    text = table(summary, {"clips": "3"})
    lines = text.splitlines()
    assert lines[0] == "- clips: 3"
    assert "| psnr ↑ | dB | 31 ± 1 | - | - | - |" in lines
    assert next(x for x in lines if x.startswith("| lmd_mouth[px256] ↓ | px at 256 |"))
    assert next(x for x in lines if x.startswith("| blink_rate → GT | Hz |"))
    pooled = next(x for x in lines if x.startswith("| fid[inception] ↓"))
    assert "±" not in pooled
    assert lines[-1] == "Missing: lpips[alex]: give --lpips"
    assert "fewer its frames (here 60 to 60, half as many in the floor's halves)" in text
    assert "the fewer the frames (here 180 a side" in text
    assert all(len(x.split("|")) == 8 for x in lines if x.startswith("|"))


def test_every_metric_has_a_unit(summary: Summary) -> None:
    assert [name for name in summary.metrics if not unit_of(name)] == []
    assert unit_of("gt/lmd_face[inter_ocular]") == "eye distances"
