"""Imports point one way, and the light parts stay light."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = ("networks", "losses", "metrics", "diffusion", "geometry", "audio")
UPPER = ("talkhead.stages", "talkhead.cli", "talkhead.commands", "datamodules", "callbacks")
COMPOSERS = {"talkhead/cli.py", "talkhead/demo.py"}
FILES = sorted(
    path for top in ("talkhead", "datamodules", "callbacks") for path in (ROOT / top).rglob("*.py")
)


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports, at its top or inside functions."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def below(module: str, parents: tuple[str, ...]) -> bool:
    return any(module == parent or module.startswith(f"{parent}.") for parent in parents)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_one_way(path: Path) -> None:
    where, modules = relative(path), set(imported(path))
    forbidden: tuple[str, ...]
    top, _, rest = where.partition("/")
    if top == "talkhead" and rest.split("/")[0] in PURE:
        forbidden = UPPER
    elif top == "talkhead" and where not in COMPOSERS and not rest.startswith("commands/"):
        forbidden = ("datamodules", "callbacks", "talkhead.cli", "talkhead.commands")
    elif top == "datamodules":
        forbidden = ("callbacks", "talkhead.cli", "talkhead.stages", "talkhead.commands")
    elif top == "callbacks":
        forbidden = ("datamodules", "talkhead.cli", "talkhead.stages", "talkhead.commands")
    else:
        forbidden = ()
    assert sorted(m for m in modules if below(m, forbidden)) == []
    assert not [m for m in modules if below(m, ("tests", "experiments"))]


@pytest.mark.parametrize("package", ["talkhead", "datamodules", "callbacks"])
def test_packages_resolve_from_this_repository(package: str) -> None:
    """A folder of the same name elsewhere would shadow them."""
    found = importlib.import_module(package).__file__
    assert found is not None
    assert Path(found).parent == ROOT / package


def test_experiments_resolve_from_this_repository() -> None:
    places = [Path(p) for p in importlib.import_module("experiments").__path__]
    assert {p for p in places if p.is_dir()} == {ROOT / "experiments"}


def test_every_test_folder_is_a_package() -> None:
    """Without it, tests/datamodules would hijack ``import datamodules``."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert sorted(f for f in folders if not (f / "__init__.py").is_file()) == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("talkhead", {"torch", "lightning", "numpy"}),
        ("talkhead.__main__", {"torch", "lightning", "numpy"}),
        ("talkhead.specs", {"torch", "lightning"}),
        ("talkhead.networks", {"mediapipe", "wandb", "av", "cv2", "matplotlib"}),
        ("talkhead.stages", {"mediapipe", "wandb", "av", "cv2", "matplotlib"}),
        ("datamodules.base", {"mediapipe", "wandb", "av", "espeakng_loader"}),
    ],
)
def test_imports_stay_light(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {absent!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []
