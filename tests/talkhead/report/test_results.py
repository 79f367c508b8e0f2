from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from talkhead.errors import DataError, ShapeError
from talkhead.report.results import MetricName, RunResult, find_results
from talkhead.report.samples import MotionSamples
from tests.talkhead.report.factory import result, samples


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.json"
    original = result(metrics={"snd[code]": 1.5, "odd": math.nan})
    original.write(path)
    again = RunResult.read(path)
    assert again.metrics["snd[code]"] == 1.5
    assert math.isnan(again.metrics["odd"])
    assert json.loads(path.read_text())["metrics"]["odd"] is None
    assert (again.variant, again.seed, again.data) == ("diffusion", 0, original.data)
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 1, got 2"),
        ({"seed": "0"}, "'seed' to be a int, got '0'"),
        ({"seed": True}, "'seed' to be a int"),
        ({"data": {}}, "'dataset'"),
        ({"metrics": {"snd": "low"}}, "metric 'snd' is 'low'"),
        ({"variant": None}, "'variant'"),
    ],
)
def test_wrong_files_say_what_is_wrong(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({**result().to_json(), **change}))
    with pytest.raises(DataError, match=message):
        RunResult.read(path)


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(result().to_json())[:50])
    with pytest.raises(DataError, match="cannot be read as JSON"):
        RunResult.read(path)
    with pytest.raises(DataError, match="does not exist"):
        find_results([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no metrics\.json below"):
        find_results([tmp_path / "empty"])


def test_search_is_recursive_ordered_and_skips_superseded_runs(tmp_path: Path) -> None:
    for name in ("b/seed1", "a/seed0", ".superseded/a-seed0-0"):
        result(name).write(tmp_path / name / "metrics.json")
    assert [r.variant for r in find_results([tmp_path, tmp_path / "a"])] == ["a/seed0", "b/seed1"]


@pytest.mark.parametrize("name", ["snd", "snd[code]", "floor/snd[readout]", "gt/var", "loss/x"])
def test_metric_names_split_and_join(name: str) -> None:
    assert str(MetricName.parse(name)) == name


def test_metric_name_parts() -> None:
    parsed = MetricName.parse("floor/fid_fm[retracked]")
    assert (parsed.base, parsed.reference, parsed.space) == ("fid_fm", "floor", "retracked")


def test_samples_survive_their_file(tmp_path: Path) -> None:
    one = samples(0)
    one.write(tmp_path / "samples.npz")
    again = MotionSamples.read(tmp_path / "samples.npz")
    assert again.layout == one.layout
    assert again.group("gaze", real=True).shape == (2 * 80 + 70, 2)
    (tmp_path / "samples.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match="no motion samples"):
        MotionSamples.read(tmp_path / "samples.npz")
    with pytest.raises(ShapeError, match="valid"):
        MotionSamples(one.generated, one.real, one.valid[:, :5], one.clips, one.layout)
