"""The report as a whole: written whatever is missing, nothing small shown, nothing that could run."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest
from click.testing import CliRunner
from report_study import FORMULA, NASTY, SETTINGS, make_study

from retsam.report import ReportConfig, build_report
from retsam.report.config import FIGURE_NAMES
from retsam.report.disclosure import hide_cells
from retsam.report.figures import FIGURES
from retsam.report.strobe import ITEMS
from retsam.report.study import Study
from retsam.report.style import absent, save, styled

QUIET = ReportConfig(figures=False, gallery=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("results") / "made_up", n_subjects=30, n_biomarkers=14)


@pytest.fixture(scope="module")
def report(study):
    done = build_report(study, study / "report.html", ReportConfig(gallery_biomarkers=2, gallery_per_end=1, gallery_typical=2), SETTINGS)
    return done, (study / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def copy(study, tmp_path):
    """A study that a test may break."""
    shutil.copytree(study, tmp_path / "results", ignore=shutil.ignore_patterns("figures", "report*"))
    return tmp_path / "results"


class Elements(HTMLParser):
    """Elements, ids and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.ids, self.data, self.inside, self.scripts = [], [], [], None, 0
        self.feed(text)

    def handle_starttag(self, name, attributes):
        attributes = dict(attributes)
        self.elements.append((name, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])


def blocks(text):
    return {k: json.loads(v) for k, v in re.findall(r'<script type="application/json" id="data-([^"]+)">(.*?)</script>', text, re.DOTALL)}


def rows(block):
    columns = {
        k: v if isinstance(v, list) else [None if c < 0 else v["levels"][c] for c in v["codes"]] for k, v in block["columns"].items()
    }
    return pd.DataFrame(columns)


def test_every_section_and_every_figure_is_there(report):
    done, text = report
    page = Elements(text)
    assert len(page.ids) == len(set(page.ids))
    for key in (
        "summary flow table1 quality gallery biomarkers associations shape robustness discrimination camera error heads methods "
        "strobe provenance"
    ).split():
        assert key in page.ids
    assert done.figures == sum(name == "figure" for name, _ in page.elements) == 18
    # Only the record of the workflow is missing: the made-up study was not run by it.
    assert re.findall(r'<p class="absent"><b>([^:]+)', text) == ["Record of the run"]
    assert len(ITEMS) == text.count("<tr><td>", text.index('id="tab-strobe"'), text.index("</table>", text.index('id="tab-strobe"')))


def test_nothing_is_fetched_and_nothing_but_our_script_may_run(report):
    _, text = report
    page = Elements(text)
    for name, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "data"):
            assert str(attributes.get(key, "data:")).startswith(("data:", "#")), (name, attributes)
        assert not [k for k in attributes if k.startswith("on")], (name, attributes)
    policy = next(a["content"] for n, a in page.elements if n == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe-inline" not in policy.split("script-src")[1]


def test_text_of_the_data_stays_text(report):
    _, text = report
    page = Elements(text)
    assert not [a for n, a in page.elements if n == "img" and a.get("src") == "x"]
    assert sum(name == "script" for name, _ in page.elements) == 1 + len(blocks(text))
    # The biomarker called like an element is in the data, and its characters are codes there.
    assert ("made_up_" + NASTY) in rows(blocks(text)["associations"])["biomarker"].tolist()
    assert "<img src=x" not in text and "&lt;img src=x" in text


def test_tables_beside_the_report_cannot_run_in_a_spreadsheet(study, report):
    files = sorted((study / "tables" / "report").glob("*.csv"))
    assert {"flow.csv", "table1_dr.csv", "associations.csv", "failed.csv", "strobe.csv"} <= {f.name for f in files}
    for path in files:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for cell in [*table.columns, *table.to_numpy().ravel()]:
            assert not re.match(r"[=+\-@\t\r]", cell) or re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell), (path.name, cell)
    assert "'" + FORMULA + "+1" in pd.read_csv(study / "tables" / "report" / "failed.csv")["image_id"].tolist()


def test_the_numbers_are_those_of_the_tables(study, report):
    _, text = report
    truth = pd.read_parquet(study / "associations.parquet")
    truth = truth[(truth["subgroup"] == "all")].set_index(["outcome", "biomarker", "covariate_set"])
    shown = rows(blocks(text)["associations"]).set_index(["outcome", "biomarker", "set"])
    assert len(shown) == len(truth)
    both = shown.join(truth.rename_axis(index=["outcome", "biomarker", "set"])[["estimate", "neg_log10_p"]])
    keep = both["est"].notna()
    assert (both.loc[keep, "est"] - both.loc[keep, "estimate"]).abs().max() < 1e-4
    assert (both.loc[keep, "nlp"] / both.loc[keep, "neg_log10_p"] - 1).abs().max() < 1e-4


def test_small_cells_are_nowhere(study, report, copy):
    _, text = report
    tables = pd.read_csv(study / "tables" / "report" / "table1_dr.csv", dtype=str)
    odd = tables[tables["Variable"] == "sex: =X()"]
    assert (odd.iloc[0, 1:4] == "<5").all()
    # The level beside a hidden one would give it away.
    others = tables[tables["Variable"].isin(["sex: F", "sex: M"])]
    assert (others.iloc[:, 1:4] == "not shown").any().all()
    # With a higher minimum the estimates of small outcomes go, too.
    build_report(copy, copy / "report.html", ReportConfig(figures=False, gallery=False, min_cell=12), SETTINGS)
    block = blocks((copy / "report.html").read_text())
    shown = rows(block["associations"])
    assert not ((shown["cases"] > 0) & (shown["cases"] < 12)).any()
    hidden = shown["note"] == "not shown: small cells"
    assert shown.loc[hidden, "est"].isna().all() and hidden.any()
    five = rows(block["shape"]["quintiles"])
    assert five["cases"].isna().all() and five["est"].isna().all()
    for name, part in block["distribution"]["density"].items():
        outcome, biomarker = name.split("\0")
        counts = pd.read_csv(copy / "tables" / "density.csv")
        counts = counts[(counts["outcome"] == outcome) & (counts["biomarker"] == biomarker)]
        for group, heights in part["groups"].items():
            mine = counts[counts["group"] == group].sort_values("bin_low")["count"].to_numpy()
            joined = mine.reshape(len(heights), -1).sum(axis=1)
            assert [h is None for h in heights] == hide_cells(joined, 12).tolist()


def test_values_of_single_eyes_are_not_printed(copy):
    """The smallest and the largest value of a biomarker, which the outer quintiles reach to."""
    file = copy / "tables" / "shape_quintiles.csv"
    made = pd.read_csv(file).assign(n=50, n_cases=20, low=lambda t: t["median"] - 1, high=lambda t: t["median"] + 1)
    made.to_csv(file, index=False)
    build_report(copy, copy / "report.html", ReportConfig(figures=False, gallery=False), SETTINGS)
    five = rows(blocks((copy / "report.html").read_text())["shape"]["quintiles"])
    assert five.loc[five["quintile"] == 1, "low"].isna().all() and five.loc[five["quintile"] == 5, "high"].isna().all()
    assert five.loc[five["quintile"].isin([2, 3, 4]), ["low", "high"]].notna().all().all()
    table = pd.read_csv(copy / "tables" / "report" / "shape_quintiles.csv")
    assert table.loc[table["quintile"] == 1, "low"].isna().all() and table.loc[table["quintile"] == 5, "high"].isna().all()


def test_failures_are_said_at_the_top(report):
    done, text = report
    top = text[: text.index('<section id="summary"')]
    assert "2 photographs failed" in top and "camera alone predicts dr" in top
    assert any("camera" in p.text for p in done.problems)


@pytest.mark.parametrize("name", ["cohort.parquet", "quality.parquet", "biomarkers.parquet", "associations.parquet", "tables", "masks"])
def test_the_report_is_written_without(name, copy):
    target = copy / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    done = build_report(copy, copy / "report.html", ReportConfig(figures=False, gallery_biomarkers=1), SETTINGS)
    text = (copy / "report.html").read_text()
    assert all(f'<section id="{key}"' in text for key in ("summary", "flow", "associations", "provenance"))
    assert "not shown. " in text
    if name.endswith(".parquet"):
        top = text[: text.index('<section id="summary"')]
        assert f"{name} does not exist" in top and any(p.level == "fault" for p in done.problems)


def test_an_empty_folder_gives_a_report_that_says_so(tmp_path):
    done = build_report(tmp_path, tmp_path / "report.html", ReportConfig(figures=False))
    assert {p.text.split()[0] for p in done.problems if p.level == "fault"} >= {"cohort.parquet", "associations.parquet"}


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="results folder"):
        build_report(tmp_path / "nothing", tmp_path / "report.html")


def test_broken_files_are_named(copy):
    (copy / "associations.parquet").write_bytes(b"not parquet")
    (copy / "tables" / "flow.csv").write_bytes(b"\xff\xfe\x00")
    (copy / "provenance.json").write_text("{")
    texts = [p.text for p in build_report(copy, copy / "report.html", QUIET, SETTINGS).problems]
    assert any("associations.parquet cannot be read" in t for t in texts)
    assert any("flow.csv cannot be read" in t for t in texts)
    assert any("provenance.json cannot be read" in t for t in texts)


def test_a_flow_that_does_not_add_up_is_a_fault(copy):
    flow = pd.read_csv(copy / "tables" / "flow.csv")
    flow.loc[1, "n_images"] -= 1
    flow.to_csv(copy / "tables" / "flow.csv", index=False)
    done = build_report(copy, copy / "report.html", QUIET, SETTINGS)
    assert any("does not add up" in p.text for p in done.problems)


def test_an_outcome_without_estimates_is_named(copy):
    table = pd.read_parquet(copy / "associations.parquet")
    mine = table["outcome"] == "glaucoma"
    for column in ("estimate", "se", "ci_low", "ci_high", "p", "neg_log10_p", "q"):
        table.loc[mine, column] = float("nan")
    table.loc[mine, "note"] = "too_few_cases"
    table.to_parquet(copy / "associations.parquet")
    build_report(copy, copy / "report.html", QUIET, SETTINGS)
    text = (copy / "report.html").read_text()
    assert "No association could be estimated for the outcome glaucoma (too few cases)" in text


def test_the_flow_is_counted_where_the_association_room_left_none(copy):
    (copy / "tables" / "flow.csv").unlink()
    done = build_report(copy, copy / "report.html", QUIET, SETTINGS)
    flow = pd.read_csv(copy / "tables" / "report" / "flow.csv")
    cohort = pd.read_parquet(copy / "cohort.parquet")
    measured = pd.read_parquet(copy / "biomarkers.parquet")
    assert flow["n_images"].iloc[0] == len(cohort) and flow["n_images"].iloc[-1] == (measured["status"] == "ok").sum()
    assert (flow["n_images"].shift().iloc[1:] - flow["n_excluded"].iloc[1:] == flow["n_images"].iloc[1:]).all()
    assert not any("add up" in p.text for p in done.problems)


def test_pictures_shrink_and_then_go_to_keep_the_size(study, tmp_path):
    config = ReportConfig(figures=False, max_mb=1.0, gallery_side_px=1024, jpeg_quality=95, gallery_typical=60, gallery_biomarkers=2)
    done = build_report(study, tmp_path / "report.html", config, SETTINGS)
    text = (tmp_path / "report.html").read_text()
    assert done.bytes == len(text.encode()) <= 1e6 and done.pictures > 0
    assert "To keep this page under 1 MB" in text or done.pictures >= 60


def test_ids_can_be_kept_out(study, tmp_path):
    build_report(study, tmp_path / "report.html", ReportConfig(figures=False, show_image_ids=False, gallery_biomarkers=1), SETTINGS)
    text = (tmp_path / "report.html").read_text()
    ids = pd.read_parquet(study / "cohort.parquet")["image_id"].iloc[8:]
    assert not [i for i in ids if re.search(rf"\b{re.escape(i)}\b", text)]


def test_every_printable_figure_is_written_and_the_same_each_time(study, report, tmp_path):
    for name in FIGURES:
        for kind in ("svg", "pdf"):
            assert (study / "figures" / f"{name}.{kind}").stat().st_size > 1500, name
    with styled():
        save(FIGURES["volcano"](Study(study, SETTINGS), ReportConfig()), tmp_path, "volcano")
    for kind in ("svg", "pdf"):
        assert (tmp_path / f"volcano.{kind}").read_bytes() == (study / "figures" / f"volcano.{kind}").read_bytes()
    assert "Not shown" not in (study / "figures" / "forest.svg").read_text()


def test_methods_say_what_the_settings_say(report):
    _, text = report
    methods = text[text.index('id="methods-text"') : text.index('<section id="strobe"')]
    for words in (
        "exchangeable working correlation",
        "Kauermann and Carroll",
        "Benjamini-Hochberg",
        "age_sex (age, sex)",
        "Firth",
        "made-up",
        "doi" if "doi" in methods else "Biometrika",
    ):
        assert words in methods
    cited = {int(n) for group in re.findall(r"\[([\d,]+)\]", methods) for n in group.split(",")}
    assert cited == set(range(1, methods.count("<li>") + 1))


def test_no_claim_of_significance_or_effect(report):
    _, text = report
    body = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.DOTALL).lower()
    assert "significant" not in body
    assert not re.search(r"\b(effects? of|effects? size|caus(es|ed) by|leads? to)\b", body)


def test_command(study, tmp_path, monkeypatch):
    import retsam.config
    from retsam.report.cli import report as command

    class Config:
        report = QUIET

        @staticmethod
        def model_dump(mode):
            return SETTINGS

    monkeypatch.setattr(retsam.config, "load_config", lambda path: Config())
    (tmp_path / "config.yaml").write_text("study: made_up\n")
    out = tmp_path / "out" / "report.html"
    result = CliRunner().invoke(command, ["--config", str(tmp_path / "config.yaml"), "--results", str(study), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.is_file() and "18 figures" in result.output


def test_a_figure_without_data_says_so(tmp_path):
    with styled():
        for name in ("forest", "correlation", "camera"):
            assert FIGURES[name](Study(tmp_path, {}), ReportConfig()) is None
        save(absent("the study has no rows."), tmp_path, "forest")
    assert "Not shown: the study has no rows." in (tmp_path / "forest.svg").read_text()


def test_every_figure_is_seen_without_scripts(report):
    _, text = report
    found = re.findall(r'<figure id="fig-([^"]+)".*?<noscript>(.*?)</noscript>', text, re.DOTALL)
    assert len(found) == 18
    for name, still in found:
        assert still.startswith('<img src="data:image/svg+xml;base64,'), f"{name} needs scripts"


def test_the_workflow_knows_the_names_of_the_figures():
    assert set(FIGURE_NAMES) == set(FIGURES) and len(FIGURE_NAMES) == len(FIGURES)


def test_marks_stand_beside_the_estimates_they_concern(copy):
    """A dagger where a head learned from analysed subjects, a double one where the head is weak, the scale in the remarks."""
    table = pd.read_parquet(copy / "associations.parquet")
    circular = table["biomarker"].iloc[0]
    table["circular"] = table["biomarker"] == circular
    table["transform"] = "standardise"
    logged = table["biomarker"].unique()[1]
    table.loc[table["biomarker"] == logged, "transform"] = "log1p+standardise"
    relative = table["biomarker"].unique()[2]
    table.loc[table["biomarker"] == relative, "transform"] = "log_relative+standardise"
    table.to_parquet(copy / "associations.parquet")
    study = Study(copy, SETTINGS)
    weak = {b for b in table["biomarker"].unique() if "hard_exudate" in study.heads_of(b)}
    assert weak and circular not in weak
    build_report(copy, copy / "report.html", QUIET, SETTINGS)
    text = (copy / "report.html").read_text(encoding="utf-8")
    shown = rows(blocks(text)["associations"]).drop_duplicates("biomarker").set_index("biomarker")
    assert set(shown.index[shown["mark"].fillna("").str.contains("\u2020")]) == {circular}
    assert set(shown.index[shown["mark"].fillna("").str.contains("\u2021")]) == weak
    assert "head learned from analysed subjects" in shown.loc[circular, "note"]
    assert "log(1 + x)" in shown.loc[logged, "note"] and "log(1 + x/m)" in shown.loc[relative, "note"]
    section = text[text.index('<section id="associations"') : text.index('<section id="shape"')]
    assert "\u2020 marks the 1 biomarkers" in section and f"{circular} \u2020" in section


def test_scores_of_heads_are_told_by_data_set_and_whole_in_a_table(study, report):
    _, text = report
    section = text[text.index('<section id="heads"') : text.index('<section id="methods"')]
    assert "hard exudate" in section and 'class="status weak"' in section and "Not available" in section
    scores = pd.read_csv(study / "tables" / "report" / "head_scores.csv")
    assert list(scores.columns) == ["target", "status", "dataset", "metric", "value", "ci_low", "ci_high", "n"]


def test_a_gallery_takes_turns_between_outcomes_and_draws_only_what_a_biomarker_is_made_from(study):
    from retsam.report.gallery import _targets, choose

    picked = list(dict.fromkeys(p.biomarker for p in choose(Study(study, SETTINGS), ReportConfig(gallery_biomarkers=3)) if p.biomarker))
    table = Study(study, SETTINGS).primary
    table = table[table["covariate_set"] == "age_sex"].sort_values("neg_log10_p", ascending=False)
    first = [table.loc[table["outcome"] == o, "biomarker"].iloc[0] for o in table["outcome"].unique()]
    assert picked[0] in first and len(picked) == 3
    assert _targets(Study(study, SETTINGS), "cdr_vertical") == ["cup", "disc"]
    assert _targets(Study(study, SETTINGS), None) is None
