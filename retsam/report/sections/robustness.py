"""Where the estimates could be wrong: shape, subgroups, sensitivity, replication, measurement error, camera, circularity."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from retsam.report.disclosure import blank_counts, blank_people, hide_fits, hide_remainders, near_others, near_whole
from retsam.report.html import join, paragraph
from retsam.report.page import Page, Section, not_shown
from retsam.report.sections.associations import blank, in_words
from retsam.report.sections.biomarkers import ranking
from retsam.report.sections.common import FIT, meta, packed, reader, set_order, told_keys, whole_samples
from retsam.report.study import Study

KEY = ("outcome", "biomarker", "covariate_set")

ANALYSES = {
    "primary": "primary model",
    "gradable_only": "gradable photographs only",
    "imputed": "missing values imputed",
    "independence": "working independence",
    "exchangeable": "exchangeable correlation",
    "mixed_model": "mixed model",
    "one_eye": "one eye a subject, at random",
    "winsorised": "biomarker winsorised",
    "rank_inverse_normal": "biomarker rank-inverse-normal",
    "untrained_subjects": "subjects no head was trained on",
}


#: Notes of fits for which an exchangeable working correlation gave way to independence.
GAVE_WAY = {"correlation_matters", "independence"}


def analysis_label(analysis: str, model: object = "", note: object = "", cluster: str = "subject") -> str:
    """An analysis of the sensitivity table in words; of those that choose a working correlation also whether the fit has it."""
    left_out = str(analysis).removeprefix("without:")
    if left_out != analysis:
        return f"without {left_out}"
    if analysis == "one_eye" and cluster != "subject":
        return f"one row a {cluster}, at random"
    label = ANALYSES.get(analysis, reader(str(analysis)))
    gave_way = isinstance(note, str) and GAVE_WAY & set(note.split(";"))
    if gave_way and analysis in ("primary", "exchangeable"):
        return f"{label} (gave way to independence)"
    if isinstance(model, str) and model == "firth_logit" and analysis in ("independence", "exchangeable"):
        return f"{label} (penalised: has none)"
    return label


def strongest_first(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the biomarkers' primary p, so that lists and first pictures begin with the strongest association."""
    order = ranking(study)
    return table.assign(_order=table["biomarker"].map(order).fillna(len(order))).sort_values("_order", kind="stable").drop(columns="_order")


def shape(study: Study, page: Page, minimum: int) -> Section:
    """Dose-response: quintiles and splines."""
    title = "Shape of the associations"
    tests = study.table("shape_tests", *KEY)
    quintiles = study.table("shape_quintiles", *KEY, "quintile", "n", "estimate")
    spline = study.table("shape_spline", *KEY, "x", "estimate")
    if quintiles is None and spline is None:
        return Section("shape", title, not_shown("Dose-response curves", study.why_absent("shape_quintiles")))
    empty = pd.DataFrame(
        columns=[
            *KEY,
            "x",
            "estimate",
            "ci_low",
            "ci_high",
            "quintile",
            "low",
            "high",
            "median",
            "n",
            "n_cases",
            "note",
            "p_overall",
            "p_nonlinear",
            "p_trend",
            "q_nonlinear",
        ]
    )
    quintiles = empty.copy() if quintiles is None else quintiles.copy()
    if len(quintiles):
        quintiles["hidden"] = hide_fits(quintiles, minimum, KEY)
        # the quintiles add up to the sample, so that where its size is not shown theirs are not
        told = told_keys(study, quintiles, minimum)
        blank(quintiles)
        blank_counts(quintiles, told & ~quintiles["hidden"])
        # the smallest and the largest value of all belong to single eyes, as in the table of biomarkers
        order = quintiles.groupby(list(KEY), dropna=False)["quintile"]
        for column, outer in (("low", order.transform("min")), ("high", order.transform("max"))):
            if column in quintiles:
                quintiles[column] = quintiles[column].astype("Float64").mask(quintiles["quintile"] == outer)
    spline, tests = (empty if t is None else t.copy() for t in (spline, tests))
    if len(tests):
        blank_counts(tests, told_keys(study, tests, minimum))
    quintiles, tests = strongest_first(study, quintiles), strongest_first(study, tests)
    names = set(map(str, pd.concat([quintiles["biomarker"], spline["biomarker"]]).unique()))
    who = {"outcome": "outcome", "biomarker": "biomarker", "set": "covariate_set"}
    block = {
        "quintiles": packed(
            quintiles,
            {
                **who,
                "quintile": "quintile",
                "low": "low",
                "high": "high",
                "median": "median",
                "n": "n",
                "cases": "n_cases",
                "est": "estimate",
                "lo": "ci_low",
                "hi": "ci_high",
            },
        ),
        "spline": packed(spline, {**who, "x": "x", "est": "estimate", "lo": "ci_low", "hi": "ci_high"}),
        "tests": packed(
            in_words(tests),
            {**who, "n": "n", "cases": "n_cases", "note": "note"},
            {"nlp_overall": "p_overall", "nlp_nonlinear": "p_nonlinear", "nlp_trend": "p_trend", "nlq_nonlinear": "q_nonlinear"},
        ),
        "meta": meta(study, units={b: study.unit_of(b) for b in names if study.unit_of(b)}),
    }
    page.files["shape_quintiles"] = quintiles.drop(columns=["plan"], errors="ignore")
    text = paragraph(
        "A single number per SD hides thresholds and U shapes. The curve makes no assumption of linearity; the quintiles make none of "
        "smoothness."
    )
    figure = page.figure(
        "shape",
        "shape",
        "Dose-response.",
        "Restricted cubic spline against the median, with its confidence band, and quintiles, which are estimated against the "
        "lowest one and drawn "
        "from the height of the curve there; without a curve, from one. Arrows mark intervals that go beyond the axis.",
        block,
        static="dose_response",
    )
    return Section("shape", title, text + figure)


def subgroups(study: Study, page: Page, minimum: int) -> Section:
    """Subgroups with interaction tests, and sensitivity analyses."""
    parts = [_subgroups(study, page, minimum), _sensitivity(study, page, minimum), _replication(study, page, minimum)]
    text = paragraph(
        "An association that holds only in one site, one sex or one choice of model deserves less trust. Subgroups are compared by "
        "their interaction test, not by which of them has the smaller p."
    )
    return Section("robustness", "Subgroups, sensitivity and replication", text + join(parts))


def subgroup_rows(study: Study, minimum: int) -> pd.DataFrame | None:
    """Rows of subgroups, and of everybody for the same tests; column ``variable`` is the subgroup's variable."""
    table = study.main("associations")
    if table is None:
        return None
    part = table[table["subgroup"].notna() & ~table["subgroup"].isin(["all", ""])]
    if part.empty:
        return None
    keys = pd.MultiIndex.from_frame(part[list(KEY)].drop_duplicates())
    everybody = study.primary
    everybody = everybody[pd.MultiIndex.from_frame(everybody[list(KEY)]).isin(keys)].assign(subgroup="all")
    rows = pd.concat([everybody, part], ignore_index=True)
    rows["variable"] = rows["subgroup"].astype("string").str.split("=", n=1).str[0]
    rows["hidden"] = hide_fits(rows, minimum, [*KEY, "variable"])
    whole = whole_samples(study, rows["outcome"]).where(rows["subgroup"] == "all")
    told = near_whole(rows, minimum, ["outcome", "subgroup"], whole, [*KEY, "variable"])
    kept = rows["hidden"] | told
    told |= near_others(
        rows, minimum, ["outcome", "biomarker", "subgroup"], kept, set_order(study, rows["covariate_set"]), [*KEY, "variable"]
    )
    blank(rows)
    blank_counts(rows, told & ~rows["hidden"])
    blank_people(rows, minimum, ["outcome", "subgroup"], whole["n_clusters"], set_order(study, rows["covariate_set"]))
    return rows


def _fewer(study: Study, rows: pd.DataFrame, most: int = 12000) -> tuple[pd.DataFrame, str]:
    """Rows of tests with an estimate in some level, of the strongest biomarkers where very many; and a sentence on what was left out."""
    known = rows.loc[(rows["subgroup"] != "all") & (rows["estimate"].notna() | (rows["note"] == "small_cell")), list(KEY)]
    # a level without an estimate stays beside the others: the interaction test above them is of it too
    known = rows[pd.MultiIndex.from_frame(rows[list(KEY)]).isin(pd.MultiIndex.from_frame(known))]
    if len(known) <= most:
        return known, ""
    known = known[known["covariate_set"] == study.primary_set] if (known["covariate_set"] == study.primary_set).any() else known
    known = strongest_first(study, known)
    names = known["biomarker"].drop_duplicates()
    while len(known) > most:
        names = names.iloc[: len(names) * most // len(known)]
        known = known[known["biomarker"].isin(names)]
    return (
        known,
        f" The {len(names)} biomarkers with the smallest p are shown, in the primary covariate set; tables/report/subgroups.csv has all.",
    )


def _subgroups(study: Study, page: Page, minimum: int) -> Markup:
    rows = subgroup_rows(study, minimum)
    if rows is None:
        return not_shown("Subgroups", "the plan names no subgroups, or none could be estimated.")
    everything = rows
    rows, cut = _fewer(study, rows)
    if rows.empty:
        return not_shown("Subgroups", "no model within a subgroup gave an estimate.")
    tests = study.table("interactions", *KEY, "subgroup_variable", "p")
    if tests is None:
        tests = pd.DataFrame(columns=[*KEY, "subgroup_variable", "p", "q"])
    tests = tests[tests["biomarker"].isin(rows["biomarker"]) & tests["covariate_set"].isin(rows["covariate_set"])]
    rows = strongest_first(study, rows)
    who = {"outcome": "outcome", "biomarker": "biomarker", "set": "covariate_set"}
    block = {
        "rows": packed(
            in_words(rows),
            {**FIT, "subgroup": "subgroup", "variable": "variable"},
        ),
        "tests": packed(tests, {**who, "variable": "subgroup_variable"}, {"nlp": "p", "nlq": "q"}),
        "meta": meta(study),
    }
    page.files["subgroups"] = everything.drop(columns=["plan"], errors="ignore")
    return page.figure(
        "subgroups",
        "subgroups",
        "Subgroups.",
        "Estimates within each level, and the p of the interaction between biomarker and subgroup (q over the tests of that table). "
        "A level without an estimate says why." + cut,
        block,
        static="subgroups",
    )


def _sensitivity(study: Study, page: Page, minimum: int) -> Markup:
    table = study.table("sensitivity", *KEY, "analysis", "estimate")
    if table is None:
        return not_shown("Sensitivity analyses", study.why_absent("sensitivity"))
    table = strongest_first(study, table).reset_index(drop=True)
    table["hidden"] = hide_fits(table, minimum, KEY, total_known=False)
    # a site left out is the primary sample less what is left; and any sample may be the whole less a few missing values
    everybody = ~table["analysis"].astype(str).str.startswith("without:") & ~table["analysis"].isin(["gradable_only", "untrained_subjects"])
    whole = whole_samples(study, table["outcome"]).where(everybody & (table["analysis"] != "one_eye"))
    told = hide_remainders(table, minimum, KEY) | near_whole(table, minimum, ["outcome", "analysis"], whole)
    people = blank_people(table, minimum, ["outcome", "analysis"], whole["n_clusters"], set_order(study, table["covariate_set"]))
    # one eye a subject has as many rows as the primary sample has subjects
    few = (told | people) & (table["analysis"] == "primary")
    told |= (table["analysis"] == "one_eye") & few.groupby([table[c] for c in KEY]).transform("any")
    blank(table)
    blank_counts(table, told & ~table["hidden"])
    known = table.reindex(columns=["analysis", "model", "note"])
    table["label"] = [analysis_label(*row, study.cluster) for row in known.itertuples(index=False)]
    block = {
        "rows": packed(
            in_words(table),
            {**FIT, "analysis": "analysis", "label": "label"},
        ),
        "meta": meta(study),
    }
    page.files["sensitivity"] = table.drop(columns=["plan"], errors="ignore")
    return page.figure(
        "sensitivity",
        "sensitivity",
        "Sensitivity analyses.",
        "The same association under other choices: photographs, unit, working correlation, scale of the biomarker, missing values, "
        "sites left out one by one. Where an exchangeable correlation gave way to independence, or the model is penalised, the row is "
        "of that model and says so.",
        block,
        static="sensitivity",
    )


def _replication(study: Study, page: Page, minimum: int) -> Markup:
    table = study.table("replication", *KEY, "estimate_discovery", "estimate_replication")
    if table is None:
        return not_shown("Discovery and replication", study.why_absent("replication"))
    table = table.copy()
    told = told_keys(study, table, minimum)
    for column in ("n_discovery", "n_replication"):
        if column in table:
            table[column] = table[column].astype("Float64").mask(told)
    block = {
        "rows": packed(
            table,
            {
                "outcome": "outcome",
                "biomarker": "biomarker",
                "set": "covariate_set",
                "nd": "n_discovery",
                "nr": "n_replication",
                "d": "estimate_discovery",
                "r": "estimate_replication",
                "same": "same_direction",
                "replicated": "replicated",
                "i2": "i2",
            },
            {"nlqd": "q_discovery", "nlpr": "p_replication"},
        ),
        "meta": meta(study),
    }
    for name in ("same", "replicated"):
        column = block["rows"]["columns"][name]
        if isinstance(column, dict):
            levels = [str(v).lower() == "true" for v in column["levels"]]
            block["rows"]["columns"][name] = [None if c < 0 else levels[c] for c in column["codes"]]
    split = ", ".join(map(str, table["split"].dropna().unique())) if "split" in table else ""
    page.files["replication"] = table.drop(columns=["plan"], errors="ignore")
    return page.figure(
        "replication",
        "replication",
        "Discovery and replication.",
        f"Estimates in two parts of the study{f', split by {split}' if split else ''}. Replicated: q under the level in the discovery "
        "part, and in the other the same direction with p under the level divided by the number of discoveries (Bonferroni). "
        "Points on the diagonal agree.",
        block,
        static="replication",
    )


def measurement_error(study: Study, page: Page, minimum: int) -> Section:
    """Estimates beside those corrected for unreliability."""
    table = study.table("measurement_error", *KEY, "reliability", "estimate")
    title = "Measurement error"
    if table is None:
        return Section("error", title, not_shown("Measurement error", study.why_absent("measurement_error")))
    names = {
        "outcome": "outcome",
        "biomarker": "biomarker",
        "set": "covariate_set",
        "rel": "reliability",
        "rel_lo": "reliability_low",
        "rel_hi": "reliability_high",
        "source": "reliability_source",
        "est": "estimate",
        "lo": "ci_low",
        "hi": "ci_high",
        "est_rc": "estimate_rc",
        "lo_rc": "ci_low_rc",
        "hi_rc": "ci_high_rc",
        "est_sx": "estimate_simex",
        "lo_sx": "ci_low_simex",
        "hi_sx": "ci_high_simex",
        "note": "note",
    }
    known = table["reliability"].notna()
    text = paragraph(
        "A biomarker read off a predicted mask is noisy, and noise that has nothing to do with the outcome pulls an estimate towards none. "
        "The corrected estimates assume classical error; they stand beside the plain one, never in its place."
    )
    if not known.any():
        asked = (study.plan.get("robustness") or {}).get("eyes_as_replicates")
        pairless = asked and (study.plan.get("unit") or {}).get("level") in ("subject_mean", "subject_right", "subject_left")
        why = (
            "no reliability is known: the study has no repeat photographs, and the plan gives none (`association.robustness.reliability`)."
            + (" `eyes_as_replicates` has no eyes to compare where a subject is one row." if pairless else "")
        )
        return Section("error", title, text + not_shown("Corrected estimates", why))
    unknown = "" if known.all() else f" For {(~known).sum()} of {len(table)} estimates no reliability is known; they are left out here."
    table = strongest_first(study, table[known])
    block = {"rows": packed(in_words(table), names), "meta": meta(study)}
    page.files["measurement_error"] = table.drop(columns=["plan"], errors="ignore")
    figure = page.figure(
        "error",
        "error",
        "Estimates as measured and corrected.",
        f"Regression calibration and SIMEX, with the reliability that they use and where it comes from.{unknown}",
        block,
        static="measurement_error",
    )
    return Section("error", title, text + figure)
