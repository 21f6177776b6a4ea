"""Kinds of options that commands share: files to write, tables to read, finite numbers. A wrong one is told before any work."""

from __future__ import annotations

import math
import os
from pathlib import Path

import click


class Output(click.Path):
    """A file to write, with one of some endings, in a folder that is there or can be made; gives a `Path`.

    Parameters
    ----------
    *suffixes : str
        Endings that the command can write, for example ``.parquet``.
    """

    def __init__(self, *suffixes: str):
        super().__init__(dir_okay=False, path_type=Path)
        self.suffixes = suffixes

    def convert(self, value, param, ctx) -> Path:
        path = super().convert(value, param, ctx)
        if path.suffix not in self.suffixes:
            self.fail(f"{path}: expected a name that ends in {' or '.join(self.suffixes)}", param, ctx)
        folder = next(parent for parent in path.absolute().parents if parent.exists() or parent.is_symlink())
        if not folder.is_dir():
            self.fail(f"{path}: {folder} is no folder", param, ctx)
        if not os.access(folder, os.W_OK):
            self.fail(f"{path}: nothing can be written into {folder}", param, ctx)
        return path


class Table(click.Path):
    """A Parquet table to read, with some columns; gives a `Path`.

    Parameters
    ----------
    *columns : str
        Those that the command cannot do without.
    made_by : str
        Command that writes such a table.
    """

    def __init__(self, *columns: str, made_by: str):
        super().__init__(exists=True, dir_okay=False, path_type=Path)
        self.columns, self.made_by = columns, made_by

    def convert(self, value, param, ctx) -> Path:
        path = super().convert(value, param, ctx)
        self.check(path, param, ctx)
        return path

    def check(self, path: Path, param: click.Parameter | None = None, ctx: click.Context | None = None) -> None:
        """Fail where a file is no such table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        expected = f"expected a Parquet table as `{self.made_by}` writes it"
        try:
            names = pq.read_schema(path).names
        except (pa.ArrowException, OSError) as error:
            self.fail(f"{path}: {expected}, could not read it ({str(error).splitlines()[0]})", param, ctx)
        if missing := [column for column in self.columns if column not in names]:
            self.fail(f"{path}: {expected}, found none of its columns {', '.join(missing)}", param, ctx)


class Tables(Table):
    """Like `Table`, or a folder of them."""

    def __init__(self, *columns: str, made_by: str):
        super().__init__(*columns, made_by=made_by)
        self.dir_okay = True

    def check(self, path: Path, param: click.Parameter | None = None, ctx: click.Context | None = None) -> None:
        for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
            super().check(file, param, ctx)


class Number(click.FloatRange):
    """A number in a range, and a finite one: click takes nan for one within any bounds."""

    def convert(self, value, param, ctx) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a finite number, found {value}", param, ctx)
        return number
