"""What the documentation names exists under that name."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "systems" / "diffusion_prior.md").read_text(encoding="utf-8")
EQUATIONS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("## Equations")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| equation")
]


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


def test_all_equations_are_listed() -> None:
    listed = {word for row in EQUATIONS for word in row[0].split(", ")}
    assert {str(n) for n in range(1, 11)} | {"S I", "S II", "S III", "S IV"} <= listed


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: row[1])
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
