"""NLSE-C (N_c): sync confidence relative to what a method's own training data scores (paper 1)."""

from __future__ import annotations

from talkhead.errors import SpecError


def normalised_confidence(generated: float, training: float) -> float:
    """``N_c = |S_gen - S_train| / S_train``; 0 is best.

    Args:
        generated: Mean sync confidence of the generated videos.
        training: Mean sync confidence of the METHOD's training set, by the same sync network and
            crop (not of the test clips).

    Returns:
        ``N_c``, at least 0. Example: Wav2Lip, 9.23 against LRS2's 7.80, gives 0.18.

    Raises:
        SpecError: ``training`` is not positive.

    Source: paper 1 section 4 and Table 1.
    """
    if training <= 0.0:
        raise SpecError(
            f"expected a positive confidence of the training data, got {training}; "
            "check the sync network on real clips first."
        )
    return abs(generated - training) / training
