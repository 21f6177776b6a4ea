"""What was measured: distributions by group, missingness, agreement of the eyes, correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy.cluster.hierarchy import linkage, optimal_leaf_ordering, to_tree
from scipy.spatial.distance import squareform

from retsam.report.disclosure import hide_cells, small
from retsam.report.html import count, join, number, pack, percent, significant, tag
from retsam.report.page import Page, Section, not_shown
from retsam.report.sections.common import family_order, meta, packed, reader
from retsam.report.study import Study


def biomarkers(study: Study, page: Page, minimum: int, most: int) -> Section:
    """Distributions, missingness, agreement and correlation."""
    parts = [
        _distribution(study, page, minimum),
        _description(study, page, minimum),
        _missing(study, page, minimum),
        _agreement(study, page, minimum),
        _correlation(study, page, most, minimum),
    ]
    return Section("biomarkers", "Biomarkers", join(parts))


def _distribution(study: Study, page: Page, minimum: int) -> Markup:
    table = study.table("distribution", "outcome", "group", "biomarker", "n", "p50")
    if table is None:
        return not_shown("Distributions by outcome group", study.why_absent("distribution"))
    table = table.copy()
    few = (table["n"] > 0) & (table["n"] < minimum)
    numbers = ["mean", "sd", "p05", "p25", "p50", "p75", "p95"]
    table.loc[few, numbers] = np.nan
    table["n"] = table["n"].astype(float).mask(hidden_sizes(table, minimum))
    names = list(dict.fromkeys(table.loc[table["p50"].notna(), "biomarker"]))
    # The biomarker with the strongest association comes first in the list, so that the first picture says something.
    order = ranking(study)
    names.sort(key=lambda b: order.get(b, len(order)))
    block = {
        "summary": pack(table[["outcome", "group", "biomarker", "n", *numbers]]),
        "density": density_blocks(study, minimum),
        "meta": {
            "biomarkers": [{"name": b, "family": study.family_of(b), "unit": study.unit_of(b)} for b in names],
            "families": sorted({study.family_of(b) for b in names}),
        },
    }
    page.files["distribution"] = table.drop(columns=["plan"], errors="ignore")
    return page.figure(
        "distribution",
        "distribution",
        "Distribution of a biomarker by outcome group.",
        f"Histogram outline of each group, scaled to the tallest bin; bins with fewer than {minimum} {study.rows} are left out. Below it, "
        "median (dot), quartiles (thick) and 5th to 95th percentile (thin). "
        "Groups differ in age and sex: a difference here is not adjusted for anything.",
        block,
        static="distributions",
    )


def hidden_sizes(table: pd.DataFrame, minimum: int) -> pd.Series:
    """Rows of the distribution table whose group size must not be shown.

    The groups add up to the known size of the outcome's sample, so that one small group takes the sizes of the others with it. So does a
    group that lacks a few eyes of the largest of its kind: that many have no value.
    """
    n = table["n"].astype(float)
    lacking = n.groupby([table["outcome"], table["group"]]).transform("max") - n
    few = ((n > 0) & (n < minimum)) | ((lacking > 0) & (lacking < minimum))
    return few.groupby([table["outcome"], table["biomarker"]]).transform("any")


def ranking(study: Study) -> dict[str, int]:
    """Biomarker -> rank of its smallest p in the primary models."""
    table = study.primary
    if table is None:
        return {}
    mine = table[(table["covariate_set"] == study.primary_set) & table["neg_log10_p"].notna()]
    best = mine.groupby("biomarker")["neg_log10_p"].max().sort_values(ascending=False)
    return {b: i for i, b in enumerate(best.index)}


def density_blocks(study: Study, minimum: int) -> dict[str, Any]:
    """Histograms by outcome and biomarker; small bins are missing."""
    table = study.table("density", "outcome", "group", "biomarker", "bin_low", "bin_high", "count", "density")
    blocks: dict[str, Any] = {}
    if table is None:
        return blocks
    table = table.sort_values("bin_low", kind="stable")
    counts = table["count"].to_numpy(dtype=float)
    low, high = table["bin_low"].to_numpy(dtype=float), table["bin_high"].to_numpy(dtype=float)
    histograms: dict[str, dict[str, np.ndarray]] = {}
    for (outcome, biomarker, group), rows in table.groupby(["outcome", "biomarker", "group"], sort=False).indices.items():
        key = f"{outcome}\0{biomarker}"
        histograms.setdefault(key, {})[str(group)] = counts[rows]
        blocks[key] = {"low": float(low[rows[0]]), "high": float(high[rows[-1]])}
    for key, groups in histograms.items():
        if study.unit_of(key.split("\0")[1]) == "count":
            blocks[key], groups = _whole(blocks[key], groups)
        width = (blocks[key]["high"] - blocks[key]["low"]) or 1.0
        blocks[key]["groups"] = {g: _heights(c, width, minimum) for g, c in _joined(groups, minimum).items()}
    return blocks


def _whole(block: dict[str, Any], groups: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A bin about each whole number, where the bins of a count are narrower than one (else there are gaps that mean nothing)."""
    low, high, n = block["low"], block["high"], len(next(iter(groups.values())))
    width = (high - low) / n
    if width >= 1 or width <= 0 or low != round(low) or high != round(high):
        return block, groups
    at = np.minimum(((np.arange(low, high + 1) - low) / width + 1e-9).astype(int), n - 1)
    return {"low": low - 0.5, "high": high + 0.5}, {g: c[at] for g, c in groups.items()}


def _joined(groups: dict[str, np.ndarray], minimum: int) -> dict[str, np.ndarray]:
    """Counts in the finest bins of which small cells hide at most a sixth of any group, or in the coarsest there are."""
    n = len(next(iter(groups.values())))
    coarser = {}
    for factor in (k for k in range(1, max(2, n // 3)) if n % k == 0):
        coarser = {g: c.reshape(-1, factor).sum(axis=1) for g, c in groups.items()}
        if all(c[(c > 0) & (c < minimum)].sum() <= c.sum() / 6 for c in coarser.values()):
            break
    return coarser


def _heights(counts: np.ndarray, width: float, minimum: int) -> list[float | int | None]:
    """Densities of a histogram over ``width``; small bins are missing, and a second one where one alone would be 1 less the others."""
    heights = counts / max(1.0, counts.sum()) / (width / len(counts))
    return [None if hide else significant(float(h), 3) for hide, h in zip(hide_cells(counts, minimum), heights, strict=True)]


def _description(study: Study, page: Page, minimum: int) -> Markup:
    table = study.table("description", "biomarker", "n")
    if table is None:
        return not_shown("Description of the biomarkers", study.why_absent("description"))
    few = table["n"].map(lambda n: small(n, minimum)).astype(bool)
    kept_back = f" {int(few.sum())} with a value in fewer than {minimum} are left out." if few.any() else ""
    table = table[~few].copy()
    if "n_missing" in table:
        # measured and missing add up to a known number of eyes
        few = table["n_missing"].map(lambda n: small(n, minimum)).astype(bool)
        counts = [c for c in ("n", "n_missing", "n_distinct") if c in table]
        table[counts] = table[counts].astype(float).mask(few)
        table["suppressed"] = few
    rows, titles = [], {}
    for r in table.itertuples():
        entry = study.dictionary.get(r.biomarker)
        definition = f"{entry.definition} {entry.source}".strip() if entry else ""
        name = tag("span", r.biomarker, title=definition or None)
        rows.append(
            (
                name,
                study.family_of(r.biomarker),
                study.unit_of(r.biomarker),
                count(r.n),
                f"<{minimum}" if getattr(r, "suppressed", False) else count(getattr(r, "n_missing", np.nan)),
                number(getattr(r, "mean", np.nan)),
                number(getattr(r, "sd", np.nan)),
                number(getattr(r, "p05", np.nan)),
                number(getattr(r, "p50", np.nan)),
                number(getattr(r, "p95", np.nan)),
            )
        )
    # Smallest and largest values belong to single eyes, so they are not printed.
    shown = table.drop(columns=["plan", "min", "max"], errors="ignore")
    inner = page.table(
        "description",
        "Biomarkers of the analysis.",
        f"{study.rows.capitalize()} that were measured, missing, and the distribution over all of them.{kept_back} Hover a name for its "
        "definition.",
        ("Biomarker", "Family", "Unit", "n", "Missing", "Mean", "SD", "5 %", "Median", "95 %"),
        rows,
        numeric=range(3, 10),
        frame=shown,
        titles=titles,
    )
    return tag("details", tag("summary", f"Table of {count(len(table))} biomarkers") + inner)


def _missing(study: Study, page: Page, minimum: int) -> Markup:
    table = missingness(study)
    if table is None:
        return not_shown("Missingness", study.why_absent("missingness"))
    total = table.groupby("biomarker")["n"].sum().sort_values(ascending=False)
    reasons = table.groupby("reason")["n"].sum().sort_values(ascending=False)
    kept = reasons.index[:7].tolist()
    table = table.assign(series=np.where(table["reason"].isin(kept), table["reason"].map(reader), "other reasons"))
    table["hidden"] = hidden_reasons(table, minimum)
    grouped = table.groupby(["biomarker", "series"], as_index=False).agg(n=("n", "sum"), share=("share", "sum"), hidden=("hidden", "any"))
    hidden = grouped["hidden"]
    grouped["text"] = [
        count(n) if not h else f"<{minimum}" if small(n, minimum) else "not shown" for h, n in zip(hidden, grouped["n"], strict=True)
    ]
    grouped.loc[hidden, "share"] = np.nan
    grouped["order"] = grouped["biomarker"].map({b: i for i, b in enumerate(total.index)})
    grouped = grouped.sort_values("order")
    series = [reader(r) for r in kept] + (["other reasons"] if (grouped["series"] == "other reasons").any() else [])
    absent = never_measured(table)
    facets = np.where(grouped["biomarker"].isin(absent), "never measured", "measured in some eyes")
    rows = pd.DataFrame(
        {"facet": facets, "label": grouped["biomarker"], "series": grouped["series"], "value": grouped["share"], "text": grouped["text"]}
    )
    block = {
        "rows": pack(rows),
        "series": series,
        "facets": [f for f in ("measured in some eyes", "never measured") if (facets == f).any()],
        "facetLabel": "Biomarkers",
        "percent": True,
        "full": True,
        "limits": [["20", "20 with most missing"], ["60", "60"], ["10000", "all"]],
        "label": "Missing values by biomarker and reason",
        "xLabel": f"share of the analysed {study.rows}",
    }
    shown = table[["biomarker", "reason", "n", "share"]].copy()
    shown[["n", "share"]] = shown[["n", "share"]].astype(float).mask(table["hidden"])
    page.files["missingness"] = shown.assign(suppressed=table["hidden"])
    return page.figure(
        "missingness",
        "bars",
        "Missing biomarkers, by reason.",
        "A value that could not be measured is missing with a reason, never zero. What is missing is not missing at random: an eye "
        f"without a visible disc has no cup-to-disc ratio. {len(absent)} of {len(study.biomarker_names) or len(total)} biomarkers were "
        "measured in no eye (a head that these weights lack, or photographs with too few pixels, are the usual reasons).",
        block,
        static="missingness",
    )


def hidden_reasons(table: pd.DataFrame, minimum: int) -> pd.Series:
    """Rows of a table of :func:`missingness` that are small, or would tell a small one of the same biomarker."""
    hidden = pd.Series(False, index=table.index)
    small_ones = (table["n"] > 0) & (table["n"] < minimum)
    for _, part in table[table["biomarker"].isin(table.loc[small_ones, "biomarker"])].groupby("biomarker", sort=False):
        hidden.loc[part.index] = hide_cells(part["n"].to_numpy(dtype=float), minimum)
    return hidden


def never_measured(table: pd.DataFrame) -> list[str]:
    """Biomarkers of a table of :func:`missingness` that are missing in every eye."""
    share = table.groupby("biomarker")["share"].sum()
    return share.index[share > 1 - 1e-9].tolist()


def missingness(study: Study) -> pd.DataFrame | None:
    """Biomarker, reason, n, share: the association room's table, or counted from the biomarker table."""
    table = study.table("missingness", "biomarker", "reason", "n")
    if table is not None:
        table = table[table["n"] > 0].copy()
        if "share" not in table:
            table["share"] = np.nan
        return table if len(table) else None
    measured = study.main("biomarkers")
    if measured is None or not study.biomarker_names or measured.empty:
        return None
    rows = []
    for name in study.biomarker_names:
        reasons = study.reasons(name)[measured[name].isna()].astype("string").fillna("unknown").value_counts()
        rows += [{"biomarker": name, "reason": r, "n": int(n), "share": n / len(measured)} for r, n in reasons.items()]
    return pd.DataFrame(rows) if rows else None


def _agreement(study: Study, page: Page, minimum: int) -> Markup:
    table = study.table("agreement", "biomarker", "n_pairs", "icc", "ci_low", "ci_high")
    if table is None:
        return not_shown("Agreement of right and left eye", study.why_absent("agreement"))
    table = table[(table["n_pairs"] >= minimum) & table["icc"].notna()].copy()
    if table.empty:
        return not_shown("Agreement of right and left eye", "no biomarker has enough subjects with both eyes.")
    table["family"] = [study.family_of(b) for b in table["biomarker"]]
    order = ranking(study)
    table = table.assign(rank=table["biomarker"].map(order).fillna(len(order))).sort_values("rank", kind="stable").drop(columns="rank")
    families = family_order(study, table["family"])
    block = {
        "rows": packed(
            table,
            {
                "biomarker": "biomarker",
                "family": "family",
                "n": "n_pairs",
                "est": "icc",
                "lo": "ci_low",
                "hi": "ci_high",
                "diff": "mean_difference",
                "loa_lo": "loa_low",
                "loa_hi": "loa_high",
            },
        ),
        "meta": meta(study, families=families),
    }
    page.files["agreement"] = table.drop(columns=["plan"], errors="ignore")
    return page.figure(
        "agreement",
        "agreement",
        "Agreement of right and left eye.",
        "Intraclass correlation of the two eyes of a subject. It is a lower bound of a biomarker's reliability, since eyes also truly "
        "differ; a value near zero for a trait that should be "
        "symmetric points at noise of the masks.",
        block,
        static="agreement",
    )


def correlation_matrix(study: Study, most: int, minimum: int) -> tuple[pd.DataFrame, np.ndarray | None] | None:
    """Spearman matrix in clustered order, and its tree.

    Returns
    -------
    matrix : DataFrame
        Square, rows and columns in the order of the leaves.
    tree : ndarray or None
        Rows of :func:`scipy.cluster.hierarchy.linkage` (average linkage on ``1 - |r|``); leaf numbers are those before ordering,
        which ``matrix.attrs["leaves"]`` maps.
    """
    table = study.table("correlation", "biomarker_a", "biomarker_b", "rho")
    if table is None:
        return None
    if "n" in table:
        table = table[~((table["n"] > 0) & (table["n"] < minimum))]
    names = pd.Index(pd.unique(pd.concat([table["biomarker_a"], table["biomarker_b"]])).astype(object))
    matrix = pd.DataFrame(np.nan, index=names, columns=names)
    i, j = names.get_indexer(table["biomarker_a"]), names.get_indexer(table["biomarker_b"])
    values = matrix.to_numpy(copy=True)
    values[i, j] = values[j, i] = table["rho"].to_numpy(dtype=float)
    np.fill_diagonal(values, 1.0)
    matrix = pd.DataFrame(values, index=names, columns=names)
    known = matrix.notna().sum().sort_values(ascending=False, kind="stable")
    kept = [n for n in known.index[:most] if known[n] > 1]
    matrix = matrix.loc[kept, kept]
    if len(matrix) < 2:
        return None
    if len(matrix) == 2:
        return matrix, None
    distance = 1 - matrix.abs().fillna(0).to_numpy()
    np.fill_diagonal(distance, 0)
    condensed = squareform((distance + distance.T) / 2, checks=False)
    tree = optimal_leaf_ordering(linkage(condensed, "average"), condensed)
    leaves = to_tree(tree).pre_order()
    matrix = matrix.iloc[leaves, leaves]
    matrix.attrs["leaves"] = leaves
    return matrix, tree


def tree_lines(tree: np.ndarray, leaves: list[int]) -> list[list[float]]:
    """Brackets of the dendrogram: ``[x left, x right, height left, height right, height]``, x in cells, heights 0 to 1."""
    n = len(leaves)
    where = {leaf: (float(k), 0.0) for k, leaf in enumerate(leaves)}
    top = max(float(tree[-1, 2]), 1e-9)
    lines = []
    for k, (a, b, height, _) in enumerate(tree):
        left, right = sorted((where[int(a)], where[int(b)]))
        lines.append([round(v, 3) for v in (left[0], right[0], left[1], right[1], height / top)])
        where[n + k] = ((left[0] + right[0]) / 2, height / top)
    return lines


def _correlation(study: Study, page: Page, most: int, minimum: int) -> Markup:
    found = correlation_matrix(study, most, minimum)
    if found is None:
        return not_shown("Correlation of the biomarkers", study.why_absent("correlation"))
    matrix, tree = found
    names = [str(n) for n in matrix.index]
    values = [None if np.isnan(v) else int(round(100 * v)) for v in matrix.to_numpy().ravel()]
    block = {
        "labels": names,
        "families": [study.family_of(n) for n in names],
        "values": values,
        "tree": tree_lines(tree, matrix.attrs["leaves"]) if tree is not None else None,
    }
    page.files["correlation"] = matrix.rename_axis("biomarker").reset_index()
    effective = study.table("effective_tests", "scope", "n_biomarkers", "m_eff")
    note = ""
    if effective is not None:
        row = effective[effective["scope"] == "all"]
        if len(row):
            note = (
                f" By Li and Ji's eigenvalue method the {count(row['n_biomarkers'].iloc[0])} biomarkers amount to "
                f"{number(float(row['m_eff'].iloc[0]))} independent tests."
            )
    total = study.table("correlation")
    every = len(pd.unique(pd.concat([total["biomarker_a"], total["biomarker_b"]])))
    cut = f" The {len(names)} of {every} biomarkers with most known correlations are shown." if every > len(names) else ""
    return page.figure(
        "correlation",
        "correlation",
        "Correlation of the biomarkers.",
        f"Spearman correlation over {study.rows}, ordered by average-linkage clustering on 1 \u2212 |r| (tree above). Drag to zoom, "
        f"hover for values.{note}{cut}",
        block,
        static="correlation",
    )


def failed_share(study: Study) -> str | None:
    """Share of photographs without any biomarker, for the summary."""
    measured, cohort = study.main("biomarkers"), study.main("cohort")
    if measured is None or cohort is None or cohort.empty:
        return None
    return percent(1 - measured.loc[measured["status"] == "ok", "image_id"].nunique() / len(cohort))
