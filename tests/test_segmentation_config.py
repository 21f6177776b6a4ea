"""Settings of segmentation that would have no effect are refused."""

import pytest
from pydantic import ValidationError

from retsam.segmentation.config import SegmentationConfig


def test_thresholds_of_targets_are_taken():
    thresholds = {"vessel": 0.4, "vessel_twigs": 0.1, "hard_exudate": 1.0, "hard_exudate_peak": 0.9, "disc": 0.0}
    assert SegmentationConfig(thresholds=thresholds).thresholds == thresholds


def test_all_thresholds_that_nothing_would_heed_are_named_at_once():
    with pytest.raises(ValidationError) as error:
        SegmentationConfig(thresholds={"artery": 0.5, "fovea": 0.5, "hemorhage": 0.5, "disc_peak": 0.5, "cup": 1.5, "disc": 0.5})
    text = str(error.value)
    for part in (
        "artery has no threshold: it is a part of the vessels: set `vessel`",
        "fovea has no threshold",
        "hemorhage is no target",
        "disc_peak is no target",
        "cup is 1.5, expected 0 to 1",
    ):
        assert part in text
    assert "disc is" not in text and "vein has" not in text
