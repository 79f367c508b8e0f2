"""Named sets of variants: what to run for each, what is done, what has to be done again.

A study is a YAML file::

    # question in line one
    base: [../runs/40_motion_diffusion.yaml, ../trainer/cpu.yaml]
    variants:
      diffusion: {}
      ar: {base: [../runs/41_motion_ar.yaml, ../trainer/cpu.yaml]}
      no_velocity: {configs: [no_velocity.yaml]}
      guidance_0: {test_only_from: diffusion, args: {model.guidance: 0.0}}

Paths are relative to the file. ``configs`` are overlays after the base, ``args`` are dotted options
for ``fit`` and ``test``, ``test_args`` for ``test`` alone. ``test_only_from`` trains nothing: it
tests another variant's checkpoint with other options.

Each variant and seed has its own run folder, ``OUT/<variant>/seed<k>/``. ``ablation.json`` in it
says which phase finished under which digest; the digest covers the contents of all configuration
files (and files named in them), all options, and the checkpoints given as options.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from talkhead.errors import ConfigError

MARKER = "ablation.json"
SUPERSEDED = ".superseded"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
_VARIANT_KEYS = {"base", "configs", "args", "test_args", "test_only_from"}


@dataclass(frozen=True)
class Variant:
    """One row of a study; see the module.

    Attributes:
        name: Row and folder name.
        base: Config files below the command line's overlays.
        configs: Overlays of this variant, which win over those.
        args: Options for ``fit`` and ``test``.
        test_args: Options for ``test`` alone.
        test_only_from: Variant whose checkpoint is tested instead of training.
    """

    name: str
    base: tuple[Path, ...]
    configs: tuple[Path, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    test_args: Mapping[str, Any] = field(default_factory=dict)
    test_only_from: str | None = None


@dataclass(frozen=True)
class Study:
    """A parsed study file: variants in order, sources before those that test them."""

    path: Path
    variants: tuple[Variant, ...]

    def variant(self, name: str) -> Variant:
        """A variant by name."""
        return next(v for v in self.variants if v.name == name)


@dataclass(frozen=True)
class Overrides:
    """Options from the command line: more config files, and dotted values for every variant."""

    configs: tuple[Path, ...] = ()
    args: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, items: Sequence[str]) -> Overrides:
        """``KEY=VALUE`` items; ``config=FILE`` adds a file after the base, before a variant's own.

        Raises:
            ConfigError: An item without ``=``, or a file that does not exist.
        """
        configs: list[Path] = []
        args: dict[str, str] = {}
        for item in items:
            key, equals, value = item.partition("=")
            if not equals or not key:
                raise ConfigError(f"expected --set KEY=VALUE, got '{item}'.")
            if key == "config":
                configs.append(_existing(Path(value), "--set config"))
            else:
                args[key] = value
        return cls(tuple(configs), args)


@dataclass(frozen=True)
class Job:
    """One variant with one seed.

    Attributes:
        variant: What to run.
        seed: Seed of everything.
        folder: Run folder.
        source: Run folder whose checkpoint is tested; the own folder unless ``test_only_from``.
        overrides: Options for all variants.
    """

    variant: Variant
    seed: int
    folder: Path
    source: Path
    overrides: Overrides

    @property
    def name(self) -> str:
        """``variant/seed``."""
        return f"{self.variant.name}/seed{self.seed}"

    @property
    def trains(self) -> bool:
        """False for variants that test another's checkpoint."""
        return self.variant.test_only_from is None

    @property
    def configs(self) -> tuple[Path, ...]:
        """Every config file in order; later ones win."""
        return (*self.variant.base, *self.overrides.configs, *self.variant.configs)

    def options(self, phase: str) -> dict[str, Any]:
        """Dotted options of a phase; the variant's own win."""
        options: dict[str, Any] = {**self.overrides.args, **self.variant.args}
        return {**options, **self.variant.test_args} if phase == "test" else options

    @property
    def checkpoint(self) -> Path:
        """What is tested, and what an interrupted fit resumes from."""
        return self.source / "checkpoints" / "last.ckpt"

    def command(self, phase: str) -> list[str]:
        """Arguments after ``talkhead`` for ``fit`` or ``test``; a fit resumes where it can."""
        options = self.options(phase)
        options["seed_everything"] = self.seed
        options["variant"] = self.variant.name
        options["trainer.default_root_dir"] = str(self.folder)
        if phase == "test" or self.checkpoint.is_file():
            options["ckpt_path"] = str(self.checkpoint)
        files = [f"--config={path}" for path in self.configs]
        return [phase, *files, *(f"--{key}={_plain(value)}" for key, value in options.items())]

    def digest(self, phase: str) -> str:
        """Hash of everything that decides the outcome of a phase."""
        parts: list[str] = [phase, str(self.seed)]
        parts += [_config_text(path, set()) for path in self.configs]
        options = self.options(phase)
        parts += [f"{key}={_fingerprint(value)}" for key, value in sorted(options.items())]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def read_study(path: Path | str) -> Study:
    """Read and check a study file.

    Raises:
        ConfigError: Missing or invalid file, unknown keys, missing config files, or a
            ``test_only_from`` that names no trained variant.
    """
    file = _existing(Path(path), "study")
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is no valid YAML ({error}).") from error
    variants = raw.get("variants") if isinstance(raw, dict) else None
    if not isinstance(variants, dict) or not variants:
        raise ConfigError(f"{file}: expected 'base: [files]' and 'variants: {{name: …}}'.")
    unknown = set(raw) - {"base", "variants"}
    if unknown:
        raise ConfigError(f"{file}: unknown keys {sorted(unknown)}; expected base and variants.")
    base = _files(raw.get("base", []), file, "base")
    parsed = [_variant(str(name), body or {}, base, file) for name, body in variants.items()]
    trained = {v.name for v in parsed if v.test_only_from is None}
    for variant in parsed:
        if variant.test_only_from is not None and variant.test_only_from not in trained:
            raise ConfigError(
                f"{file}: '{variant.name}' tests '{variant.test_only_from}', which is no trained "
                f"variant; trained are {', '.join(sorted(trained)) or 'none'}."
            )
    by_name = {v.name: v for v in parsed}
    resolved = [_inherit(v, by_name) for v in parsed]
    return Study(file, tuple(sorted(resolved, key=lambda v: v.test_only_from is not None)))


def _inherit(variant: Variant, by_name: Mapping[str, Variant]) -> Variant:
    """A test-only variant runs with its source's files and options below its own."""
    if variant.test_only_from is None:
        return variant
    source = by_name[variant.test_only_from]
    return Variant(
        variant.name,
        source.base,
        (*source.configs, *variant.configs),
        {**source.args, **variant.args},
        {**source.test_args, **variant.test_args},
        variant.test_only_from,
    )


def _variant(name: str, body: Any, base: tuple[Path, ...], file: Path) -> Variant:
    """One checked entry of ``variants``."""
    if not _NAME.match(name):
        raise ConfigError(f"{file}: variant '{name}' must be usable as a folder name.")
    if not isinstance(body, dict) or set(body) - _VARIANT_KEYS:
        found = sorted(set(body) - _VARIANT_KEYS) if isinstance(body, dict) else body
        raise ConfigError(
            f"{file}: variant '{name}' has {found}; expected keys among {sorted(_VARIANT_KEYS)}."
        )
    for key in ("args", "test_args"):
        if not isinstance(body.get(key) or {}, dict):
            raise ConfigError(f"{file}: '{key}' of '{name}' must map dotted options to values.")
    own_base = _files(body["base"], file, f"{name}.base") if "base" in body else base
    configs = _files(body.get("configs") or [], file, f"{name}.configs")
    source = body.get("test_only_from")
    if source is None and not own_base and not configs:
        raise ConfigError(f"{file}: variant '{name}' has no config file; give base or configs.")
    args, test_args = body.get("args") or {}, body.get("test_args") or {}
    return Variant(name, own_base, configs, args, test_args, source)


def plan(
    study: Study,
    out: Path,
    *,
    seeds: int,
    only: Sequence[str] = (),
    overrides: Overrides | None = None,
) -> list[Job]:
    """Jobs in running order: all trained variants of a seed, then those that only test.

    Args:
        study: The study.
        out: Folder of all runs.
        seeds: Seeds 0 … seeds - 1.
        only: Variants to run, all when empty; a tested variant's source must be there already.
        overrides: Options for all variants.

    Raises:
        ConfigError: An unknown name in ``only``, or no seeds.
    """
    known = [v.name for v in study.variants]
    unknown = sorted(set(only) - set(known))
    if unknown:
        raise ConfigError(f"unknown variants {unknown}; {study.path} has {', '.join(known)}.")
    if seeds < 1:
        raise ConfigError(f"expected at least one seed, got {seeds}.")
    common = overrides or Overrides()
    jobs = []
    for seed in range(seeds):
        for variant in study.variants:
            if only and variant.name not in only:
                continue
            folder = (out / variant.name / f"seed{seed}").resolve()
            source = (out / (variant.test_only_from or variant.name) / f"seed{seed}").resolve()
            jobs.append(Job(variant, seed, folder, source, common))
    return jobs


def read_marker(folder: Path) -> dict[str, str]:
    """Digests of the phases ``started_fit``, ``fit`` and ``test``; empty for a new folder."""
    try:
        loaded = json.loads((folder / MARKER).read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return {str(k): str(v) for k, v in loaded.items()} if isinstance(loaded, dict) else {}


def write_marker(folder: Path, state: Mapping[str, str]) -> None:
    """Replace the marker."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{MARKER}.partial"
    partial.write_text(json.dumps(dict(state), indent=2) + "\n")
    partial.replace(folder / MARKER)


def set_aside(folder: Path, out: Path) -> Path:
    """Move a run made with other settings out of the way instead of deleting it."""
    number = 0
    name = f"{folder.parent.name}-{folder.name}"
    while (target := out / SUPERSEDED / f"{name}-{number}").exists():
        number += 1
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    return target


def _files(value: Any, file: Path, where: str) -> tuple[Path, ...]:
    """Config files relative to the study file."""
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ConfigError(f"{file}: expected a list of files for {where}, got {value!r}.")
    return tuple(_existing(file.parent / v, f"{file}: {where}") for v in value)


def _existing(path: Path, where: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"{where}: no file {path}; correct the path.")
    return path.resolve()


def _plain(value: Any) -> str:
    """An option as the command line reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def _config_text(path: Path, seen: set[Path]) -> str:
    """A config file's text followed by that of every YAML file it names."""
    real = path.resolve()
    if real in seen or not real.is_file():
        return ""
    seen.add(real)
    text = real.read_text(encoding="utf-8")
    named = re.finditer(r"[^\s\"'\[\],:]+\.ya?ml", text)
    parts = [text, *(_config_text(real.parent / match.group(), seen) for match in named)]
    return "\0".join(parts)


def _fingerprint(value: Any) -> str:
    """Contents behind an option that names a file or prepared set, else the option itself."""
    if not isinstance(value, str):
        return json.dumps(value, sort_keys=True)
    path = Path(value)
    try:
        if path.is_dir() and (path / "prepared.json").is_file():
            path = path / "prepared.json"
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        # A value that is no legal path, such as one longer than a file name may be.
        return value
    return value
