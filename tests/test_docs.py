"""What the documentation names exists under that name."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMBERED = {
    "diffusion_prior": {*map(str, range(1, 11)), "S I", "S II", "S III", "S IV"},
    "ms_sync": set(map(str, range(2, 17))),
    "controltalk": set(map(str, range(1, 7))),
    "shallow_diffusion": set(map(str, range(1, 13))),
}
"""Page of a system -> the equations of its paper that say what to compute."""


def equations(page: str) -> list[list[str]]:
    text = (ROOT / "docs" / "systems" / f"{page}.md").read_text(encoding="utf-8")
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.partition("## Equations")[2].partition("\n## ")[0].splitlines()
        if line.startswith("| ") and not line.startswith("| equation")
    ]


ROWS = [(page, row) for page in NUMBERED for row in equations(page)]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def exists(name: str) -> bool:
    """Whether a dotted name below talkhead is a module or something in one."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(["talkhead", *parts[:split]]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", NUMBERED)
def test_all_equations_are_listed(page: str) -> None:
    listed = {word for row in equations(page) for word in row[0].split(", ")}
    assert NUMBERED[page] <= listed


@pytest.mark.parametrize("row", [row for _, row in ROWS], ids=[f"{p}: {r[1]}" for p, r in ROWS])
def test_functions_and_tests_of_equations_exist(row: list[str]) -> None:
    functions = [name for name in named(row[2]) if name != "loss_weights"]
    assert functions
    assert [name for name in functions if not exists(name)] == []
    files = [name for name in named(row[3]) if name.endswith(".py")]
    tests = [name for name in named(row[3]) if re.fullmatch(r"test_\w+", name)]
    assert files
    assert tests
    places = [ROOT / "tests" / "talkhead" / name for name in files]
    found = [
        p if p.is_file() else ROOT / "tests" / name for p, name in zip(places, files, strict=True)
    ]
    defined = {name for path in found for name in re.findall(r"^def (\w+)", path.read_text(), re.M)}
    assert sorted(set(tests) - defined) == []
