"""The dictionary: one registry, sound entries, documents that do not drift from it."""

import json
from pathlib import Path

import numpy as np
import pytest

from retsam.biomarkers import documentation
from retsam.biomarkers.config import RESOLUTION_FLOORS, BiomarkersConfig
from retsam.biomarkers.eye import measure
from retsam.biomarkers.eye_phantoms import EyePhantom
from retsam.biomarkers.fidelity import HEADLINE
from retsam.biomarkers.registry import FAMILIES, REASONS, Biomarker, Null, index, registry
from retsam.segmentation.targets import TARGETS

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_every_entry_is_complete():
    needs = {*TARGETS, "fov", "fovea", "scale", "laterality"}
    for name, entry in registry(extra=True).items():
        assert entry.definition.endswith("."), name
        assert entry.family in FAMILIES
        assert entry.resolution in {"", *RESOLUTION_FLOORS}, name
        assert entry.valid_range[0] < entry.valid_range[1], name
        unknown = {word for need in entry.needs for word in need.split("|")} - needs
        assert not unknown, f"{name} needs {unknown}"


def test_the_dictionary_is_large_and_has_every_family():
    known = registry()
    assert len(known) >= 150
    assert {entry.family for entry in known.values()} == set(FAMILIES)


def test_two_entries_of_one_name_are_refused():
    entry = Biomarker("a", "image", "A.")
    with pytest.raises(ValueError, match="two biomarkers are named 'a'"):
        index([entry, entry])


def test_unknown_reason_and_family_are_refused():
    with pytest.raises(ValueError, match="unknown reason code 'because'"):
        Null("because")
    with pytest.raises(ValueError, match="unknown family 'ear'"):
        Biomarker("a", "ear", "A.")


def test_a_null_is_not_a_zero():
    assert Null("no_disc") or False


def test_a_row_has_every_biomarker_and_its_reason():
    row = measure(EyePhantom(px_per_dd=80).masks())
    known = registry()
    for name in known:
        assert (row[f"{name}__reason"] is None) == bool(np.isfinite(row[name])), name
        assert row[f"{name}__reason"] in {None, *REASONS}
    assert row["detail"] is None


def test_families_that_are_not_asked_for_have_no_columns():
    row = measure(EyePhantom(px_per_dd=60).masks(), BiomarkersConfig(families=("optic_nerve",)))
    assert "cdr_vertical" in row and "hemorrhage_count" not in row


def test_documents_agree_with_the_registry():
    wanted = {"biomarkers.md": documentation.biomarkers_markdown(), "biomarkers.json": documentation.biomarkers_json()}
    for name, text in wanted.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"docs/{name} is old: run `retsam measure dictionary --out docs`"


def test_json_is_strict_and_lists_every_column():
    content = json.loads(documentation.biomarkers_json(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert set(content["biomarkers"]) == set(registry(extra=True))
    assert content["biomarkers"]["cdr_vertical"]["valid_range"] == [0.0, 1.0]


def test_headline_biomarkers_exist():
    assert {name for names in HEADLINE.values() for name in names} <= set(registry())


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="unknown families ear"):
        BiomarkersConfig(families=("ear",))
    with pytest.raises(ValueError, match="unknown kinds hue"):
        BiomarkersConfig(min_fov_diameter_px={"hue": 3})
    assert BiomarkersConfig(min_fov_diameter_px={"calibre": 700}).min_fov_diameter_px["density"] == RESOLUTION_FLOORS["density"]
