"""The boundary of shallow diffusion by plain loops over entries and steps."""

from __future__ import annotations

import math

from torch import Tensor


def boundary_by_search(coarse: Tensor, real: Tensor, alpha_bar: list[float]) -> list[int]:
    """First step count of each sample at which the diffused pair is as close as truth and noise."""
    found = []
    for rough, truth in zip(coarse.flatten(1).tolist(), real.flatten(1).tolist(), strict=True):
        last = alpha_bar[-1]
        noise = 0.0
        for value in truth:  # KL(N(sqrt(a) x, 1 - a) || N(0, 1)) entry by entry
            noise += 0.5 * (last * value**2 + (1 - last) - 1 - math.log(1 - last))
        steps = len(alpha_bar)
        for n, kept in enumerate(alpha_bar):
            apart = 0.0
            for a, b in zip(rough, truth, strict=True):  # equal variances: squared means' distance
                apart += (math.sqrt(kept) * a - math.sqrt(kept) * b) ** 2 / (2 * (1 - kept))
            if apart <= noise:
                steps = n + 1
                break
        found.append(steps)
    return found
