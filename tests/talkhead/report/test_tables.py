from __future__ import annotations

import csv
import io

import pytest

from talkhead.errors import DataError
from talkhead.report import published
from talkhead.report.build import build_tables, comparable_groups
from talkhead.report.results import RunResult
from talkhead.report.tables import Cell, direction_of, write_csv
from tests.talkhead.report.factory import prior_metrics, result


def test_published_rows_add_up_and_match_the_definitions() -> None:
    rows = published.published_rows
    for row in (*rows(published.TABLE_2), *rows(published.TABLE_I)):
        if "snd" in row.values:
            total = row.values["fid_fm"] + row.values["fid_dfm"]
            # Printed to two digits, so a sum may be off by one in the last.
            assert row.values["snd"] == pytest.approx(total, abs=0.011)
    for row in rows(published.TABLE_1):
        gap = abs(row.values["sync_confidence"] - row.values["sync_confidence_training"])
        expected = gap / row.values["sync_confidence_training"]
        assert row.values["sync_nlse"] == pytest.approx(expected, abs=0.011)


def test_variants_find_their_published_row() -> None:
    found = published.published_for(published.TABLE_2, "diffusion")
    assert found is not None
    assert found.values["snd"] == 4.68
    for name in ("guidance_2.5", "guidance_2_5", "guidance-2.5"):
        guided = published.published_for(published.TABLE_I, name)
        assert guided is not None
        assert guided.values["fid_fm"] == 3.60
    assert published.guidance_of("diffusion") is None
    assert published.published_for(published.TABLE_2, "mine") is None


def test_cells_state_mean_spread_and_seed_count() -> None:
    assert Cell((2.0, 2.2, 2.4)).text() == "2.20 ± 0.200 (3 seeds)"
    assert Cell((2.0,)).text() == "2.00 (1 seed)"
    assert Cell().text() == "-"


def study() -> list[RunResult]:
    runs: list[RunResult] = []
    for seed in range(3):
        runs.append(result("ar", seed, prior_metrics(4.0 + seed, 2.0), stage="motion_ar"))
        runs.append(result("diffusion", seed, prior_metrics(2.0 + 0.1 * seed, 1.1)))
    return runs


def test_motion_of_other_systems_has_no_column_of_paper_1() -> None:
    runs = [result("ms_sync", seed, prior_metrics(3.0), stage="ms_sync") for seed in range(2)]
    table = build_tables(runs)[0]
    assert table.title.startswith("Variance and naturalness")
    text = table.markdown()
    assert "aper 1" not in table.title
    assert "MakeItTalk" not in text
    assert "67 face-model coefficients" not in text
    assert "equal length, beside the floor" in text
    assert "floor" in text


def test_table_2_has_references_ours_and_the_papers_numbers() -> None:
    table, rest = build_tables(study())
    text = table.markdown()
    assert "table 2" in table.title
    names = [r.name for r in table.rows]
    assert names[:5] == [
        "GT (real motion)",
        "real against real (floor)",
        "training mean, repeated",
        "ar",
        "diffusion",
    ]
    assert "MakeItTalk" in names
    assert "| **2.10 ± 0.100 (3 seeds)** |" in text
    assert "| 4.68 |" in next(line for line in text.splitlines() if line.startswith("| diffusion"))
    for fact in (
        "embedded (synthetic)",
        "mediapipe",
        "abc123abc123",
        "3 (0, 1, 2)",
        "talkhead test",
    ):
        assert fact in text
    assert "MakeItTalk *(published)*" in text
    assert list(rest.columns) == ["loss"]


def test_var_is_best_where_it_is_closest_to_the_real_motion() -> None:
    table = build_tables(study())[0]
    assert table.best("var") == {"diffusion"}
    assert table.best("snd") == {"diffusion"}
    swapped = [
        result("tame", 0, prior_metrics(1.0, 0.1)),
        result("right", 0, prior_metrics(2.0, 1.2)),
    ]
    table = build_tables(swapped)[0]
    assert table.best("var") == {"right"}
    assert table.best("snd") == {"tame"}
    assert build_tables(swapped[:1])[0].best("snd") == frozenset()


def test_equal_values_are_not_bold_and_other_metrics_stand_in_rows() -> None:
    rest = build_tables(study())[-1]
    assert rest.title == "Other metrics of the motion priors"
    assert rest.best("loss") == frozenset()
    line = next(x for x in rest.markdown().splitlines() if x.startswith("| loss"))
    assert line == "| loss ↓ | 0.300 ± 0.00 (3 seeds) | 0.300 ± 0.00 (3 seeds) |"


def test_real_variance_comes_from_shuffled_clips_when_not_measured_itself() -> None:
    metrics = {"snd[code]": 1.0, "var[code]": 1.0, "shuffled/var[code]": 1.4}
    table = build_tables([result(metrics=metrics)])[0]
    assert table.rows[0].name == "GT (real motion)"
    assert table.rows[0].cells["var"].values == (1.4,)


def test_other_data_or_extractor_makes_another_table() -> None:
    runs = [
        result("diffusion"),
        result("ar", fingerprint="other", stage="motion_ar"),
        result("diffusion", extractor="deep3d"),
    ]
    assert len(comparable_groups(runs)) == 3
    titles = [t for t in build_tables(runs) if "table 2" in t.title]
    assert len(titles) == 3
    assert {t.header["extractor"] for t in titles} == {"mediapipe", "deep3d"}


def test_two_results_for_one_variant_and_seed_are_refused() -> None:
    with pytest.raises(DataError, match="variant 'diffusion', seed 0"):
        build_tables([result(), result()])


def test_guidance_makes_table_i_in_order_of_the_factor() -> None:
    runs = [result(f"guidance_{s}") for s in ("10", "0", "2.5")] + [result("diffusion")]
    table = next(t for t in build_tables(runs) if "table I" in t.title)
    ours = [r for r in table.rows if r.kind == "variant"]
    assert [r.name for r in ours] == ["guidance_0", "guidance_2.5", "guidance_10"]
    assert [r.paper.values["snd"] for r in ours if r.paper] == [5.14, 4.68, 7.77]


def test_sync_and_disentanglement_tables_appear_with_their_metrics() -> None:
    scores = {"sync_confidence[syncnet_v2]": 3.0, "sync_nlse[syncnet_v2]": 0.2}
    sync = build_tables([result(metrics=scores)])[0]
    assert "table 1" in sync.title
    assert list(sync.paper_columns) == ["sync_confidence", "sync_nlse"]
    own = build_tables([result(metrics={"sync_confidence[syncnet]": 3.0})])[0]
    assert not own.paper_columns
    assert [row.kind for row in own.rows] == ["variant"]
    assert own.notes == ["The paper's judge is another network than syncnet."]
    assert sync.columns == ["sync_confidence", "sync_nlse"]
    blink = "nonlip_only/blink_distance[retracked:generator]"
    mouth = "lip_only/mouth_correlation[retracked:generator]"
    split = [
        result(
            name,
            stage="lip_disentangle",
            metrics={"leakage_lip_from_nonlip": value, blink: value, mouth: value},
        )
        for name, value in (("full", 0.1), ("no_orthogonal", 0.6))
    ]
    lip, nonlip, rest = build_tables(split)
    assert [lip.columns, nonlip.columns] == [[mouth], [blink]]
    assert lip.best(mouth) == {"no_orthogonal"}
    assert nonlip.best(blink) == {"full"}
    assert nonlip.paper_columns[0] == "blink_distance"
    for table in (lip, nonlip):
        assert "table 4" in table.title
        assert [r.paper.method for r in table.rows if r.paper][:2] == ["Ours", "w/o L_ol"]
        assert {r.name for r in table.rows if r.kind == "published"} == {"GT", "w/o MB"}
    assert "| 0.0067 |" in nonlip.markdown()
    assert list(rest.columns) == ["leakage_lip_from_nonlip"]
    assert rest.best("leakage_lip_from_nonlip") == {"full"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("snd_pooled", "lower"),
        ("retrieval_top1", "higher"),
        ("retrieval_chance", "none"),
        ("leakage_lip_from_nonlip", "lower"),
        ("diversity_ratio", "one"),
        ("something", "none"),
        ("floor/snd[code]", "none"),
        ("process_mean_error[readout]", "lower"),
        ("av_offset_800ms[syncer]", "lower"),
        ("av_confidence_1600ms[syncer]", "higher"),
        ("av_cosine_200ms[syncer]", "higher"),
        ("rigid_offset_200ms[rigid_syncer]", "lower"),
        ("drift_120[keypoints]", "gt"),
        ("lmd_mouth[warped]", "lower"),
        ("loss_without_gan", "lower"),
        ("gt/drift_0[keypoints]", "none"),
    ],
)
def test_directions(name: str, kind: str) -> None:
    assert direction_of(name) == kind


def test_csv_holds_every_number_once() -> None:
    rows = list(csv.DictReader(io.StringIO(write_csv(build_tables(study())))))
    ours = [r for r in rows if r["row"] == "diffusion" and r["metric"] == "snd"]
    assert len(ours) == 1
    assert float(ours[0]["mean"]) == pytest.approx(2.1)
    assert ours[0]["seeds"] == "3"
    assert ours[0]["paper"] == "4.68"
    assert ours[0]["paper_dataset"] == "VoxCeleb2"


def test_references_that_vary_count_seeds_not_runs() -> None:
    """What is rendered differs a little in every run; two variants of a seed are still one seed."""
    runs = []
    for seed in (0, 1):
        for i, variant in enumerate(("diffusion", "ar")):
            metrics = prior_metrics(2.0) | {"gt/var[readout]": 1.0 + seed + 0.1 * i}
            runs.append(result(variant, seed, metrics))
    table = build_tables(runs)[0]
    row = next(row for row in table.rows if row.name.startswith("GT"))
    assert row.cells["var"].values == pytest.approx((1.05, 2.05))
