"""The read-out and the landmark model as one component, so that a checkpoint can drive the mesh renderer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkhead.geometry.motion import MotionModel
from talkhead.networks.component import Component
from talkhead.readout import Readout


class MotionReadout(Component):
    """Codes ``cat(f_nl, f_l)`` to motion descriptors, and descriptors to landmarks.

    Fitted in closed form on the training split, never by gradients; kept in the prior's checkpoint so
    that one file generates video.
    """

    weight: Tensor
    bias: Tensor
    expression_mean: Tensor
    expression_basis: Tensor
    motion_mean: Tensor
    motion_std: Tensor

    def __init__(
        self,
        code_dim: int = 512,
        n_expression: int = 16,
        context: int = 0,
        alpha: float = 0.0,
        r2_groups: list[str] | None = None,
        r2_values: list[float] | None = None,
    ) -> None:
        """Reserve the buffers.

        Args:
            code_dim: Width of the joined codes.
            n_expression: Expression coefficients of the landmark model.
            context: Frames looked at on either side.
            alpha: Ridge penalty that was chosen.
            r2_groups: Descriptor groups with a reported coefficient of determination.
            r2_values: That coefficient on the validation split, by group.
        """
        super().__init__()
        landmarks = 3 * 478
        motion = 11 + n_expression
        sizes = {
            "weight": (code_dim * (2 * context + 1), motion),
            "bias": (motion,),
            "expression_mean": (landmarks,),
            "expression_basis": (n_expression, landmarks),
            "motion_mean": (motion,),
            "motion_std": (motion,),
        }
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size))

    @classmethod
    def of(
        cls,
        readout: Readout,
        model: MotionModel,
        stats: tuple[Any, Any],
        r2: dict[str, float],
    ) -> MotionReadout:
        """From a fitted read-out, the prepared set's landmark model and its motion mean and std."""
        made = cls(
            code_dim=readout.code_dim,
            n_expression=model.n_expression,
            context=readout.context,
            alpha=readout.alpha,
            r2_groups=list(r2),
            r2_values=[float(v) for v in r2.values()],
        )
        values = {
            "weight": readout.weight,
            "bias": readout.bias,
            "expression_mean": model.expression_mean,
            "expression_basis": model.expression_basis,
            "motion_mean": stats[0],
            "motion_std": stats[1],
        }
        for name, value in values.items():
            getattr(made, name).copy_(torch.as_tensor(np.asarray(value, np.float32)))
        return made

    def forward(self, codes: Tensor) -> Tensor:
        """Descriptors ``(..., T, D)`` of joined codes ``(..., T, P)``."""
        return self.readout().predict_tensor(codes)

    def readout(self) -> Readout:
        """The read-out as fitted."""
        return Readout(
            weight=self.weight.cpu().numpy(),
            bias=self.bias.cpu().numpy(),
            context=int(self.spec["context"]),
            alpha=float(self.spec["alpha"]),
            layout=self.motion_model().layout,
        )

    @property
    def r2(self) -> dict[str, float]:
        """Coefficient of determination on the validation split by descriptor group."""
        return dict(zip(self.spec["r2_groups"] or [], self.spec["r2_values"] or [], strict=True))

    def motion_model(self) -> MotionModel:
        """The landmark model the descriptors belong to."""
        basis = self.expression_basis.cpu().numpy()
        return MotionModel(self.expression_mean.cpu().numpy(), basis, len(basis))
