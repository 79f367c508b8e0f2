from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.crop import Box, crop_frame
from talkhead.geometry.paste_back import PasteBack, feather_mask

WIDTH, HEIGHT = 60, 40


def frame(seed: int = 0) -> NDArray[Any]:
    coarse = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)


def test_the_mask_by_hand() -> None:
    mask = feather_mask(8, 0.25)  # two pixels wide: u = 1/4, 3/4, then 1
    line = [0.15625, 0.84375, 1, 1, 1, 1, 0.84375, 0.15625]
    np.testing.assert_allclose(mask[4], line, atol=1e-6)
    np.testing.assert_allclose(mask, np.outer(line, line), atol=1e-6)
    assert feather_mask(4, 0.0).min() == 1.0


def test_pasting_what_was_cut_changes_nothing() -> None:
    given, box = frame(), Box(10, 5, 30)
    pasted = PasteBack(box, WIDTH, HEIGHT)(given, crop_frame(given, box, 30))
    assert np.array_equal(pasted, given)


@pytest.mark.parametrize("box", [Box(10, 5, 30), Box(-12, -8, 40), Box(30, 10, 50)])
def test_only_the_box_changes_and_its_border_hardly(box: Box) -> None:
    given = frame()
    pasted = PasteBack(box, WIDTH, HEIGHT)(given, np.full((64, 64, 3), 255, np.uint8))
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[max(0, box.y) : box.y + box.side, max(0, box.x) : box.x + box.side] = True
    assert np.array_equal(pasted[~inside], given[~inside])
    middle = (box.y + box.side // 2, box.x + box.side // 2)
    if 0 <= middle[0] < HEIGHT and 0 <= middle[1] < WIDTH:
        assert pasted[middle].tolist() == [255, 255, 255]
    # The outermost row of the box shows little of the crop.
    for row in (box.y, box.y + box.side - 1):
        if 0 <= row < HEIGHT:
            apart = np.abs(pasted[row].astype(int) - given[row].astype(int))
            assert apart.max() <= 255 / 10


def test_the_frame_given_is_not_written_into() -> None:
    given = frame()
    kept = given.copy()
    PasteBack(Box(0, 0, 20), WIDTH, HEIGHT)(given, np.zeros((20, 20, 3), np.uint8))
    assert np.array_equal(given, kept)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="a share from 0 to"):
        feather_mask(8, 0.6)
    with pytest.raises(ConfigError, match="meets the 60 x 40 frame"):
        PasteBack(Box(100, 0, 20), WIDTH, HEIGHT)
    paste = PasteBack(Box(0, 0, 20), WIDTH, HEIGHT)
    with pytest.raises(ShapeError, match="all frames of a video are alike"):
        paste(frame()[:20], np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ShapeError, match="square crop"):
        paste(frame(), np.zeros((20, 10, 3), np.uint8))
