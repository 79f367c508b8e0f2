"""Motion kept for plots: ``samples.npz`` beside a run's ``metrics.json``."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import DataError, ShapeError
from talkhead.report.results import RunResult

FILE_NAME = "samples.npz"
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class MotionSamples:
    """Generated and real motion of the same clips, standardised or not, as the run reports it.

    Attributes:
        generated: ``(N, T, D)`` float32.
        real: ``(N, T, D)`` float32.
        valid: ``(N, T)`` bool, False on padding.
        clips: ``N`` clip names.
        layout: Descriptor group -> slice of ``D``.
        space: Where it was measured: ``code``, ``readout`` or ``retracked``.
    """

    generated: FloatArray
    real: FloatArray
    valid: NDArray[np.bool_]
    clips: Sequence[str]
    layout: Mapping[str, slice]
    space: str = "readout"

    def __post_init__(self) -> None:
        """Check that the arrays fit together.

        Raises:
            ShapeError: They do not.
        """
        n, t = self.generated.shape[:2] if self.generated.ndim == 3 else (-1, -1)
        if self.real.shape != self.generated.shape or self.valid.shape != (n, t):
            raise ShapeError(
                f"expected generated and real (N, T, D) and valid (N, T), got "
                f"{self.generated.shape}, {self.real.shape} and {self.valid.shape}."
            )

    def group(self, name: str, *, real: bool) -> FloatArray:
        """Valid frames of one descriptor group, ``(n, d)``, clip after clip."""
        source = self.real if real else self.generated
        out: FloatArray = source[self.valid][:, self.layout[name]]
        return out

    def write(self, path: Path | str) -> None:
        """Write through a temporary name."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        header = json.dumps(
            {
                "clips": list(self.clips),
                "layout": {k: [s.start, s.stop] for k, s in self.layout.items()},
                "space": self.space,
            }
        )
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                generated=self.generated.astype(np.float32),
                real=self.real.astype(np.float32),
                valid=self.valid.astype(np.bool_),
                header=np.array(header),
            )
        partial.replace(target)

    @classmethod
    def read(cls, path: Path | str) -> MotionSamples:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: Missing or broken.
        """
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as data:
                header = json.loads(str(data["header"]))
                arrays = {k: data[k] for k in ("generated", "real", "valid")}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} holds no motion samples ({error}); run the test again."
            ) from error
        return cls(
            **arrays,
            clips=header["clips"],
            layout={k: slice(a, b) for k, (a, b) in header["layout"].items()},
            space=header["space"],
        )


def kept_samples(results: Iterable[RunResult]) -> dict[str, MotionSamples]:
    """Motion of each variant that kept any, from its lowest seed that did.

    Raises:
        DataError: A file is broken.
    """
    found: dict[str, MotionSamples] = {}
    for result in sorted(results, key=lambda r: r.seed):
        file = None if result.path is None else result.path.with_name(FILE_NAME)
        if file is not None and file.is_file() and result.variant not in found:
            found[result.variant] = MotionSamples.read(file)
    return found
