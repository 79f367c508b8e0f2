"""Every metric: any split over batches and over two real processes scores what one batch scores."""

from __future__ import annotations

import importlib
import math
import pkgutil
import warnings
from pathlib import Path

import pytest
from torchmetrics import Metric

import talkhead.metrics
from talkhead.errors import ShapeError
from talkhead.metrics.sequences import PerClipMetric, PerClipRows
from tests.ranks import run_ranks
from tests.talkhead.metrics.cases import CASES, CLIPS, score

EVERY = list(range(CLIPS))


def scored(name: str, *parts: list[int]) -> dict[str, float]:
    """A metric after one update for each part, synchronised when a group exists."""
    metric = CASES[name].make()
    for rows in parts:
        CASES[name].add(metric, rows)
    return score(metric)


def test_no_metric_is_left_out() -> None:
    found = set()
    for module in pkgutil.iter_modules(talkhead.metrics.__path__, "talkhead.metrics."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, Metric):
                found.add(kind)
    assert found - {Metric, PerClipMetric, PerClipRows} == {type(c.make()) for c in CASES.values()}


@pytest.mark.parametrize("name", CASES)
def test_any_split_over_batches_scores_the_same(name: str) -> None:
    whole = scored(name, EVERY)
    assert all(math.isfinite(value) for value in whole.values())
    assert scored(name, *([i] for i in EVERY)) == pytest.approx(whole, rel=1e-9)
    assert scored(name, [6, 2], [0], [5, 1, 4, 3]) == pytest.approx(whole, rel=1e-9)
    if CASES[name].once:
        assert scored(name, [6, 2], [0, 2], [5, 1, 4, 3], [6]) == pytest.approx(whole, rel=1e-12)
    assert scored(name, EVERY[:-1]) != pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_refused_and_leaves_no_trace(name: str) -> None:
    metric = CASES[name].make()
    CASES[name].add(metric, EVERY)
    for misfit in CASES[name].misfits:
        with pytest.raises(ShapeError, match=r"expected .*got "):
            misfit(metric)
    assert score(metric) == scored(name, EVERY)


def ranked(rank: int, ranks: int) -> dict[str, dict[str, dict[str, float]]]:
    """Every metric on uneven halves, on the first rank alone, and with a clip that both have."""
    halves = [[0, 1, 2, 3, 4], [5, 6]][rank]
    found = {}
    for name, case in CASES.items():
        found[name] = {"halves": scored(name, halves[:1], halves[1:])}
        with warnings.catch_warnings():
            # The second rank computes without an update of its own: the case under test.
            warnings.simplefilter("ignore", UserWarning)
            found[name]["alone"] = scored(name, *([EVERY] if rank == 0 else []))
        if case.once:
            found[name]["twice"] = scored(name, [[0, 1, 2, 3, 4], [0, 5, 6]][rank])
    return found


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    expected = {name: scored(name, EVERY) for name in CASES}
    for found in run_ranks(ranked, tmp_path):
        for name, splits in found.items():
            # Sums over clips depend on their order in the last digits, sorted values do not.
            within = 1e-12 if CASES[name].once else 1e-9
            for split, values in splits.items():
                assert values == pytest.approx(expected[name], rel=within), (name, split)
