"""Design matrices: covariates, which biomarkers are tested, and what a fit needs to be estimable."""

from __future__ import annotations

import ast
import builtins
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic.transforms import TRANSFORMS

from retsam.association.config import AssociationConfig, Exposures

#: Part of a column's variance that must be its own, not the other columns', for its coefficient to be estimable.
ALIASED = 1e-9


@dataclass(frozen=True)
class Covariates:
    """Covariates of one set, coded, for rows where all are known.

    Attributes
    ----------
    matrix : ndarray [n, q]
        Intercept first; every other column centred and of unit SD. NaN in rows that are not ``complete``.
    names : tuple of str
        Names of the columns (``sex[T.Male]``...).
    complete : ndarray of bool [n]
    missing : ndarray of str [n]
        Covariates that a row lacks, ``;``-joined.
    """

    matrix: np.ndarray
    names: tuple[str, ...]
    complete: np.ndarray
    missing: np.ndarray


def formula_terms(terms: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Terms of a covariate set as formula text: names of columns are quoted, everything else is a formula already."""
    return [f"`{t}`" if t in columns else t for t in terms]


def required_columns(terms: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Columns that the terms of a covariate set read, in order.

    Raises
    ------
    ValueError
        If a term is not a formula.
    """
    found: list[str] = []
    for term in terms:
        found.extend(n for n in ([term] if term in columns else _term_columns(term, columns)) if n not in found)
    return found


def level_columns(term: str, columns: Sequence[str], words: Sequence[str]) -> list[list[str]]:
    """Columns each of whose levels, or combinations of levels, become a covariate: those of each part of a covariate term.

    Parameters
    ----------
    term : str
    columns : sequence of str
    words : sequence of str
        Those that hold words. Numbers have levels in ``C(...)`` only.
    """
    if term in columns:
        return [[term]] if term in words else []

    def coded(factor: str) -> str | None:
        bare = factor.strip("`")
        inner = re.match(r"C\(\s*`?([^`,()]+?)`?\s*[,)]", factor)
        return inner.group(1) if inner and inner.group(1) in columns else bare if bare in words else None

    parts = [[name for factor in part.factors if (name := coded(factor.expr))] for part in Formula(f"1 + {term}")]
    return [part for part in parts if part]


def _term_columns(term: str, columns: Sequence[str]) -> list[str]:
    try:
        factors = [factor.expr for part in Formula(f"1 + {term}") for factor in part.factors]
    except Exception as error:  # formulaic raises many kinds for text that is no formula
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"covariate {term!r} is neither a column nor a formula term ({why[0]})") from error
    if "1" not in factors:
        raise ValueError(f"covariate {term!r} takes the intercept away, which every model has; leave `0 +` and `- 1` out")
    alone = {factor.strip("`") for factor in factors} - {"1"}
    if len(alone) == 1 and alone <= set(columns) and term.strip("`() ") not in alone:
        raise ValueError(
            f"covariate {term!r} is {alone.pop()!r} alone as a formula, where `*`, `/`, `-` and `**` choose terms; "
            f"write I({term}) to calculate"
        )
    names = [name for factor in factors for name in _factor_columns(factor, columns, term)]
    if not names:
        raise ValueError(f"covariate {term!r} reads no column")
    return names


def _factor_columns(factor: str, columns: Sequence[str], term: str) -> list[str]:
    """Names in a factor (``bs(age, df=4)``), without those of functions. Formulaic's own list lacks what stateful transforms read."""
    if factor in columns:
        return [factor]
    quoted: dict[str, str] = {}

    def mark(match: re.Match) -> str:
        return quoted.setdefault(match.group(1), f"_quoted_{len(quoted)}_")

    try:
        tree = ast.parse(re.sub(r"`([^`]*)`", mark, factor), mode="eval")
    except SyntaxError:  # a name in backquotes, which formulaic has taken off
        return [factor]
    named = {place: name for name, place in quoted.items()}
    nodes = list(ast.walk(tree))
    inner = [node.func for node in nodes if isinstance(node, ast.Call)] + [node.value for node in nodes if isinstance(node, ast.Attribute)]
    functions = {node.id for node in inner if isinstance(node, ast.Name)} - set(columns)
    for function in sorted(functions.difference(TRANSFORMS, dir(builtins))):
        known = sorted(TRANSFORMS)
        raise ValueError(
            f"covariate {term!r}: no function {function!r}; {_nearest(function, known) or 'expected one of ' + ', '.join(known)}"
        )
    names = [named.get(node.id, node.id) for node in nodes if isinstance(node, ast.Name) and node.id not in functions]
    return [name for name in names if name in columns or name not in TRANSFORMS]


def plain(column: pd.Series) -> pd.Series:
    """A column with NumPy floats for numbers (NaN where missing) and objects for words (None where missing)."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_numeric_dtype(column.dtype):
        return column.astype("Float64").astype(float) if pd.api.types.is_extension_array_dtype(column.dtype) else column.astype(float)
    text = column.astype(object)
    text = text.where(text.notna(), None)
    numbers = pd.to_numeric(text, errors="coerce")
    if numbers.notna().sum() == text.notna().sum() and text.notna().any() and not text.map(lambda v: isinstance(v, str)).any():
        return numbers.astype(float)
    # A list, because `map` would make a column of its own kind of text, with NaN where None is asked for.
    return pd.Series([None if v is None else str(v) for v in text], index=column.index, dtype=object)


def covariate_matrix(frame: pd.DataFrame, terms: Sequence[str]) -> Covariates:
    """Code the covariates of one set.

    Parameters
    ----------
    frame : DataFrame [n rows]
        Columns that the terms read. Words become indicator columns against the first level in order.
    terms : sequence of str
        Names of columns, or formula terms (``bs(age, df=4)``, ``C(site)``, ``age:sex``).

    Returns
    -------
    Covariates
    """
    needed = required_columns(terms, list(frame.columns))
    data = pd.DataFrame({c: plain(frame[c]) for c in needed}, index=range(len(frame))) if needed else pd.DataFrame(index=range(len(frame)))
    for column in needed:
        data[column] = plain(frame[column]).to_numpy()
    absent = np.array([data[c].isna().to_numpy() for c in needed]).T if needed else np.zeros((len(frame), 0), dtype=bool)
    complete = ~absent.any(axis=1)
    missing = np.array([";".join(c for c, gone in zip(needed, row, strict=True) if gone) for row in absent], dtype=object)
    names: list[str] = ["Intercept"]
    matrix = np.full((len(frame), 1), np.nan)
    matrix[complete, 0] = 1.0
    if terms and complete.any():
        rows = data.loc[complete].reset_index(drop=True)
        formula = "1 + " + " + ".join(formula_terms(terms, list(frame.columns)))
        with np.errstate(divide="ignore", invalid="ignore"):  # told below
            coded = Formula(formula).get_model_matrix(rows, na_action="raise")
        block = np.asarray(coded, dtype=float)[:, 1:]
        labels = [str(c).replace("`", "") for c in coded.columns[1:]]
        odd = ~np.isfinite(block)
        if odd.any():
            at = int(np.argmax(odd.any(axis=0)))
            raise ValueError(f"{labels[at]} is infinite or no number in {int(odd[:, at].sum())} rows; for logs of zero write log(1 + x)")
        # A word that all rows share has no indicator; as a column of zeros it is dropped where others are, with a note.
        words = [term for term in terms if term in needed and not pd.api.types.is_numeric_dtype(rows[term].dtype)]
        constant = [term for term in words if rows[term].nunique() == 1]
        block = np.column_stack([block, np.zeros((len(rows), len(constant)))])
        labels += constant
        block = block - block.mean(axis=0)
        size = np.sqrt((block * block).mean(axis=0))
        size[size < 1e-12 * np.maximum(1.0, np.abs(block).max(axis=0, initial=0.0))] = 0.0
        block = block / np.where(size > 0, size, 1.0)
        full = np.full((len(frame), block.shape[1]), np.nan)
        full[complete] = block
        matrix = np.column_stack([matrix, full])
        names.extend(labels)
    return Covariates(matrix, tuple(names), complete, missing)


def independent_columns(matrix: np.ndarray) -> np.ndarray:
    """Columns that those before them do not determine (the intercept is kept first).

    Parameters
    ----------
    matrix : ndarray [n, q]

    Returns
    -------
    ndarray of int
        Positions of the columns to keep.
    """
    size = np.sqrt(np.einsum("ij,ij->j", matrix, matrix))
    size[size == 0] = 1.0
    # Gram-Schmidt on the triangle, which is small: `left` is what the columns that are kept leave of those after them.
    left = np.linalg.qr(matrix / size, mode="r")
    keep: list[int] = []
    for j in range(left.shape[1]):
        own = left[:, j] @ left[:, j]
        if own <= ALIASED:
            continue
        keep.append(j)
        unit = left[:, j] / np.sqrt(own)
        left[:, j + 1 :] -= np.outer(unit, unit @ left[:, j + 1 :])
    return np.array(keep, dtype=int)


def explained(gram: np.ndarray, cross: np.ndarray, total: float, n: int, mean: float) -> float:
    """R squared of a column on covariates that include the intercept, from the Gram matrix."""
    centred = total - n * mean * mean
    if centred <= 0:
        return 1.0
    d = 1.0 / np.sqrt(np.diag(gram))
    fitted = (cross * d) @ np.linalg.solve(gram * np.outer(d, d), cross * d) - n * mean * mean
    return float(min(1.0, max(0.0, fitted / centred)))


def select_biomarkers(available: Sequence[str], families: dict[str, str], exposures: Exposures) -> tuple[list[str], list[str]]:
    """Biomarkers that the plan tests, in the order of the table, and what is wrong with the plan.

    Parameters
    ----------
    available : sequence of str
        Biomarkers of the table.
    families : dict of str to str
        Family of each.
    exposures : Exposures

    Returns
    -------
    chosen : list of str
    faults : list of str
    """
    faults = []
    known = sorted(set(families.values()))
    for family in exposures.families or ():
        if family not in known:
            faults.append(
                f"exposures.families: no biomarker of family {family!r} in the table; "
                + (_nearest(family, known) or f"it has {', '.join(known) or 'none'}")
            )
    for column in exposures.columns or ():
        if column not in available:
            faults.append(f"exposures.columns: no biomarker {column!r} in the table" + _nearest(column, available, "; "))
    everything = exposures.families is None and exposures.columns is None
    chosen = [
        b
        for b in available
        if (everything or (exposures.families is not None and families.get(b) in exposures.families) or b in (exposures.columns or ()))
        and not any(fnmatchcase(b, pattern) for pattern in exposures.exclude)
    ]
    if available and not chosen and not faults:
        faults.append("exposures: the plan leaves no biomarker")
    return chosen, faults


def idle_patterns(config: AssociationConfig, names: Iterable[str]) -> list[str]:
    """Names and shell patterns of the plan that match no biomarker: what they say would be heeded nowhere.

    Parameters
    ----------
    config : AssociationConfig
    names : iterable of str
        Biomarkers of the table, and those that retsam measures: a plan may serve several tables.

    Returns
    -------
    list of str
    """
    names, exposures = list(dict.fromkeys(names)), config.exposures
    present = [f"{name}__present" for name in names] if exposures.presence else []
    asked = [
        ("exposures.exclude", exposures.exclude, names),
        ("exposures.transforms", exposures.transforms, names),
        ("robustness.reliability", config.robustness.reliability, [*names, *present]),
    ]
    return [
        f"{where}: {pattern!r} matches no biomarker{_nearest(pattern, known, '; ')}"
        for where, patterns, known in asked
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in known)
    ]


def _nearest(name: str, known: Sequence[str], before: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{before}nearest: {near[0]}" if near else ""
