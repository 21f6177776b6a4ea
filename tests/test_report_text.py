"""Text of the report: escaping, numbers, small cells, the flow that adds up."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pandas as pd
import pytest

from retsam.report.disclosure import hide_cells, hide_fits, hide_matrix, show_count
from retsam.report.flow import faults, parse_reasons
from retsam.report.html import csv_safe, csv_text, estimate_text, json_block, number, p_text, pack, q_text, table_html, tag
from retsam.report.methods import Citations, merge


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_cells_that_a_spreadsheet_would_run_become_text(cell):
    assert csv_safe(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["-1.5", "+3", "-2e-8", "a=b", "", "normal", -4.2, None])
def test_harmless_cells_stay(cell):
    assert csv_safe(cell) is cell or csv_safe(cell) == cell


def test_csv_neutralises_names_of_columns_too_and_reads_back():
    table = pd.DataFrame({"=evil": ["=HYPERLINK(1)", 'say "hi", ok'], "n": [1, 2]})
    rows = list(csv.reader(io.StringIO(csv_text(table))))
    assert rows == [["'=evil", "n"], ["'=HYPERLINK(1)", "1"], ['say "hi", ok', "2"]]


def test_json_cannot_leave_its_script_element():
    nasty = {"</script><script>alert(1)</script>": "<!-- & \u2028 -->", "n": [1.5, float("nan"), float("inf"), None]}
    text = str(json_block(nasty))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {**nasty, "n": [1.5, None, None, None]}


def test_tags_escape_content_and_attributes():
    text = tag("p", '<b a="1">', title='"><script>')
    assert str(text) == '<p title="&#34;&gt;&lt;script&gt;">&lt;b a=&#34;1&#34;&gt;</p>'
    assert "<i>" not in table_html(["<i>"], [["<i>"]])


def test_pack_codes_texts_and_rounds_numbers():
    block = pack(pd.DataFrame({"a": ["x", None, "x"], "b": [1.23456789, np.nan, 3.0], "c": [True, False, True]}))
    assert block["columns"] == {"a": {"levels": ["x"], "codes": [0, -1, 0]}, "b": [1.234568, None, 3], "c": [True, False, True]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (-1.5, "\u22121.50"),
        (12345, "12\u202f345"),
        (0, "0"),
        (None, "\u2013"),
        (99.96, "100"),
        (2e-7, "2.0\u00d710\u207b\u2077"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("nlp", "text"),
    [
        (0.0, "1.00"),
        (1.0, "0.10"),
        (2.0, "0.010"),
        (8.0, "1.0\u00d710\u207b\u2078"),
        (400.5, "3.2\u00d710\u207b\u2074\u2070\u00b9"),
        (None, "\u2013"),
    ],
)
def test_p_values_do_not_underflow(nlp, text):
    assert p_text(nlp) == text


def test_q_that_underflowed_is_not_printed_as_zero():
    assert q_text(0.0).startswith("<")


def test_estimates_of_ratios_are_exponentiated_and_slopes_are_not():
    assert estimate_text(math.log(2), math.log(1.5), math.log(3), True) == "2.00 (1.50 to 3.00)"
    assert estimate_text(-0.5, -1, 0.25, False) == "\u22120.500 (\u22121.00 to 0.250)"


# ---- small cells -----------------------------------------------------------------------------------------------------


def test_counts():
    assert [show_count(v, 5) for v in (0, 1, 4, 5, 1234, None)] == ["0", "<5", "<5", "5", "1\u202f234", "\u2013"]


def test_a_single_hidden_cell_takes_another_with_it():
    assert hide_cells([3, 50, 20, 0], 5).tolist() == [True, False, True, False]
    assert hide_cells([3, 50, 20], 5, total_known=False).tolist() == [True, False, False]
    assert not hide_cells([0, 50], 5).any()


@pytest.mark.parametrize("seed", range(30))
def test_no_hidden_cell_of_a_table_can_be_worked_out_from_a_margin(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 30, size=rng.integers(2, 6, size=2))
    hidden = hide_matrix(counts, 5)
    assert hidden[(counts > 0) & (counts < 5)].all()
    for axis in (0, 1):
        for line, cells in zip(hidden if axis else hidden.T, counts if axis else counts.T, strict=True):
            # One hidden cell alone would be its margin less the rest, unless every other cell is zero.
            assert line.sum() != 1 or (cells[~line] == 0).all()


def test_fits_with_few_cases_or_few_controls_are_hidden_and_so_is_the_level_beside_them():
    table = pd.DataFrame({"g": ["a", "a", "a", "b"], "n": [100, 80, 60, 40.0], "n_cases": [3, 20, 30, 38.0]})
    assert hide_fits(table, 5, ["g"]).tolist() == [True, True, False, True]
    assert hide_fits(table, 1, ["g"]).tolist() == [False] * 4


# ---- flow ------------------------------------------------------------------------------------------------------------


def steps(rows):
    return pd.DataFrame(rows, columns=["outcome", "covariate_set", "step", "stage", "n_images", "n_excluded", "reasons"])


def test_a_flow_that_adds_up_has_no_fault():
    flow = steps(
        [
            ("all", None, 0, "found", 10, 0, ""),
            ("all", None, 1, "readable", 8, 2, "truncated: 2"),
            ("dr", None, 2, "labelled", 5, 3, ""),
            ("dr", "age", 3, "covariates_complete", 4, 1, "age: 1"),
            ("dr", "sex", 3, "covariates_complete", 5, 0, ""),
        ]
    )
    assert faults(flow) == []


def test_a_flow_that_does_not_add_up_says_where():
    flow = steps(
        [("all", None, 0, "found", 10, 0, ""), ("all", None, 1, "readable", 9, 2, "truncated: 1"), ("dr", None, 2, "labelled", 9, 1, "")]
    )
    found = faults(flow)
    assert len(found) == 3 and "readable" in found[0] and "reasons" in found[1] and "dr, labelled" in found[2]


def test_reasons_are_read():
    assert parse_reasons("site:A: 3; blur: 2; blur: 1") == {"site:A": 3, "blur": 3}
    assert parse_reasons(None) == {} and parse_reasons(" ") == {}


def test_a_methods_text_with_its_own_references_is_renumbered():
    cite = Citations()
    cite("gee")
    markdown = (
        "## Statistics\n\nLogit [2] and\nGEE [1,2]; an interval [0.1].\n\nMore [3].\n\n## References of it\n\n"
        "1. Liang. Short. Biometrika 1986;73:13-22.\n2. Firth D. Bias. Biometrika 1993;80:27-38.\n3. New A. 2020;1:2-3.\n"
    )
    assert merge(markdown, cite) == ["Logit [2] and GEE [1,2]; an interval [0.1].", "More [3]."]
    assert len(cite.texts) == 3 and cite("firth") == "[2]"
