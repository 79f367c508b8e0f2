from __future__ import annotations

import numpy as np
import pytest
import torch

from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.geometry.motion import MotionModel
from talkhead.networks.motion_readout import MotionReadout
from talkhead.readout import Readout

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model() -> MotionModel:
    basis = np.linalg.qr(RNG.normal(size=(478 * 3, 4)))[0].T
    return MotionModel(np.zeros(478 * 3, np.float32), basis.astype(np.float32), 4)


@pytest.mark.parametrize("context", [0, 2])
def test_component_says_what_the_fit_says_also_after_reloading(
    model: MotionModel, context: int
) -> None:
    weight = RNG.normal(size=(6 * (2 * context + 1), model.dim)).astype(np.float32)
    bias = RNG.normal(size=model.dim).astype(np.float32)
    fitted = Readout(weight, bias, context, alpha=3.0, layout=model.layout)
    stats = (np.arange(model.dim), np.arange(model.dim) + 1.0)
    made = MotionReadout.of(fitted, model, stats, {"rotation": 0.5, "gaze": -0.25})
    again = MotionReadout(**made.spec)
    again.load_state_dict(made.state_dict())
    codes = torch.randn(2, 9, 6)
    for readout in (made, again):
        torch.testing.assert_close(readout(codes), fitted.predict_tensor(codes))
        assert readout.r2 == {"rotation": 0.5, "gaze": -0.25}
        assert readout.readout().alpha == 3.0
    assert again.motion_mean.tolist() == stats[0].tolist()
    assert again.motion_std.tolist() == stats[1].tolist()
    face = canonical_landmarks()[None].repeat(3, 0)
    np.testing.assert_allclose(
        again.motion_model().encode(face), model.encode(face), rtol=1e-5, atol=1e-6
    )


def test_no_gradient_reaches_a_fitted_map(model: MotionModel) -> None:
    made = MotionReadout(code_dim=6, n_expression=4)
    assert list(made.parameters()) == []
