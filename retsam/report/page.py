"""The page while it is being written: numbered figures and tables, data for the scripts, and files beside the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from markupsafe import Markup

from retsam.report.html import join, paragraph, table_html, tag


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Parameters
    ----------
    key : str
        Anchor on the page.
    title : str
    body : Markup
    """

    key: str
    title: str
    body: Markup


@dataclass
class Page:
    """Collects what the sections produce.

    Parameters
    ----------
    statics : mapping of str to str
        Printable figure -> a ``data:`` address of its picture, shown where scripts do not run.
    """

    blocks: dict[str, Any] = field(default_factory=dict)
    files: dict[str, pd.DataFrame] = field(default_factory=dict)
    statics: Mapping[str, str] = field(default_factory=dict)
    figures: int = 0
    tables: int = 0

    def block(self, key: str, value: Any) -> None:
        """Data that scripts read, written once."""
        if key in self.blocks:
            raise ValueError(f"data block {key!r} is written twice")
        self.blocks[key] = value

    def figure(
        self, key: str, kind: str, title: str, caption: Any, data: Any = None, block: str | None = None, static: str | None = None
    ) -> Markup:
        """An interactive figure.

        Parameters
        ----------
        key : str
            Id of the figure and name of its downloads.
        kind : str
            Which builder of the page's scripts draws it.
        title, caption : str or Markup
        data : JSON-like, optional
            Its own data block; else ``block`` names a shared one.
        static : str, optional
            Name of the printable figure in ``figures/``, for readers without scripts.
        """
        self.figures += 1
        if data is not None:
            self.block(key, data)
        printable = f" Printable: figures/{static}.svg and .pdf." if static else ""
        text = tag("b", f"Figure {self.figures}. {title}") + " " + join([caption]) + tag("span", printable, class_="printable")
        if static in self.statics:
            still = Markup('<img src="{}" alt="{}">').format(self.statics[static], f"Figure {self.figures}. {title}")
        else:
            still = tag("p", "This figure is drawn by a script, which this reader does not run; its numbers are in tables/report/.")
        plot = tag("div", tag("noscript", still), class_="host")
        return tag(
            "figure",
            tag("div", "", class_="controls") + plot + tag("figcaption", text),
            id=f"fig-{key}",
            class_="fig",
            data_kind=kind,
            data_block=block or key,
            data_name=key,
        )

    def table(
        self,
        key: str,
        title: str,
        caption: Any,
        header: Sequence[Any],
        rows: Sequence[Sequence[Any]],
        numeric: Sequence[int] = (),
        frame: pd.DataFrame | None = None,
        sortable: bool = True,
        titles: Mapping[int, str] | None = None,
    ) -> Markup:
        """A numbered table; ``frame`` is what goes to ``tables/report/<key>.csv`` (the shown cells if left out)."""
        self.tables += 1
        self.files[key] = (
            frame if frame is not None else pd.DataFrame([[_text(c) for c in r] for r in rows], columns=[_text(h) for h in header])
        )
        text = tag("b", f"Table {self.tables}. {title}") + " " + join([caption])
        body = tag(
            "div",
            table_html(header, rows, numeric, sortable, titles),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label=f"Table {self.tables}. {title}",
        )
        return tag("div", tag("div", text, class_="tablecaption") + body, class_="tab", id=f"tab-{key}", data_name=key)

    def data_table(self, key: str, kind: str, title: str, caption: Any, block: str) -> Markup:
        """A numbered table that the page's scripts fill from a data block, with filter, sort and pages."""
        self.tables += 1
        text = tag("b", f"Table {self.tables}. {title}") + " " + join([caption])
        return tag(
            "div",
            tag("div", text, class_="tablecaption")
            + tag("div", tag("noscript", f"A script shows this table; its rows are in tables/report/{block}.csv."), class_="host"),
            id=f"tab-{key}",
            class_="tab data",
            data_kind=kind,
            data_block=block,
            data_name=key,
        )


def _text(cell: Any) -> str:
    return Markup(cell).striptags() if isinstance(cell, Markup) else "" if cell is None else str(cell)


def not_shown(what: str, why: str) -> Markup:
    """A part that cannot be shown, and why."""
    return paragraph(tag("b", f"{what}: not shown. "), why[:1].upper() + why[1:], class_="absent")
