"""Text made safe for where it goes: HTML, JSON inside a script element, and cells that a spreadsheet would run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

#: A cell that begins so is taken for a formula by spreadsheets.
_FORMULA = re.compile(r"^[=+\-@\t\r]")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)

SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def csv_safe(value: Any) -> Any:
    """A cell that no spreadsheet runs: text beginning with ``= + - @``, tab or carriage return gets a quote in front."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.match(value):
        return "'" + value
    return value


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV (RFC 4180, UTF-8), every text cell and column name passed through :func:`csv_safe`."""
    safe = table.copy()
    safe.columns = [csv_safe(str(c)) for c in safe.columns]
    for i, dtype in enumerate(safe.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            safe.isetitem(i, safe.iloc[:, i].map(csv_safe))
    return safe.to_csv(index=False, lineterminator="\r\n", float_format="%.8g")


def json_block(value: Any) -> Markup:
    """JSON that may stand inside ``<script type="application/json">``: no ``<``, ``>`` or ``&`` is left to end the element."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(character, code)
    return Markup(text)  # noqa: S704 (every character that could leave the element was replaced above)


def _plain(value: Any) -> Any:
    """Plain JSON types; missing and infinite numbers become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray, pd.Series, pd.Index)):
        return [_plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    return str(value)


def pack(table: pd.DataFrame, digits: int = 7) -> dict[str, Any]:
    """Columns for the page's scripts: numbers rounded to ``digits`` significant digits, repeated texts as levels and codes.

    Seven, because ratios travel as logs: five digits of a log of 7.1 leave three of the ratio, and the tables print three.
    """
    columns: dict[str, Any] = {}
    for name in table.columns:
        column = table[name]
        if pd.api.types.is_bool_dtype(column.dtype):
            columns[name] = [None if pd.isna(v) else bool(v) for v in column]
        elif pd.api.types.is_numeric_dtype(column.dtype):
            columns[name] = [significant(v, digits) for v in column.astype("Float64").to_numpy(dtype=float, na_value=np.nan)]
        else:
            codes, levels = pd.factorize(column)
            columns[name] = {"levels": [str(v) for v in levels], "codes": codes.tolist()}
    return {"length": len(table), "columns": columns}


def significant(value: float, digits: int = 5) -> float | int | None:
    """A number rounded to significant digits, whole numbers as int; None where not finite."""
    if value is None or not math.isfinite(value):
        return None
    if value == round(value) and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.{digits}g}")


# ---- numbers for people ----------------------------------------------------------------------------------------------


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")


def number(value: float | None, digits: int = 3) -> str:
    """A number to ``digits`` significant digits, with powers of ten where it is very large or very small."""
    if value is None or pd.isna(value) or not math.isfinite(value):
        return "\u2013"
    if value == 0:
        return "0"
    whole, value = value, float(f"{value:.{digits}g}")
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return _minus(mantissa) + "\u00d710" + str(int(exponent)).translate(SUPERSCRIPT)
    if abs(value) >= 1000:
        return _minus(f"{whole:,.0f}".replace(",", "\u202f"))
    return _minus(f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}")


def p_text(neg_log10_p: float | None) -> str:
    """A p value from its -log10, which does not underflow."""
    if neg_log10_p is None or pd.isna(neg_log10_p):
        return "\u2013"
    if neg_log10_p < 3:
        p = 10.0**-neg_log10_p
        return "1.00" if p >= 0.995 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    exponent = math.ceil(neg_log10_p)
    mantissa = f"{10 ** (exponent - neg_log10_p):.1f}"
    if mantissa == "10.0":
        mantissa, exponent = "1.0", exponent - 1
    return f"{mantissa}\u00d710" + str(-exponent).translate(SUPERSCRIPT)


def neg_log10(p: float | None) -> float | None:
    """-log10 of a p or q value; None for missing, infinite for zero."""
    if p is None or pd.isna(p):
        return None
    return math.inf if p <= 0 else -math.log10(p)


def q_text(q: float | None) -> str:
    """A q value; ``<1x10^-300`` where it underflowed to zero."""
    value = neg_log10(q)
    return "<1.0\u00d710" + "-300".translate(SUPERSCRIPT) if value == math.inf else p_text(value)


def estimate_text(estimate: float, low: float, high: float, ratio: bool) -> str:
    """``1.23 (1.10 to 1.38)`` for a ratio given as logs, or for a slope."""
    if pd.isna(estimate):
        return "\u2013"

    def one(value: float) -> str:
        if pd.isna(value):
            return "\u2013"
        if not ratio:
            return number(value)
        value = math.exp(min(value, 700.0))
        return number(value) if value >= 100 or value < 0.01 else f"{value:.2f}"

    return f"{one(estimate)} ({one(low)} to {one(high)})"


def count(value: float | None) -> str:
    """A whole number with thin spaces."""
    return "\u2013" if value is None or pd.isna(value) else f"{int(value):,}".replace(",", "\u202f")


def percent(share: float | None) -> str:
    """A share as percent, one decimal."""
    return "\u2013" if share is None or pd.isna(share) else f"{100 * share:.1f} %"


# ---- pieces of a page ------------------------------------------------------------------------------------------------


def tag(name: str, content: Any = "", **attributes: Any) -> Markup:
    """An element; content that is not Markup is escaped, and so is every attribute (``class_`` for ``class``)."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' if value is not True else f" {key.rstrip('_').replace('_', '-')}"
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")


def join(parts: Iterable[Any]) -> Markup:
    """Pieces one after the other, each escaped unless it is Markup."""
    return Markup("").join(parts)


def paragraph(*parts: Any, class_: str | None = None) -> Markup:
    """A paragraph."""
    return tag("p", join(parts), class_=class_)


def listing(items: Iterable[Any], ordered: bool = False) -> Markup:
    """A list."""
    return tag("ol" if ordered else "ul", join(tag("li", item) for item in items))


def table_html(
    header: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    numeric: Sequence[int] = (),
    sortable: bool = True,
    titles: Mapping[int, str] | None = None,
) -> Markup:
    """A table inside a region that scrolls sideways and can be reached by keyboard.

    Parameters
    ----------
    header, rows : sequences
        Cells; what is not Markup is escaped.
    numeric : sequence of int
        Columns set right.
    titles : mapping of int to str
        Hover texts of header cells.
    """
    right = set(numeric)
    head = tag(
        "tr",
        join(
            tag("th", cell, scope="col", class_="num" if i in right else None, title=(titles or {}).get(i)) for i, cell in enumerate(header)
        ),
    )
    body = join(tag("tr", join(tag("td", cell, class_="num" if i in right else None) for i, cell in enumerate(row))) for row in rows)
    return tag("table", tag("thead", head) + tag("tbody", body), data_sortable=True if sortable else None)
