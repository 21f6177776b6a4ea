"""Samplesheets as people make them: slips of the pen, words that YAML reads as booleans, rows of the wrong length, ids like numbers."""

import numpy as np
import pandas as pd
import pytest
import yaml
from association_cohort import plan, simulated_tables
from click.testing import CliRunner
from PIL import Image

from retsam.association.analysis import analyse
from retsam.association.outcomes import code_outcome, outcome_faults
from retsam.association.sample import PlanError, build_sample
from retsam.cohort.cli import ingest
from retsam.cohort.config import CohortConfig
from retsam.cohort.faults import SamplesheetError
from retsam.cohort.folder import guess_from_names
from retsam.cohort.init import propose
from retsam.cohort.samplesheet import load_cohort, read_sheet
from retsam.cohort.variables import id_text, listed, plain, slips


@pytest.fixture
def folder(tmp_path):
    for k in range(8):
        Image.new("RGB", (32, 32), (90, 40, 20)).save(tmp_path / f"p{k}.png")
    return tmp_path


def sheet(folder, text, encoding="utf-8"):
    path = folder / "sheet.csv"
    path.write_bytes(text.encode(encoding))
    return path


def load(folder, text, **settings):
    return load_cohort(CohortConfig(**{"samplesheet": str(sheet(folder, text)), "columns": {"image": "image"}} | settings))


WORDS = "image,dx\np0.png,yes\np1.png,no\np2.png,No\np3.png,YES\np4.png,\n"


@pytest.mark.parametrize("listing", ["[yes]", '["yes", "YES"]', "[true]", "[on, yes]"])
def test_unquoted_yes_and_no_mean_the_words(folder, listing):
    labels = yaml.safe_load(f"dx: {{positive: {listing}}}")
    assert load(folder, WORDS, labels=labels).table["dx"].tolist() == [1, 0, 0, 1, pd.NA]
    both = yaml.safe_load("dx: {positive: [yes], negative: [no]}")
    assert load(folder, WORDS, labels=both).table["dx"].tolist() == [1, 0, 0, 1, pd.NA]
    cells = pd.DataFrame({"dx": ["yes", "no", "Yes", "maybe"]})
    outcome = plan(outcomes=[{"name": "dx", "positive": yaml.safe_load(listing)}]).outcomes[0]
    assert code_outcome(cells, outcome).y[1] == 0 and code_outcome(cells, outcome).y[0] == 1
    levels = plan(outcomes=[{"name": "dx", "type": "ordered", "levels": yaml.safe_load("[no, maybe, yes]")}]).outcomes[0]
    assert code_outcome(cells, levels).y.tolist() == [2, 0, 2, 1] and code_outcome(cells, levels).levels == ("no", "maybe", "yes")
    assert len(load(folder, WORDS, filter=yaml.safe_load("dx: [no]")).table) == 2


def test_an_exclusion_by_an_unquoted_word_excludes():
    cohort, quality, biomarkers = simulated_tables(40, 6, seed=0)
    cohort["consent"] = np.where(np.arange(len(cohort)) % 4 == 0, "no", "yes")
    none = build_sample(plan(exclude={"consent": [False]}), cohort, quality, biomarkers, ["b0"])
    assert set(none.frame["consent"]) == {"yes"}
    with pytest.raises(PlanError, match="column 'consent' has no 'No'; did you mean 'no'"):
        build_sample(plan(exclude={"consent": ["No"]}), cohort, quality, biomarkers, ["b0"])


@pytest.mark.parametrize(("value", "near"), [("Yes", "yes"), ("yess", "yes")])
def test_a_listed_value_that_is_nearly_a_cell_is_a_fault(folder, value, near):
    text = "image,dx\np0.png,yes\np1.png,no\n"
    with pytest.raises(SamplesheetError, match=f"expected a cell that is '{value}', as `positive` says, found none, but '{near}'"):
        load(folder, text, labels={"dx": {"positive": [value]}})
    with pytest.raises(SamplesheetError, match="as `filter` says"):
        load(folder, text, filter={"dx": [value]})
    outcome = plan(outcomes=[{"name": "dx", "positive": [value]}]).outcomes[0]
    assert f"did you mean '{near}'" in outcome_faults(pd.DataFrame({"dx": ["yes", "no"]}), outcome)[0]
    assert slips(["grade 10", 2], ["grade 1", "2.0"]) == [], "another number is another value"
    notes = load(folder, text, labels={"dx": {"positive": ["glaucoma"]}}).notes
    assert any("no cell of column 'dx' means yes" in note for note in notes)


def test_ids_are_not_numbers(folder):
    """As values 007 and 7 are one, as people they are two; so are long digits, decimals and hexadecimal ones with an e."""
    ids = ["007", "7", "1.10", "1.1", "12E4", "120000", "110101199003071234", "110101199003071239"]
    assert len({id_text(i) for i in ids}) == len(ids)
    assert id_text(12.0) == id_text(np.int64(12)) == id_text("12") == "12"
    assert plain("007") == plain("7.0") == plain(7) == "7" and plain("12E4") == "12E4" and plain("inf") == "inf"
    assert plain(110101199003071234) == plain("110101199003071234") == "110101199003071234"
    cohort, quality, biomarkers = simulated_tables(8, 6, seed=0, both_eyes=1.0)
    cohort["subject"] = [i for i in ids for _ in range(2)]
    quality["status"], quality["grade"], quality["reason"] = "ok", "gradable", None
    biomarkers["status"], biomarkers["b0"] = "ok", 1.0
    assert len(build_sample(plan(), cohort, quality, biomarkers, ["b0"]).frame) == 16
    numbers = pd.DataFrame({"image": [f"p{k}.png" for k in range(4)], "subject": 110101199003071234 + np.arange(4)})
    numbers.to_parquet(folder / "sheet.parquet")
    columns = {"image": "image", "subject": "subject"}
    assert load_cohort(CohortConfig(samplesheet=str(folder / "sheet.parquet"), columns=columns)).table["subject"].nunique() == 4


def test_rows_of_the_wrong_length_and_doubled_names_are_told_with_their_row(folder):
    with pytest.raises(SamplesheetError) as caught:
        load(folder, "image,age,sex\np0.png,50,F\np1.png\np2.png,1,2,3\n")
    assert [fault.row for fault in caught.value.faults] == [3, 4]
    assert "row 3: expected 3 cells, as many as there are names, found 1" in str(caught.value)
    with pytest.raises(SamplesheetError, match="column 'age': expected column names that occur once"):
        load(folder, "image,age,age\np0.png,1,2\n", covariates=["age"])
    left_behind, first = read_sheet(sheet(folder, "image,age,,\np0.png,50,,\n\np1.png,51,,\n\n"))
    assert left_behind.columns.tolist() == ["image", "age"] and first == 2 and len(left_behind) == 3
    assert read_sheet(sheet(folder, 'image;note\np0.png;"a;b"\n'))[0]["note"].tolist() == ["a;b"]
    with pytest.raises(SamplesheetError, match="row 3: expected text in UTF-8, found byte 0xe4"):
        read_sheet(sheet(folder, "image,name\np0.png,a\np1.png,\xe4\n", "latin-1"))
    with pytest.raises(SamplesheetError, match="the table: expected a table with one row of names, found an empty file"):
        read_sheet(sheet(folder, ""))


def test_a_missing_column_hides_no_other_fault(folder):
    with pytest.raises(SamplesheetError) as caught:
        load(folder, "image,age\np0.png,fifty\np9.png,50\n", covariates=["age", "nothere"])
    assert {fault.column for fault in caught.value.faults} == {"nothere", "age", "image"}


def test_visits_that_cannot_be_ordered_are_told_before_any_work(folder):
    path = sheet(folder, "image,subject,eye,visit,dr\np0.png,a,R,05.12.2020,0\np1.png,a,R,04.01.2021,1\n")
    columns = {name: name for name in ("image", "subject", "eye", "visit")}
    study = {"study": "v", "cohort": {"samplesheet": str(path), "columns": columns, "labels": {"dr": {"type": "binary"}}}}
    study["association"] = {"outcomes": ["dr"], "covariate_sets": {"crude": []}}
    for visits, code in (("first", 1), ("all", 0)):
        study["association"]["unit"] = {"visits": visits}
        (folder / "my.yaml").write_text(yaml.safe_dump(study))
        result = CliRunner().invoke(ingest, ["--config", str(folder / "my.yaml"), "--out", str(folder / "cohort.parquet")])
        assert result.exit_code == code, result.output
        assert ("found 04.01.2021, 05.12.2020: which visit comes first cannot be told" in result.output) == (code == 1)


def test_init_keeps_a_column_with_a_bad_cell_and_says_so(folder):
    text = "image,subject,eye,age,site,status,date_of_birth\n" + "".join(
        f"p{k}.png,{'' if k == 3 else f's{k // 2}'},{'XX' if k == 4 else 'RL'[k % 2]},{'abc' if k == 5 else 50 + k},{k % 5},"
        f"{'yes' if k % 3 else 'no'},1950-01-0{k + 1}\n"
        for k in range(8)
    )
    proposed, said = propose(sheet(folder, text))
    config = yaml.safe_load(proposed)
    assert config["cohort"]["columns"] == {"image": "image", "subject": "subject", "eye": "eye"}
    assert config["cohort"]["covariates"]["age"]["type"] == "continuous" and config["cohort"]["covariates"]["site"]["type"] == "categorical"
    assert config["association"]["outcomes"] == ["status_2"] and config["cohort"]["labels"]["status_2"]["column"] == "status"
    for words in ("subject: column 'subject'; 4 different; 1 cells do not fit (empty)", "do not fit ('XX')", "do not fit ('abc')"):
        assert any(words in line for line in said), said
    with pytest.raises(SamplesheetError) as caught:
        load_cohort(CohortConfig(**config["cohort"]))
    assert {fault.column for fault in caught.value.faults} == {"subject", "eye", "age"}


def test_a_number_behind_the_eye_may_count_photographs():
    guess, notes = guess_from_names(["101_R_1.png", "101_R_2.png", "101_L_1.png", "101_L_2.png"])
    assert guess["subject"].isna().all() and "may count photographs" in notes[0]
    assert guess_from_names(["right_1.png", "left_1.png"])[0]["subject"].tolist() == ["1", "1"]


def test_a_missing_word_is_counted_and_a_constant_one_dropped_with_a_note():
    cohort, quality, biomarkers = simulated_tables(120, 6, seed=2)
    cohort["sex"] = cohort["sex"].astype("string")
    cohort.loc[cohort.index[[10, 30]], "sex"] = pd.NA
    cohort["eye"] = cohort["eye"].astype("string").mask(cohort.index == 12)
    cohort["site"] = pd.array(["A"] * len(cohort), "string")
    config = plan(covariate_sets={"crude": [], "all": ["age", "sex", "site"]})
    found = analyse(config, cohort, quality, biomarkers, dictionary={})
    one = found.tables["table1"].query("variable == 'sex' and group == 'all'")
    assert one["n_missing"].max() in (1, 2) and found.tables["table1"].query("variable == 'eye' and group == 'all'")["n_missing"].max() == 1
    row = found.associations.set_index(["biomarker", "covariate_set"]).loc[("b0", "all")]
    assert row["note"] == "covariate_dropped:site" and np.isfinite(row["estimate"])


def test_what_a_list_stands_for():
    assert {"yes", "True", "ON"} <= listed([True]) and "yes" not in listed([False]) and listed(None) == set()
    assert listed([2.0, "a"]) == {"2", "a"}
