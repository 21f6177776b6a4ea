"""The association room's tables of a made-up study, by docs/association-tables.md."""

from __future__ import annotations

import numpy as np
import pandas as pd

SETS = {"crude": [], "age_sex": ["age", "sex"]}
OUTCOMES = [{"name": "dr", "type": "binary"}, {"name": "glaucoma", "type": "binary"}, {"name": "sbp", "type": "continuous"}]


def all_tables(data, cohort, quality, values, main, names, rng) -> dict[str, pd.DataFrame]:
    found, read = len(cohort), int((cohort["status"] == "ok").sum())
    good = int(((quality["grade"] != "reject") & (quality["status"] == "ok")).sum())
    flow = [
        ("all", None, 0, "found", found, 0, ""),
        ("all", None, 1, "readable", read, found - read, "unreadable: 1; truncated: 1"),
        ("all", None, 2, "unique", read, 0, ""),
        ("all", None, 3, "gradable", good, read - good, f"blur: {read - good}"),
        ("all", None, 4, "segmented", good, 0, ""),
        ("all", None, 5, "measured", good, 0, ""),
    ]
    for o in OUTCOMES:
        flow += [
            (o["name"], None, 6, "labelled", good - 3, 3, "outcome_missing: 3"),
            (o["name"], "age_sex", 7, "covariates_complete", good - 5, 2, "age: 2"),
        ]
    flow = pd.DataFrame(flow, columns=["outcome", "covariate_set", "step", "stage", "n_images", "n_excluded", "reasons"])
    flow["n_subjects"] = (flow["n_images"] / 2).round().astype(int)
    tables = {"flow": flow}
    groups = {o["name"]: ({"controls": 0, "cases": 1} if o["type"] == "binary" else {"all": None}) for o in OUTCOMES}
    one, distribution, density, byq = [], [], [], []
    joined = cohort.merge(quality[["image_id", "grade"]], on="image_id")
    for o, levels in groups.items():
        for g, v in {"all": None, **levels}.items():
            part = data if v is None else data[data[o] == v]
            one.append(
                dict(
                    outcome=o,
                    variable="age",
                    level=None,
                    group=g,
                    n=len(part),
                    n_missing=1,
                    value=part["age"].mean(),
                    spread=part["age"].std(),
                    median=part["age"].median(),
                    q1=part["age"].quantile(0.25),
                    q3=part["age"].quantile(0.75),
                    smd=0.21 if g == "all" else None,
                    text="",
                )
            )
            for level in ("F", "M", "=X()"):
                k = int((part["sex"] == level).sum()) if level != "=X()" else min(2, len(part))
                one.append(
                    dict(
                        outcome=o,
                        variable="sex",
                        level="'" + level if level[0] == "=" else level,
                        group=g,
                        n=len(part),
                        n_missing=0,
                        value=k,
                        spread=k / max(1, len(part)),
                        smd=0.05 if g == "all" else None,
                        text="",
                    )
                )
        for g, v in levels.items():
            part = data if v is None else data[data[o] == v]
            whole = joined if v is None else joined[joined[o] == v]
            for grade in ("gradable", "usable", "reject"):
                byq.append(
                    dict(
                        outcome=o,
                        group=g,
                        grade=grade,
                        n=int((whole["grade"] == grade).sum()),
                        share=float((whole["grade"] == grade).mean()),
                    )
                )
            for name in names:
                x = part[name].dropna()
                distribution.append(
                    dict(
                        outcome=o,
                        group=g,
                        biomarker=name,
                        n=len(x),
                        mean=x.mean(),
                        sd=x.std(),
                        p05=x.quantile(0.05),
                        p25=x.quantile(0.25),
                        p50=x.median(),
                        p75=x.quantile(0.75),
                        p95=x.quantile(0.95),
                    )
                )
                edges = np.linspace(data[name].min(), data[name].max(), 21)
                counts, _ = np.histogram(x, edges)
                density += [
                    dict(outcome=o, group=g, biomarker=name, bin_low=a, bin_high=b, count=int(c), density=c / max(1, len(x)) / (b - a))
                    for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)
                ]
    tables |= {
        "table1": pd.DataFrame(one),
        "distribution": pd.DataFrame(distribution),
        "density": pd.DataFrame(density),
        "quality_by_outcome": pd.DataFrame(byq),
    }
    x = data[names]
    tables["description"] = pd.DataFrame(
        [
            dict(
                biomarker=n,
                n=int(x[n].notna().sum()),
                n_missing=int(x[n].isna().sum()),
                mean=x[n].mean(),
                sd=x[n].std(),
                min=x[n].min(),
                p05=x[n].quantile(0.05),
                p50=x[n].median(),
                p95=x[n].quantile(0.95),
                max=x[n].max(),
            )
            for n in names
        ]
    )
    reasons = [
        dict(biomarker=n, reason=r, n=int(k), share=k / len(data))
        for n in names
        for r, k in data.loc[data[n].isna(), f"{n}__reason"].value_counts().items()
    ]
    tables["missingness"] = pd.DataFrame(reasons)
    tables["agreement"] = pd.DataFrame(
        [
            dict(
                biomarker=n,
                n_pairs=50,
                icc=v,
                ci_low=v - 0.1,
                ci_high=min(1, v + 0.1),
                mean_difference=0.01,
                loa_low=-1.0,
                loa_high=1.0,
                note=None,
            )
            for n, v in zip(names, rng.uniform(0.2, 0.9, len(names)), strict=True)
        ]
    )
    rho = x.corr("spearman").to_numpy()
    tables["correlation"] = pd.DataFrame(
        [dict(biomarker_a=names[i], biomarker_b=names[j], rho=rho[i, j], n=len(x)) for i in range(len(names)) for j in range(i)]
    )
    tables["effective_tests"] = pd.DataFrame([dict(scope="all", n_biomarkers=len(names), m_eff=len(names) * 0.6, alpha=0.05)])
    tables |= _shape(data, names)
    key = main[(main["subgroup"] == "all") & (main["covariate_set"] == "age_sex") & main["biomarker"].isin(names[:5])]
    tables["interactions"] = pd.DataFrame(
        [
            dict(
                outcome=r.outcome,
                biomarker=r.biomarker,
                covariate_set="age_sex",
                subgroup_variable="sex",
                levels="F;M",
                df=1,
                chi2=1.2,
                p=0.27,
                q=0.6,
                n=r.n,
                note=None,
            )
            for r in key.itertuples()
        ]
    )
    analyses = ("primary", "gradable_only", "independence", "one_eye", "winsorised", "without:site=A")
    tables["sensitivity"] = pd.concat(
        [
            key.assign(analysis=a, estimate=key["estimate"] * f, ci_low=key["ci_low"] * f, ci_high=key["ci_high"] * f)
            for a, f in zip(analyses, (1, 0.95, 1.02, 0.9, 0.99, 1.05), strict=True)
        ]
    )
    tables["replication"] = pd.DataFrame(
        [
            dict(
                outcome=r.outcome,
                biomarker=r.biomarker,
                covariate_set="age_sex",
                split="subject",
                n_discovery=50,
                estimate_discovery=r.estimate * 1.1,
                q_discovery=0.03,
                n_replication=50,
                estimate_replication=r.estimate * 0.8,
                p_replication=0.04,
                same_direction=True,
                replicated=i % 2 == 0,
                i2=0.1,
            )
            for i, r in enumerate(key.itertuples())
        ]
    )
    tables["measurement_error"] = pd.DataFrame(
        [
            dict(
                outcome=r.outcome,
                biomarker=r.biomarker,
                covariate_set="age_sex",
                reliability=0.7,
                reliability_low=0.6,
                reliability_high=0.8,
                reliability_source="both_eyes",
                estimate=r.estimate,
                ci_low=r.ci_low,
                ci_high=r.ci_high,
                estimate_rc=r.estimate / 0.7,
                ci_low_rc=r.ci_low / 0.7,
                ci_high_rc=r.ci_high / 0.7,
                estimate_simex=r.estimate / 0.75,
                ci_low_simex=r.ci_low / 0.75,
                ci_high_simex=r.ci_high / 0.75,
                note=None,
            )
            for r in key.itertuples()
        ]
    )
    binary = [o["name"] for o in OUTCOMES if o["type"] == "binary"]
    tables["discrimination"] = pd.DataFrame(
        [
            dict(
                outcome=o,
                covariate_set="age_sex",
                predictors=p,
                biomarker=b,
                n=100,
                n_cases=30,
                folds=5,
                auc=a,
                ci_low=a - 0.06,
                ci_high=a + 0.06,
                delta_auc=d,
                delta_low=None if d is None else d - 0.02,
                delta_high=None if d is None else d + 0.02,
                delta_p=None if d is None else 0.01,
                brier=0.2,
            )
            for o in binary
            for p, b, a, d in (
                ("covariates", None, 0.6, None),
                ("covariates+biomarker", names[2], 0.68, 0.08),
                ("covariates+set", None, 0.72, 0.12),
            )
        ]
    )
    t = np.linspace(0, 1, 30)
    tables["roc"] = pd.DataFrame(
        [
            dict(outcome=o, covariate_set="age_sex", predictors=p, fpr=a, tpr=a**k)
            for o in binary
            for p, k in (("covariates", 0.7), ("covariates+set", 0.4))
            for a in t
        ]
    )
    tables["calibration"] = pd.DataFrame(
        [
            dict(
                outcome=o,
                covariate_set="age_sex",
                predictors="covariates+set",
                bin=b,
                n=20,
                predicted=0.1 * b,
                observed=0.1 * b + 0.02,
                ci_low=0.1 * b - 0.05,
                ci_high=0.1 * b + 0.1,
            )
            for o in binary
            for b in range(1, 6)
        ]
    )
    tables["camera"] = pd.DataFrame(
        [
            dict(
                outcome=o,
                predictors=p,
                columns="width;height",
                n=100,
                n_cases=30,
                auc=a,
                ci_low=a - 0.05,
                ci_high=a + 0.05,
                warning=a > 0.7,
                note=None,
            )
            for o in binary
            for p, a in (("image_size", 0.52), ("quality", 0.55), ("camera", 0.74 if o == "dr" else 0.56))
        ]
    )
    tables["circularity"] = pd.DataFrame(
        [
            dict(
                biomarker=n,
                heads="disc",
                n_training_subjects=10,
                n_analysed_subjects=60,
                n_overlap=6 if i == 0 else 0,
                share=0.1 if i == 0 else 0.0,
                circular=i == 0,
                note=None,
            )
            for i, n in enumerate(names)
        ]
    )
    return tables


def _shape(data: pd.DataFrame, names: list[str]) -> dict[str, pd.DataFrame]:
    quintiles, spline, tests = [], [], []
    for o in OUTCOMES:
        for name in names[:4]:
            x = data[name].dropna()
            edges = x.quantile(np.linspace(0, 1, 6)).to_numpy()
            who = dict(outcome=o["name"], biomarker=name, covariate_set="age_sex")
            for k in range(5):
                mid = (edges[k] + edges[k + 1]) / 2
                e = 0.3 * k
                quintiles.append(
                    {
                        **who,
                        "quintile": k + 1,
                        "low": edges[k],
                        "high": edges[k + 1],
                        "median": mid,
                        "n": len(x) // 5,
                        "n_cases": 4 if k == 0 else 6,
                        "estimate": e,
                        "se": 0.2,
                        "ci_low": e - 0.4,
                        "ci_high": e + 0.4,
                        "p": 0.1,
                        "note": None,
                    }
                )
            for v in np.linspace(edges[0], edges[-1], 40):
                e = 0.4 * (v - x.median())
                spline.append({**who, "x": v, "estimate": e, "ci_low": e - 0.3, "ci_high": e + 0.3})
            tests.append(
                {
                    **who,
                    "n": len(x),
                    "n_cases": 40,
                    "p_overall": 0.001,
                    "p_nonlinear": 0.3,
                    "p_trend": 0.002,
                    "q_nonlinear": 0.5,
                    "note": None,
                }
            )
    return {"shape_quintiles": pd.DataFrame(quintiles), "shape_spline": pd.DataFrame(spline), "shape_tests": pd.DataFrame(tests)}
