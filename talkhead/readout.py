"""Linear read-out from learned motion codes to motion descriptors.

System A moves faces by codes that mean nothing by themselves. A ridge regression fitted on the
training split turns them into descriptors (pose, expression, lids, gaze, mouth), so that a prior's
samples can be measured in interpretable units and shown by the mesh renderer. How much it can be
trusted is its R^2 on the validation split, reported for every group of descriptors.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.errors import DataError, ShapeError
from talkhead.ridge import ALPHAS, LinearMap, RidgeSums, fit_ridge, r_squared, total

FORMAT = 1
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Readout:
    """Maps codes ``(..., T, P)`` to motion descriptors ``(..., T, D)``.

    Attributes:
        weight: ``(P * (2 k + 1), D)`` float32, frames ``t - k … t + k`` side by side.
        bias: ``(D,)`` float32.
        context: ``k``, frames looked at on either side; the ends repeat their last frame.
        alpha: Penalty chosen on held-out clips.
        layout: Descriptor group -> slice, from the motion model.
    """

    weight: FloatArray
    bias: FloatArray
    context: int
    alpha: float
    layout: Mapping[str, slice]

    @classmethod
    def fit(
        cls,
        codes: Sequence[FloatArray],
        motion: Sequence[FloatArray],
        layout: Mapping[str, slice] | None = None,
        *,
        context: int = 0,
        alphas: Sequence[float] = ALPHAS,
        folds: int = 5,
    ) -> Readout:
        """Fit on whole clips; clip ``i`` is left out together when the penalty is chosen.

        Args:
            codes: One ``(T_i, P)`` a clip.
            motion: One ``(T_i, D)`` a clip.
            layout: Descriptor groups for :meth:`r2`; default one group ``all``.
            context: Frames on either side given to the regression.
            alphas: Penalties tried.
            folds: Folds of clips; fewer clips than folds use one clip a fold.

        Raises:
            ShapeError: Fewer than two clips, or codes and motion that do not pair up.
        """
        _check_pairs(codes, motion)
        if len(codes) < 2:
            raise ShapeError(
                f"expected at least 2 clips, got {len(codes)}; the penalty needs a held-out clip."
            )
        count = min(folds, len(codes))
        sums: list[list[RidgeSums]] = [[] for _ in range(count)]
        for i, (code, descriptors) in enumerate(zip(codes, motion, strict=True)):
            x = _with_context(torch.from_numpy(np.asarray(code, np.float64)), context)
            y = torch.from_numpy(np.asarray(descriptors, np.float64))
            sums[i % count].append(RidgeSums.of(x, y))
        fitted, alpha = fit_ridge([total(fold) for fold in sums], alphas)
        return cls(
            weight=fitted.weight.float().numpy(),
            bias=fitted.bias.float().numpy(),
            context=context,
            alpha=alpha,
            layout=dict(layout) if layout is not None else {"all": slice(0, motion[0].shape[1])},
        )

    @property
    def code_dim(self) -> int:
        """Width ``P`` of the codes."""
        return int(self.weight.shape[0]) // (2 * self.context + 1)

    def predict(self, codes: FloatArray) -> FloatArray:
        """Descriptors ``(..., T, D)`` float32 of codes ``(..., T, P)``.

        Raises:
            ShapeError: The codes have another width.
        """
        tensor = torch.from_numpy(np.ascontiguousarray(codes, np.float32))
        out: FloatArray = self.predict_tensor(tensor).numpy()
        return out

    def predict_tensor(self, codes: Tensor) -> Tensor:
        """As :meth:`predict`, for tensors on any device; differentiable."""
        if codes.ndim < 2 or codes.shape[-1] != self.code_dim:
            raise ShapeError(
                f"expected codes (..., T, {self.code_dim}), got {tuple(codes.shape)}; "
                "fit the read-out on codes of the same encoder."
            )
        weight = torch.from_numpy(self.weight).to(codes)
        bias = torch.from_numpy(self.bias).to(codes)
        return _with_context(codes, self.context) @ weight + bias

    def r2_per_dim(
        self, codes: Sequence[FloatArray], motion: Sequence[FloatArray]
    ) -> NDArray[np.float64]:
        """R^2 of every descriptor over all given clips, ``(D,)``; NaN where one never varies.

        Deviations are taken from the mean over all clips.
        """
        _check_pairs(codes, motion)
        fitted = LinearMap(
            torch.from_numpy(self.weight).double(), torch.from_numpy(self.bias).double()
        )
        sums = total(
            [
                RidgeSums.of(
                    _with_context(torch.from_numpy(np.asarray(c, np.float64)), self.context),
                    torch.from_numpy(np.asarray(m, np.float64)),
                )
                for c, m in zip(codes, motion, strict=True)
            ]
        )
        out: NDArray[np.float64] = r_squared(fitted.squared_error(sums), sums.spread()).numpy()
        return out

    def r2(self, codes: Sequence[FloatArray], motion: Sequence[FloatArray]) -> dict[str, float]:
        """Mean R^2 of every descriptor group, plus ``all``; entries that never vary are left out.

        Args:
            codes: One ``(T_i, P)`` a clip, of a split the fit has not seen.
            motion: One ``(T_i, D)`` a clip.
        """
        per_dim = self.r2_per_dim(codes, motion)
        groups = {**self.layout, "all": slice(0, len(per_dim))}
        return {name: _mean_known(per_dim[where]) for name, where in groups.items()}

    @property
    def spec(self) -> dict[str, Any]:
        """Plain description: sizes, context, penalty and descriptor groups as ``[start, stop]``."""
        return {
            "code_dim": self.code_dim,
            "motion_dim": int(self.bias.shape[0]),
            "context": self.context,
            "alpha": self.alpha,
            "layout": {name: [s.start, s.stop] for name, s in self.layout.items()},
        }

    def save(self, path: Path | str) -> None:
        """Write an ``.npz`` through a temporary name."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        header = json.dumps({"format": FORMAT, **self.spec})
        with partial.open("wb") as file:
            np.savez(file, weight=self.weight, bias=self.bias, header=np.array(header))
        partial.replace(target)

    @classmethod
    def load(cls, path: Path | str) -> Readout:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: Missing, broken, or of another format.
        """
        try:
            # Read at once: np.load keeps a truncated file open when it fails.
            content = io.BytesIO(Path(path).read_bytes())
            with np.load(content, allow_pickle=False) as data:
                header = json.loads(str(data["header"]))
                weight, bias = data["weight"], data["bias"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is no read-out ({error}); fit it again.") from error
        if header.get("format") != FORMAT:
            raise DataError(
                f"{path}: expected read-out format {FORMAT}, got {header.get('format')}; fit again."
            )
        layout = {name: slice(a, b) for name, (a, b) in header["layout"].items()}
        return cls(weight, bias, int(header["context"]), float(header["alpha"]), layout)


def _check_pairs(codes: Sequence[FloatArray], motion: Sequence[FloatArray]) -> None:
    """Every clip has as many code rows as motion rows."""
    if len(codes) != len(motion) or not codes:
        raise ShapeError(
            f"expected codes and motion of the same clips, got {len(codes)} and {len(motion)}."
        )
    for i, (code, descriptors) in enumerate(zip(codes, motion, strict=True)):
        if code.ndim != 2 or descriptors.ndim != 2 or len(code) != len(descriptors):
            raise ShapeError(
                f"clip {i}: expected codes (T, P) and motion (T, D), got {code.shape} and "
                f"{descriptors.shape}; align them by frame."
            )


def _with_context(codes: Tensor, context: int) -> Tensor:
    """Each frame with its ``context`` neighbours on either side, ``(..., T, P (2 k + 1))``."""
    if context == 0:
        return codes
    frames = codes.shape[-2]
    centre = torch.arange(frames, device=codes.device)
    shifts = [
        codes.index_select(-2, (centre + k).clamp(0, frames - 1))
        for k in range(-context, context + 1)
    ]
    return torch.cat(shifts, dim=-1)


def _mean_known(values: NDArray[np.float64]) -> float:
    """Mean without NaN; NaN when nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
