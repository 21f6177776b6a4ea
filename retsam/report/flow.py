"""How many photographs were left after each step, from the association room's table or counted here."""

from __future__ import annotations

import re

import pandas as pd

from retsam.report.disclosure import hide_cells, show_count, small
from retsam.report.study import Problem, Study

#: Stage -> what stays, and what the excluded ones are.
STAGES: dict[str, tuple[str, str]] = {
    "found": ("Photographs found", ""),
    "readable": ("Readable, a fundus", "unreadable or no fundus"),
    "unique": ("Unique", "duplicates"),
    "gradable": ("Gradable or usable", "rejected for quality"),
    "segmented": ("Segmented", "could not be segmented"),
    "measured": ("Measured", "could not be measured"),
    "eligible": ("Eligible by the plan", "excluded by the plan"),
    "one_per_eye": ("One photograph an eye", "further photographs of the same eye"),
    "one_per_subject": ("Eyes averaged", "averaged with the other eye"),
    "labelled": ("Outcome known", "outcome not known"),
    "covariates_complete": ("Covariates complete", "a covariate is missing"),
}

COLUMNS = ["outcome", "covariate_set", "step", "stage", "n_images", "n_subjects", "n_excluded", "reasons"]


def flow_table(study: Study) -> pd.DataFrame | None:
    """Steps of the flow: ``tables/flow.csv``, or counted from the rooms' tables where that does not exist.

    A flow that does not add up is shown all the same, and a fault says where it breaks.
    """
    table = study.table("flow", "outcome", "step", "stage", "n_images", "n_excluded")
    if table is None:
        table = _counted(study)
    if table is None:
        return None
    for column in COLUMNS:
        if column not in table:
            table[column] = pd.NA
    for text in faults(table):
        study.problems.append(Problem("fault", text))
    return table


def shared_steps(table: pd.DataFrame) -> pd.DataFrame:
    """Steps that all outcomes share, in order."""
    return table[table["outcome"].isna() | (table["outcome"] == "all")].sort_values("step")


def stage_row(table: pd.DataFrame, *stages: str) -> pd.Series | None:
    """The last shared step of one of these names; None where the table has none."""
    shared = shared_steps(table)
    rows = shared[shared["stage"].isin(stages)]
    return rows.iloc[-1] if len(rows) else None


def stage_text(study: Study, row: pd.Series) -> tuple[str, str]:
    """What stays at a step, and what the excluded ones are, by the plan that was followed."""
    stage, unit = str(row["stage"]), study.plan.get("unit") or {}
    stays, excluded = STAGES.get(stage, (stage, "excluded"))
    level, every = str(unit.get("level", "eye")), unit.get("visits") == "all"
    grades = analysed_grades(study)
    if stage == "gradable" and grades != ("gradable", "usable"):
        return " or ".join(grades).capitalize(), "of another grade"
    if stage == "one_per_eye" and level in ("subject_right", "subject_left"):
        side = level.removeprefix("subject_")
        both = "another_photograph_of_the_eye" in parse_reasons(row["reasons"])
        stays = f"The {side} eye" if every else f"One photograph of the {side} eye"
        return stays, "not of that eye" + (", or further photographs of it" if both else "")
    if stage == "one_per_eye" and every:
        return "All photographs of an eye", excluded
    if stage == "one_per_subject":
        return "Eyes averaged to one row a subject", excluded
    if stage == "labelled" and level == "subject_worse":
        return "Outcome known, the worse eye", "outcome not known, or the subject's other eye"
    return stays, excluded


def analysed_grades(study: Study) -> tuple[str, ...]:
    """Quality grades that the plan analyses, the best first."""
    grades = study.plan.get("grades") or ("gradable", "usable")
    return tuple(g for g in ("gradable", "usable", "reject") if g in grades)


def reasons_text(row: pd.Series, most: int = 8) -> str:
    """Why photographs were left out at a step: ``not a fundus: 39; truncated: 2``, the most frequent first; empty where unknown."""
    reasons = {k.replace("=", " = ").replace("_", " "): v for k, v in parse_reasons(row["reasons"]).items()}
    if set(reasons) == {"reject"}:
        # The step's name says that already; why they were rejected is told per photograph, several reasons each.
        return "reasons under Image quality"
    listed = [f"{k}: {v}" for k, v in sorted(reasons.items(), key=lambda kv: -kv[1])[:most]]
    listed += [f"{len(reasons) - most} further reasons"] if len(reasons) > most else []
    # counts that are not shown have texts in their place (`without_small`)
    texts = [part.strip() for part in row["reasons"].split(";")] if isinstance(row["reasons"], str) else []
    return "; ".join([*listed, *(t.replace("_", " ") for t in texts if re.search(r": (<\d+|not shown)$", t))])


def outcome_steps(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Steps of one outcome, in order."""
    return table[table["outcome"] == outcome].sort_values("step", kind="stable")


def faults(table: pd.DataFrame) -> list[str]:
    """Where the counts do not add up: each step is the step before less what was excluded, and reasons add up to that."""
    found = []
    shared = shared_steps(table)
    chains = [("all outcomes", shared)]
    for outcome in table.loc[~table.index.isin(shared.index), "outcome"].dropna().unique():
        own = outcome_steps(table, outcome)
        labelled = own[own["stage"] != "covariates_complete"]
        chains.append((outcome, pd.concat([shared.tail(1), labelled])))
        for _, row in own[own["stage"] == "covariates_complete"].iterrows():
            chains.append((f"{outcome}, {row['covariate_set']}", pd.concat([labelled.tail(1), row.to_frame().T])))
    for name, chain in chains:
        before = None
        for _, row in chain.iterrows():
            if before is not None and before - row["n_excluded"] != row["n_images"]:
                found.append(f"The flow does not add up ({name}, {row['stage']}): {before} - {row['n_excluded']} is not {row['n_images']}.")
            reasons = parse_reasons(row["reasons"])
            if before is not None and reasons and sum(reasons.values()) != row["n_excluded"]:
                found.append(
                    f"The reasons do not add up to the excluded ({name}, {row['stage']}): {sum(reasons.values())}, not {row['n_excluded']}."
                )
            before = row["n_images"]
    return found


def without_small(table: pd.DataFrame, minimum: int, first: str | None = None) -> pd.DataFrame:
    """The flow with small numbers of missing covariates as texts: ``<5``, and what would tell them by subtraction ``not shown``.

    The steps that are shared, and the eyes with each outcome, stay exact: they count photographs, and must add up. Of two covariate sets
    whose samples differ by a few eyes, that of ``first``, or the earlier one, is shown.
    """
    out = table.copy()
    for column in ("n_images", "n_subjects", "n_excluded"):
        out[column] = out[column].astype(object)
    for i, row in table[table["stage"] == "covariates_complete"].iterrows():
        reasons = parse_reasons(row["reasons"])
        hidden = hide_cells(list(reasons.values()), minimum) if reasons else []
        out.loc[i, "reasons"] = "; ".join(
            f"{name}: {show_count(n, minimum) if small(n, minimum) or not h else 'not shown'}"
            for (name, n), h in zip(reasons.items(), hidden, strict=True)
        )
        before = outcome_steps(table, row["outcome"])
        before = before[before["stage"] == "labelled"]
        lost = before["n_subjects"].iloc[0] - row["n_subjects"] if len(before) else 0
        if small(row["n_excluded"], minimum):
            out.loc[i, ["n_images", "n_subjects", "n_excluded"]] = ["not shown", "not shown", f"<{minimum}"]
        elif small(lost, minimum):
            out.loc[i, "n_subjects"] = "not shown"
    for _, sets in table[table["stage"] == "covariates_complete"].groupby("outcome", sort=False):
        for columns in (["n_images", "n_subjects", "n_excluded"], ["n_subjects"]):
            kept: list[float] = []
            for i, n in sets.sort_values("covariate_set", key=lambda s: s != first, kind="stable")[columns[0]].items():
                if any(small(abs(n - other), minimum) for other in kept):
                    out.loc[i, columns] = "not shown"
                elif not isinstance(out.loc[i, columns[0]], str):
                    kept.append(n)
    return out


def parse_reasons(text: object) -> dict[str, int]:
    """``"blur: 3; too_small: 1"`` as a dictionary."""
    if not isinstance(text, str) or not text.strip():
        return {}
    reasons: dict[str, int] = {}
    for part in text.split(";"):
        name, _, count = part.rpartition(":")
        if name.strip() and count.strip().isdigit():
            reasons[name.strip()] = reasons.get(name.strip(), 0) + int(count)
    return reasons


def _counted(study: Study) -> pd.DataFrame | None:
    cohort, quality, biomarkers = study.main("cohort"), study.main("quality"), study.main("biomarkers")
    if cohort is None:
        return None
    rows: list[dict] = []

    def step(stage: str, left: pd.DataFrame, reasons: pd.Series) -> None:
        counts = reasons.astype("string").fillna("unknown").value_counts()
        rows.append(
            {
                "outcome": "all",
                "covariate_set": pd.NA,
                "step": len(rows),
                "stage": stage,
                "n_images": len(left),
                "n_subjects": left["subject"].nunique(),
                "n_excluded": len(reasons),
                "reasons": "; ".join(f"{k}: {v}" for k, v in counts.items()),
            }
        )

    left = cohort
    step("found", left, cohort["reason"].iloc[:0])
    failed = left["status"] != "ok"
    left = left[~failed]
    if quality is None:
        step("readable", left, cohort.loc[failed, "reason"])
    else:
        grades = quality.set_index("image_id")
        mine = grades.reindex(left["image_id"])
        unread = (
            (mine["status"] == "failed").to_numpy(dtype=bool, na_value=False)
            if "status" in mine
            else pd.Series(False, index=left.index).to_numpy()
        )
        duplicate = mine["duplicate_of"].notna().to_numpy() if "duplicate_of" in mine else ~unread & False
        if "reason" in mine:
            unread = unread & (mine["reason"] != "duplicate").to_numpy(dtype=bool, na_value=True)
            duplicate = duplicate & (mine["reason"] == "duplicate").to_numpy(dtype=bool, na_value=False) if "status" in mine else duplicate
        other = mine["grade"].notna() & ~mine["grade"].isin(analysed_grades(study))
        reject = other.to_numpy(dtype=bool, na_value=False) & ~unread & ~duplicate
        why = mine["reason"] if "reason" in mine else pd.Series(pd.NA, index=mine.index)
        step("readable", left[~unread], pd.concat([cohort.loc[failed, "reason"], why[unread]]))
        step("unique", left[~unread & ~duplicate], pd.Series(["duplicate"] * int((duplicate & ~unread).sum())))
        first = mine["reasons"].astype("string").str.split(";").str[0] if "reasons" in mine else why
        gone = unread | duplicate | reject
        step("gradable", left[~gone], first[reject])
        left = left[~gone]
    if biomarkers is not None:
        rows_of = biomarkers.drop_duplicates("image_id").set_index("image_id").reindex(left["image_id"])
        absent = (rows_of["status"] != "ok").fillna(True).to_numpy(dtype=bool)
        step("measured", left[~absent], rows_of.loc[absent, "reason"])
    return pd.DataFrame(rows, columns=COLUMNS)
