"""The papers' templates: the rules of their files, and that what they name exists."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml

from talkhead import stages
from talkhead.driving import MODES, DrivingScores
from talkhead.errors import ConfigError
from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.geometry.motion import MotionModel, apply_pose
from talkhead.metrics.rigid_offset import RigidOffset
from talkhead.report.ablation import read_study
from talkhead.report.results import MetricName
from talkhead.report.templates import (
    Printed,
    Template,
    all_templates,
    bound_elsewhere,
    chosen,
    plain_name,
    read_paper,
    template,
)
from talkhead.report.units import UNITS
from talkhead.stages.keypoint_scores import SYNCER, sync_scores_of
from talkhead.stages.motion_evaluation import motion_scores
from talkhead.time_pyramid import window_ms

ROOT = Path(__file__).parents[3]
ALL = list(all_templates().values())
TABLES = [one for one in ALL if one.plot is None]
REQUIRED = {
    *(f"diffusion_prior/{name}" for name in ("table1", "table2", "table4", "tableI")),
    *("diffusion_prior/figure4", "diffusion_prior/figure6", "shallow_diffusion/table1"),
    *(f"ms_sync/table{number}" for number in (1, 2, 3, 4)),
    *("ms_sync/figure6", "controltalk/table1"),
}


def name_of(one: Template) -> str:
    return one.name


def test_every_table_and_figure_asked_for_is_there() -> None:
    assert set(all_templates()) >= REQUIRED


@pytest.mark.parametrize("one", TABLES, ids=name_of)
def test_numbers_keep_their_printed_digits_and_fit_their_columns(one: Template) -> None:
    for dataset, lines in one.published.items():
        assert list(lines) == [row.method for row in one.rows]
        for method in lines:
            numbers = one.numbers(dataset, method)
            assert list(numbers) == [column.id for column in one.columns]
            assert not all(math.isnan(number.value) for number in numbers.values())


def bound(one: Template) -> set[str]:
    return {base for column in one.columns for base in (column.metric, *column.also) if base}


def test_metrics_of_the_stages_are_measured_under_these_names() -> None:
    """Names are taken from the code that makes them, not typed again."""
    motion = motion_scores(torch.randn(2, 12, 3), torch.randn(12, 3), None, "code")
    priors = {MetricName.parse(name).base for name in motion}
    basis = np.zeros((1, 478 * 3), np.float32)
    model = MotionModel(basis[0], basis, 1)
    turns = np.zeros((9, 3), np.float32)
    turns[:, 1] = 0.1 * np.sin(np.arange(9))
    faces = apply_pose(
        np.repeat(canonical_landmarks()[None], 9, 0), turns, np.full((9, 2), 0.5), np.full(9, 0.3)
    )
    points = torch.from_numpy(np.asarray(faces, np.float32))
    standard = (torch.zeros(model.dim), torch.ones(model.dim))
    scorer = SimpleNamespace(_data=SimpleNamespace(motion_model=model), _standard=standard)
    compared = DrivingScores._compare(cast(Any, scorer), points, points)
    driven = {f"{mode}/{name}" for mode in MODES for name in compared}
    for one in TABLES:
        if "lip_disentangle" in one.stages:
            assert bound(one) <= driven
        elif one.stages[0].startswith("motion_"):
            assert bound(one) <= priors


def test_metrics_of_evaluate_are_measured_under_these_names() -> None:
    for one in TABLES:
        if one.stages[0] == "evaluate":
            assert bound(one) <= set(UNITS)


def test_metrics_of_the_rigid_syncer_are_measured_under_these_names() -> None:
    metric = RigidOffset()
    metric.update([(torch.randn(1, 40, 4), torch.randn(1, 40, 4))] * 3)
    for one in TABLES:
        if one.stages[0] == "rigid_syncer":
            assert bound(one) <= {f"rigid_{name}" for name in metric.compute()}


def test_metrics_of_ms_sync_are_measured_under_these_names() -> None:
    scales = [window_ms(level) for level in range(4)]
    level = torch.randn(1, 8, 4), torch.randn(1, 8, 4)
    measured = {f"av_{name}[{SYNCER}]" for name in sync_scores_of([level] * 4, scales)}
    (figure,) = (one for one in ALL if one.plot == "curves")
    assert {column.metric for column in figure.columns} <= measured
    beside = {b for n in (1, 4) for c in template(f"ms_sync/table{n}").columns for b in c.also}
    assert beside == {"av_offset_200ms", "av_confidence_200ms"}
    assert beside <= {MetricName.parse(name).base for name in measured}


@pytest.mark.parametrize("one", ALL, ids=name_of)
def test_stages_and_studies_exist_and_make_the_rows(one: Template) -> None:
    package = Path(stages.__file__).parent
    for stage in one.stages:
        # Results of talkhead evaluate name the command; the rigid syncer has a test of its own above.
        assert stage == "evaluate" or (package / f"{stage}.py").is_file()
    for command in one.commands:
        program, verb, *rest = shlex.split(command)
        assert program == "talkhead"
        if verb == "ablate":
            variants = {plain_name(v.name) for v in read_study(ROOT / rest[0]).variants}
            for row in one.rows:
                names = set(map(plain_name, row.variants))
                assert row.kind != "system" or names & variants, row.method
        elif "--name" in rest:
            system = {plain_name(v) for row in one.rows for v in row.variants}
            assert rest[rest.index("--name") + 1] in system | {"mine"}


def test_the_users_page_names_every_template() -> None:
    text = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    assert [one.name for one in ALL if f"`{one.name}`" not in text] == []


def test_printed_numbers() -> None:
    assert Printed("7.80").value == 7.8
    assert (Printed("1.89±1.92").value, Printed("1.89±1.92").spread) == (1.89, 1.92)
    assert math.isnan(Printed("-").value)
    assert math.isnan(Printed("7.80").spread)


def test_names_bind_however_they_are_punctuated() -> None:
    table = template("diffusion_prior/tableI")
    for name in ("guidance_2.5", "guidance_2_5", "Guidance-2.5"):
        row = table.row_of(name)
        assert row is not None
        assert row.method == "s = 2.5"
    assert table.row_of("diffusion") is None
    assert {"diffusion", "no_velocity"} <= bound_elsewhere(table)
    assert "guidance_0" not in bound_elsewhere(table)
    assert "ms_sync" not in bound_elsewhere(table)


def test_templates_are_chosen_by_name_and_pattern() -> None:
    assert [t.name for t in chosen(["ms_sync/table[12]", "ms_sync/table1"])] == [
        "ms_sync/table1",
        "ms_sync/table2",
    ]
    with pytest.raises(ConfigError, match="did you mean diffusion_prior/table2"):
        chosen(["diffusion_prior/tabel2"])
    with pytest.raises(ConfigError, match="--list-templates"):
        chosen(["xyz*"])


GOOD: dict[str, Any] = {
    "printed": "Table 9",
    "title": "t",
    "stages": ["evaluate"],
    "columns": [{"id": "fid", "name": "FID"}, {"id": "snd", "name": "SND"}],
    "rows": [{"method": "GT", "reference": "gt"}, {"method": "Ours", "variants": ["a", "b"]}],
    "published": {"D": "GT | - -\nOurs | 1.0 2.0±0.1"},
}


def read(**changes: Any) -> Template:
    body = {key: value for key, value in (GOOD | changes).items() if value is not None}
    text = yaml.safe_dump({"paper": "P", "templates": {"t": body}})
    return read_paper("p", text)["p/t"]


def test_a_template_is_read() -> None:
    one = read()
    assert one.numbers("D", "Ours")["snd"].text == "2.0±0.1"
    assert one.numbers("D", "Theirs") == {}
    assert one.has_dash("GT", "fid")
    assert not one.has_dash("Ours", "fid")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"published": {"D": "GT | - -\nOurs | 1.0"}}, "row 'Ours' has .* expected 2 numbers"),
        ({"published": {"D": "GT | - -\nOurs | 1.0 2.0 3.0"}}, "expected 2 numbers"),
        ({"published": {"D": "GT | - -\nOurs | 1.0 2,0"}}, "expected 2 numbers"),
        ({"published": {"D": "GT | - -"}}, "expected the rows"),
        ({"published": {"D": "GT | - -\nOurs | 1 2\nOurs | 1 2"}}, "expected the rows"),
        ({"rows": [{"method": "GT", "reference": "gtt"}]}, "reference 'gtt'"),
        ({"rows": [{"method": "GT", "variants": ["a"], "external": ["b"]}]}, "exactly one of"),
        ({"rows": GOOD["rows"] + [{"method": "C", "variants": ["A"]}]}, "variant a stands twice"),
        ({"rows": GOOD["rows"] * 2}, "row GT, Ours stands twice"),
        ({"columns": [{"id": "fid", "name": "a"}] * 2}, "column fid stands twice"),
        ({"columns": [{"id": "fid", "name": "a", "better": "more"}]}, "better: 'more'"),
        ({"columns": [{"id": "fid", "name": "a", "metrics": "x"}]}, "'metrics'"),
        ({"stage": ["x"]}, "'stage'"),
        ({"title": None}, "expected the keys"),
        ({"plot": "bars", "columns": None, "published": None}, "plot among"),
        ({"plot": "poses", "published": None}, "'columns'"),
        ({"plot": "curves", "columns": None, "published": None}, "expected the keys"),
        ({"plot": "curves", "published": None}, "every panel of a plot needs a metric"),
    ],
)
def test_broken_templates_say_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(**changes)
