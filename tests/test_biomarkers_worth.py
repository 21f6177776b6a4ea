"""Repeatability and fidelity in the dictionary: tables that fit the registry, shown beside each biomarker."""

import json

from retsam.biomarkers import documentation, worth
from retsam.biomarkers.fidelity import HEADLINE
from retsam.biomarkers.registry import registry


def test_tables_name_biomarkers_that_exist_and_values_that_can_be():
    known = registry()
    repeats, follows = worth.repeatability(), worth.fidelity()
    assert set(repeats) <= set(known) and set(follows) <= set(known)
    for name, protocols in repeats.items():
        for protocol, values in protocols.items():
            assert protocol in worth.PROTOCOLS and values["eyes"] >= 5, name
            assert values["cv"] is None or (values["cv"] >= 0 and known[name].valid_range[0] >= 0), name
            assert values["icc"] is None or values["icc"] <= 1, name
    for name, datasets in follows.items():
        for values in datasets.values():
            assert values["n"] >= 5 and -1 <= values["r"] <= 1, name


def test_the_quantities_of_the_bar_are_measured_under_both():
    for name in {name for names in HEADLINE.values() for name in names}:
        assert set(worth.repeatability()[name]) == set(worth.PROTOCOLS), name
        assert {"drive", "hrf", "gave"} <= set(worth.fidelity()[name]), name


def test_the_dictionary_shows_them():
    content = json.loads(documentation.biomarkers_json())
    shown = content["biomarkers"]["crae"]
    assert shown["repeatability"] == worth.repeatability()["crae"] and shown["fidelity"] == worth.fidelity()["crae"]
    assert content["biomarkers"]["cdr_vertical"]["repeatability"]["photographs"]["eyes"] >= 5
    assert content["biomarkers"]["cdr_vertical"]["fidelity"] is None, "no test part of vessels draws discs"
    assert content["evidence"]["fidelity"]["weights_sha256"] and content["evidence"]["repeatability"]["masks"]["eyes"]
    line = next(line for line in documentation.biomarkers_markdown().splitlines() if line.startswith("| `avr` |"))
    found = worth.repeatability()["avr"]["masks"]
    assert f"masks {found['cv']:.1%}, {found['icc']:.2f}" in line and f"hrf {worth.fidelity()['avr']['hrf']['r']:.2f}" in line
