"""The file every scored run leaves behind: ``metrics.json``, format 1.

::

    {"format": 1, "stage", "variant", "seed", "extractor", "command", "config_digest",
     "data": {"dataset", "synthetic", "split", "clips", "frames", "data_fingerprint"},
     "checkpoint": {"path", "digest"}, "metrics": {name: value}, "per_clip": [{"clip", …}],
     "settings": {…}}

A metric's name says where it was measured, in brackets: ``snd[code]`` in learned code space,
``snd[readout]`` on descriptors read out linearly, ``snd[retracked]`` on rendered and re-tracked
frames. ``floor/snd[readout]`` is the same number for a reference instead of the model: ``gt`` (real
motion), ``floor`` (real against real), ``mean`` (the training mean repeated), ``shuffled`` (real
motion of other clips). Numbers that could not be computed are ``null``. ``settings`` says what was
measured how: units, rates and crop; of ``talkhead evaluate`` judges with their digests as well.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from talkhead.errors import DataError
from talkhead.text_files import write_text_atomic

FORMAT = 1
FILE_NAME = "metrics.json"
REFERENCES = ("gt", "floor", "shuffled", "mean")
_METRIC = re.compile(
    rf"^((?P<reference>{'|'.join(REFERENCES)})/)?(?P<base>[^\[\]]+)(\[(?P<space>[^\[\]]+)\])?$"
)


@dataclass(frozen=True)
class DataInfo:
    """Which clips were scored."""

    dataset: str
    synthetic: bool
    split: str
    clips: int
    frames: int
    data_fingerprint: str


@dataclass(frozen=True)
class MetricName:
    """Parts of ``reference/base[space]``; absent parts are empty."""

    base: str
    reference: str = ""
    space: str = ""

    @classmethod
    def parse(cls, name: str) -> MetricName:
        """Split a name; one that does not follow the pattern is all base."""
        match = _METRIC.match(name)
        if match is None:
            return cls(name)
        return cls(match["base"], match["reference"] or "", match["space"] or "")

    def __str__(self) -> str:
        """The name as written in the file."""
        reference = f"{self.reference}/" if self.reference else ""
        return f"{reference}{self.base}{f'[{self.space}]' if self.space else ''}"


@dataclass(frozen=True)
class RunResult:
    """Scores of one checkpoint of one variant and seed; see the module for the fields."""

    stage: str
    variant: str
    seed: int
    data: DataInfo
    extractor: str
    command: str
    checkpoint: Mapping[str, str | None]
    config_digest: str
    metrics: Mapping[str, float]
    per_clip: Sequence[Mapping[str, Any]] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = field(default=None, compare=False)

    @property
    def comparable(self) -> tuple[str, str, str, str]:
        """Results may share a table when these agree: data, split, extractor, and how it was measured.

        The last is the digest of crop, judges and motion space of ``talkhead evaluate``; the
        ``config_digest`` of a stage's own test is of what the rows of a table vary, and its crop and rates
        are the data's.
        """
        measured = self.config_digest if self.stage == "evaluate" else ""
        return (self.data.data_fingerprint, self.data.split, self.extractor, measured)

    def to_json(self) -> dict[str, Any]:
        """The dictionary that is written; NaN becomes null."""
        content = {
            "format": FORMAT,
            "stage": self.stage,
            "variant": self.variant,
            "seed": self.seed,
            "data": asdict(self.data),
            "extractor": self.extractor,
            "command": self.command,
            "checkpoint": dict(self.checkpoint),
            "config_digest": self.config_digest,
            "metrics": {k: _finite(v) for k, v in self.metrics.items()},
            "per_clip": [{k: _finite(v) for k, v in row.items()} for row in self.per_clip],
        }
        return content | ({"settings": dict(self.settings)} if self.settings else {})

    def write(self, path: Path | str) -> None:
        """Write through a temporary name; half a file is never seen."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(target, json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path | str) -> RunResult:
        """Read and check one file.

        Raises:
            DataError: Not JSON, another format, a missing field or a field of the wrong type.
        """
        source = Path(path)
        try:
            raw = json.loads(source.read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(
                f"{source} cannot be read as JSON ({error}); run the test again."
            ) from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            raise DataError(
                f"{source}: expected metrics of format {FORMAT}, got {found}; "
                "it was written by another version, run the test again."
            )
        return _from_json(raw, source)


def _from_json(raw: Mapping[str, Any], source: Path) -> RunResult:
    """Checked fields of a loaded file."""
    data = _get(raw, "data", dict, source)
    return RunResult(
        stage=_get(raw, "stage", str, source),
        variant=_get(raw, "variant", str, source),
        seed=_get(raw, "seed", int, source),
        data=DataInfo(
            dataset=_get(data, "dataset", str, source),
            synthetic=_get(data, "synthetic", bool, source),
            split=_get(data, "split", str, source),
            clips=_get(data, "clips", int, source),
            frames=_get(data, "frames", int, source),
            data_fingerprint=_get(data, "data_fingerprint", str, source),
        ),
        extractor=str(raw.get("extractor") or "no extractor"),
        command=_get(raw, "command", str, source),
        checkpoint=_get(raw, "checkpoint", dict, source),
        config_digest=_get(raw, "config_digest", str, source),
        metrics=_numbers(_get(raw, "metrics", dict, source), source),
        per_clip=_get(raw, "per_clip", list, source),
        settings=_get({"settings": {}, **raw}, "settings", dict, source),
        path=source,
    )


def _get(raw: Mapping[str, Any], key: str, kind: type, source: Path) -> Any:
    """A field of the expected type."""
    value = raw.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(
            f"{source}: expected '{key}' to be a {kind.__name__}, got {value!r}; "
            "run the test again."
        )
    return value


def _numbers(metrics: Mapping[str, Any], source: Path) -> dict[str, float]:
    """Metric values as floats, null as NaN."""
    out: dict[str, float] = {}
    for name, value in metrics.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise DataError(f"{source}: metric '{name}' is {value!r}, expected a number or null.")
        out[name] = math.nan if value is None else float(value)
    return out


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def find_results(folders: Iterable[Path | str]) -> list[RunResult]:
    """Every ``metrics.json`` below the folders, in path order, each file once.

    Folders whose name begins with a dot are left out: superseded runs are kept there.

    Raises:
        DataError: A folder does not exist, a file is broken, or nothing was found.
    """
    named = [Path(f) for f in folders]
    found: dict[Path, None] = {}
    for folder in named:
        if not folder.exists():
            raise DataError(f"{folder} does not exist; expected a folder with finished runs.")
        files = [folder] if folder.is_file() else sorted(folder.rglob(FILE_NAME))
        for file in files:
            inside = file.relative_to(folder).parts if folder.is_dir() else ()
            if not any(part.startswith(".") for part in inside):
                found[file.resolve()] = None
    if not found:
        raise DataError(
            f"no {FILE_NAME} below {', '.join(map(str, named))}; run talkhead test or ablate first."
        )
    return [RunResult.read(file) for file in found]


def clips_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a clip, one column a fact or score; scores a clip does not have stay empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(
        {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in rows
    )
    return out.getvalue()
