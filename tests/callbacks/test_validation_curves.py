"""What validations leave in ``curves.csv``, through real fits of a toy stage."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from callbacks.validation_curves import ValidationCurves
from talkhead.errors import DataError
from talkhead.report.curves import CurvePoint, read_curves, write_curves
from tests.callbacks.test_callbacks import FIT, fit
from tests.conftest import Run
from tests.talkhead.toy_stages import ToyStage

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def steps(root: Path) -> list[int]:
    return [point.step for point in read_curves(root / "curves.csv") if point.name == "val/loss"]


def test_every_fit_leaves_the_scores_the_logger_saw(run: Run) -> None:
    """Twice an epoch of ten batches; the validation before training does not count."""
    root = run(
        *FIT[:-1], "--trainer.max_epochs=2", "--trainer.val_check_interval=5",
        "--trainer.num_sanity_val_steps=1", "--trainer.callbacks=[]",
    )  # fmt: skip
    points = read_curves(root / "curves.csv")
    assert [(p.step, p.name) for p in points] == [
        (step, name) for step in (5, 10, 15, 20) for name in ("val/loss", "val/loss/square")
    ]
    (logged,) = root.glob("csv/*/metrics.csv")
    with logged.open() as text:
        seen = [float(row["val/loss"]) for row in csv.DictReader(text) if row["val/loss"]]
    written = [point.value for point in points if point.name == "val/loss"]
    assert written == pytest.approx(seen, rel=1e-5)


def test_a_resumed_fit_goes_on_where_its_checkpoint_was_written(run: Run) -> None:
    whole = run(*FIT[:-1], "--trainer.max_epochs=2", folder="whole")
    last = run(*FIT, folder="cut") / "checkpoints/last.ckpt"
    cut = last.parents[1]
    # A stopped fit wrote these after its last checkpoint, one of them at a batch it will see again.
    lost = [CurvePoint(step, "val/loss", 9.0) for step in (15, 20)]
    write_curves(cut / "curves.csv", [*read_curves(cut / "curves.csv"), *lost])
    run(*FIT[:-1], "--trainer.max_epochs=2", f"--ckpt_path={last}", folder="cut")
    assert steps(cut) == [10, 20]
    assert read_curves(cut / "curves.csv") == read_curves(whole / "curves.csv")


def test_a_fit_from_the_start_drops_what_another_left(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves.csv", [CurvePoint(3, "val/other", 1.0)])
    fit(ToyStage(), tmp_path, ValidationCurves(), steps=4, val_check_interval=4)
    assert steps(tmp_path) == [4]
    assert "val/other" not in {point.name for point in read_curves(tmp_path / "curves.csv")}


def test_a_validation_at_the_first_batch_again_counts_once(tmp_path: Path) -> None:
    callback = ValidationCurves()
    stage = ToyStage()
    trainer = fit(stage, tmp_path, callback, steps=4, val_check_interval=2)
    assert steps(tmp_path) == [2, 4]
    trainer.state.fn = "fit"  # type: ignore[assignment]  # as it is while fitting
    callback.on_validation_end(trainer, stage)
    assert steps(tmp_path) == [2, 4]


def test_commands_that_only_score_and_trials_write_nothing(run: Run, tmp_path: Path) -> None:
    root = run(*FIT)
    before = (root / "curves.csv").read_bytes()
    last = root / "checkpoints/last.ckpt"
    for command in ("validate", "test"):
        run(command, f"--ckpt_path={last}")
    assert (root / "curves.csv").read_bytes() == before
    assert "loss" in json.loads((root / "metrics.json").read_text())["metrics"]
    fit(ToyStage(), root, ValidationCurves(), fast_dev_run=True)
    assert (root / "curves.csv").read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "step,value\n1,2\n", "step,name,value\n1,a\n", "step,name,value\nx,a,1\n"],
    ids=["empty", "columns", "short", "number"],
)
def test_broken_curves_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(DataError, match=r"expected lines of step,name,value, but .* move the file"):
        read_curves(tmp_path / "curves.csv")


def test_curves_survive_writing_and_reading(tmp_path: Path) -> None:
    points = [CurvePoint(1, 'val/a,"b"[c]', 0.1), CurvePoint(1, "val/c", float("inf"))]
    write_curves(tmp_path / "new" / "curves.csv", points)
    assert read_curves(tmp_path / "new" / "curves.csv") == points
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curves.csv"]
