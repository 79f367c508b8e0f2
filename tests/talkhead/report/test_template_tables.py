"""Filled templates: which number stands where, and what is said of those that are missing."""

from __future__ import annotations

import csv
import io

import pytest

from talkhead.errors import DataError
from talkhead.report.results import RunResult
from talkhead.report.template_tables import fill
from talkhead.report.templates import all_templates, template
from tests.talkhead.report.factory import prior_metrics, result

TABLE_2 = template("diffusion_prior/table2")


def priors() -> list[RunResult]:
    runs = [result("diffusion", seed, prior_metrics(2.0 + 0.1 * seed)) for seed in range(3)]
    runs.append(result("ar", 0, prior_metrics(4.0) | {"snd[code]": 60.0}, stage="motion_ar"))
    runs += [result("guidance_5", 0, prior_metrics(5.0)), result("mine", 0, prior_metrics(6.0))]
    return runs


def evaluated(name: str, **metrics: float) -> RunResult:
    named = {key.replace("__", "[") + "]" if "__" in key else key: v for key, v in metrics.items()}
    return result(name, metrics=named, stage="evaluate", synthetic=False)


def table_of(text: str) -> list[dict[str, str]]:
    """Lines of the only table in some markdown, none of whose cells holds a bar."""
    rows = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("| ")]
    heads, _, *body = ([cell.strip() for cell in row] for row in rows)
    return [dict(zip(heads, row, strict=True)) for row in body]


def test_published_and_measured_numbers_stand_in_columns_of_their_own() -> None:
    text = fill(TABLE_2, priors()).markdown()
    rows = table_of(text)
    ours = next(row for row in rows if row["source"] == "talkhead: `diffusion`")
    theirs = [row for row in rows if row["row"] == "Ours + Diff."]
    assert [row["source"] for row in theirs] == [
        "published (VoxCeleb2)",
        "published (VoxCeleb1)",
        "talkhead: `diffusion`",
    ]
    assert [row["SND ↓"] for row in theirs] == ["4.68", "4.85", ""]
    assert [row["`snd[readout]` ↓"] for row in theirs] == ["", "", "2.10 ± 0.100 (3 seeds)"]
    assert ours["`snd[code]` ↓"] == "missing"
    assert ours["`var[readout]` → GT"] == "1.00 ± 0.00 (3 seeds)"
    for fact in ("embedded (synthetic), split test", "mediapipe", "abc123abc123", "Table 2 of"):
        assert fact in text
    assert "**Synthetic data:**" in text


def test_rows_that_no_run_fills_are_missing_and_other_systems_are_not_ours_to_miss() -> None:
    rows = table_of(fill(TABLE_2, priors()).markdown())
    by_source = {row["source"]: row for row in rows if row["source"].startswith("talkhead")}
    assert by_source["talkhead: `no_velocity`"]["`snd[readout]` ↓"] == "missing"
    assert [row["source"] for row in rows if row["row"] == "MakeItTalk"] == [
        "published (VoxCeleb2)",
        "published (VoxCeleb1)",
    ]
    real = by_source["talkhead: GT (real motion)"]
    assert (real["`var[readout]` → GT"], real["`snd[readout]` ↓"]) == ("1.20", "-")
    assert by_source["talkhead: real against real (floor)"]["`snd[readout]` ↓"] == "0.500"


def test_variants_of_other_tables_stay_there_and_unknown_ones_are_shown() -> None:
    rows = table_of(fill(TABLE_2, priors()).markdown())
    assert [row["row"] for row in rows if "`mine`" in row["source"]] == ["mine"]
    assert not [row for row in rows if "guidance" in row["source"]]
    guided = table_of(fill(template("diffusion_prior/tableI"), priors()).markdown())
    assert [row["row"] for row in guided if row["source"] == "talkhead: `guidance_5`"] == [
        "s = 5.0"
    ]
    assert not [row for row in guided if "diffusion" in row["source"]]


def test_without_results_everything_of_ours_is_missing() -> None:
    for known in all_templates().values():
        if known.plot is None:
            filled = fill(known, [])
            ours = [line for line in filled.lines if line.kind != "published"]
            wanted = [row.method for row in known.rows if row.kind != "external"]
            assert [line.row for line in ours] == wanted
            assert all(line.group is None for line in ours)
            text = filled.markdown()
            assert text.count("published (") == len(known.published) * len(known.rows)


def test_a_metric_of_another_name_has_a_column_of_that_name() -> None:
    runs = [
        evaluated("wav2lip", fid__inception_v3=20.0, fid__identity_encoder=3.0, ssim=0.8),
        evaluated("mine", fid__identity_encoder=4.0),
    ]
    rows = table_of(fill(template("controltalk/table1"), runs).markdown())
    ours = {row["source"]: row for row in rows if row["source"].startswith("talkhead")}
    other = ours["talkhead: `wav2lip`"]
    assert other["row"] == "Wav2Lip"
    assert (other["FID ↓"], other["`fid[inception_v3]` ↓"]) == ("", "20.00 (1 seed)")
    assert other["`ssim` ↑"] == "0.800 (1 seed)"
    assert (other["Sync ↓"], other["M/F-LDM, mouth ↓"]) == ("missing", "missing")
    assert ours["talkhead: `mine`"]["`fid[inception_v3]` ↓"] == "missing"
    assert set(ours["talkhead: `controltalk`"].values()) >= {"missing"}


def test_spaces_can_be_chosen() -> None:
    runs = [evaluated("mine", ssim=0.8, fid__inception_v3=20.0, fid__identity_encoder=3.0)]
    filled = fill(template("controltalk/table1"), runs, ["inception_v3"])
    assert (filled.own["fid"], filled.own["ssim"]) == (("fid[inception_v3]",), ("ssim",))


def test_a_variant_may_be_called_like_a_reference() -> None:
    rows = table_of(fill(template("ms_sync/table3"), [evaluated("floor", fid__x=2.0)]).markdown())
    assert rows[-1]["source"] == "talkhead: `floor`"
    assert rows[-1]["`fid[x]` ↓"] == "2.00 (1 seed)"


def test_stand_ins_are_shown_beside_what_is_not_measured() -> None:
    metrics = {
        "lip_only/mouth_correlation[retracked:generator]": 0.5,
        "nonlip_only/blink_distance[retracked:generator]": 0.01,
        "both/blink_distance[retracked:generator]": 0.3,
    }
    runs = [result("full", metrics=metrics, stage="lip_disentangle")]
    filled = fill(template("diffusion_prior/table4"), runs)
    assert filled.own["sync_confidence"] == ("lip_only/mouth_correlation[retracked:generator]",)
    assert filled.own["blink_distance"] == ("nonlip_only/blink_distance[retracked:generator]",)
    assert filled.own["sync_nlse"] == ()
    text = filled.markdown()
    assert "`lip_only/mouth_correlation[retracked:generator]` ↑" in text
    assert "0.300" not in text


def test_results_of_other_stages_and_without_the_metrics_do_not_count() -> None:
    aside = [
        result("diffusion", metrics={"ssim": 0.9}, stage="reenactment"),
        result("diffusion", metrics={"loss": 0.1}),
    ]
    filled = fill(TABLE_2, aside)
    assert filled.groups == []
    assert fill(template("shallow_diffusion/table1"), aside).groups == []


def test_results_on_other_data_get_lines_of_their_own() -> None:
    runs = [result("ar", stage="motion_ar"), result("ar", stage="motion_ar", fingerprint="other")]
    text = fill(TABLE_2, runs).markdown()
    sources = [row["source"] for row in table_of(text) if row["row"] == "Ours + AR"]
    assert sources[2:] == ["talkhead A: `ar`", "talkhead B: `ar`"]
    assert "- talkhead B: data: embedded (synthetic)" in text
    with pytest.raises(DataError, match="two results for variant 'ar'"):
        fill(TABLE_2, [runs[0], result("ar", stage="motion_ar")])


def test_real_and_foreign_sound_fill_the_rows_of_the_rigid_table() -> None:
    metrics = {
        "gt/rigid_offset_200ms[rigid_syncer]": 4.0,
        "shuffled/rigid_offset_200ms[rigid_syncer]": 7.5,
    }
    runs = [result("rigid_syncer", metrics=metrics, stage="rigid_syncer")]
    filled = fill(template("ms_sync/table2"), runs)
    ours = {line.row: line for line in filled.lines if line.group is not None}
    name = "rigid_offset_200ms[rigid_syncer]"
    assert {row: line.cells[name].values for row, line in ours.items()} == {
        "Random": (7.5,),
        "Ground truth": (4.0,),
    }


def test_bars_in_names_do_not_end_their_cells() -> None:
    text = fill(template("ms_sync/table1"), []).markdown()
    head = next(line for line in text.splitlines() if line.startswith("| row"))
    assert r"| \|AV-Off\| ↓ (frames) |" in head


def test_csv_has_every_printed_number_and_says_what_is_missing() -> None:
    for known in all_templates().values():
        if known.plot is not None:
            continue
        rows = list(csv.DictReader(io.StringIO(fill(known, priors()).csv())))
        printed = {
            (r["dataset"], r["row"], r["column"]): r for r in rows if r["source"] == "published"
        }
        assert len(printed) == len(known.published) * len(known.rows) * len(known.columns)
        for (dataset, method, column), row in printed.items():
            number = known.numbers(dataset, method)[column]
            assert row["text"] == number.text
            assert number.text == "-" or float(row["value"]) == number.value
    rows = list(csv.DictReader(io.StringIO(fill(TABLE_2, priors()).csv())))
    ours = next(r for r in rows if r["variant"] == "diffusion" and r["metric"] == "snd[readout]")
    assert float(ours["value"]) == pytest.approx(2.1)
    assert float(ours["spread"]) == pytest.approx(0.1)
    assert (ours["seeds"], ours["dataset"]) == ("3", "embedded (synthetic), test")
    gone = [r for r in rows if r["variant"] == "no_velocity"]
    assert {(r["text"], r["value"], r["seeds"]) for r in gone} == {("missing", "", "0")}
