"""Commands of the biomarkers room."""

from __future__ import annotations

from pathlib import Path

import click

from retsam.cli_types import Number, Output, Table

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(path_type=Path)
_PART = Table("image_id", "status", made_by="retsam measure")


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--config", "config_path", type=_FILE, help="Configuration of the study; its section `biomarkers` is used.")
@click.option("--store", "stores", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Mask store (.zarr).")
@click.option("--masks", type=_FILE, help="CSV of masks that you bring, instead of stores.")
@click.option("--out", type=_OUT, help="Parquet part; a folder for several stores; .parquet or .csv with --masks.")
@click.option("--graphs", type=click.Path(file_okay=False, path_type=Path), help="Folder for one table of vessel segments an image.")
@click.option("--scheduler", help="threads, processes, synchronous, or the address of a Dask scheduler; over the configuration's.")
@click.option("--workers", type=click.IntRange(0), help="Workers on this machine; over the configuration's.")
@click.option("--force", is_flag=True, help="Measure parts again that are up to date.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def measure(context, config_path, stores, masks, out, graphs, scheduler, workers, force, quiet) -> None:
    """Measure biomarkers: of mask stores, or of masks that you bring as PNG.

    \b
    Examples:
      retsam measure --config my.yaml --store masks/s0000.zarr --out parts/s0000.parquet
      retsam measure --config my.yaml --store masks/s0000.zarr --store masks/s0001.zarr --out parts/
      retsam measure --masks my_masks.csv --out biomarkers.csv
      retsam measure --masks my_masks.csv --out biomarkers.csv --graphs graphs/

    \b
    Columns of the table of masks; only image_id and one mask are needed, paths are relative to the table:
      image_id            your name of the photograph
      eye                 R or L (or OD, OS, right, left)
      artery, vein, vessel, fov   PNG, zero or not; a missing vessel is artery or vein, a missing fov the whole image
      disc_cup            PNG index: 0 background, 1 disc outside the cup, 2 cup (refused where the cup reaches the margin all round)
      lesions             PNG bit mask: 1 microaneurysm, 2 haemorrhage, 4 hard exudate, 8 soft exudate
      fovea_x, fovea_y    pixels, the centre of the top-left pixel is 0, 0
      um_per_px           micrometres per pixel; without it one disc diameter is taken as 1.8 mm
      status, reason, detail      of `retsam masks export`: a row with status failed stays a failed row

    Of what `retsam masks export` writes, the PNGs of these names are measured (its masks.csv), not disc, cup, av and single lesions.
    Columns of other names are not used, and named on stderr; those that look like one of these are a fault.
    Masks must be lossless: a JPEG smears zeros and ones into each other, and is refused.
    Masks are measured at their own resolution. What cannot be measured is empty, with the reason in the column `<name>__reason`.
    """
    if context.invoked_subcommand is not None:
        return
    if bool(stores) == bool(masks) or out is None:
        raise click.UsageError("give --out, and either --store (once or more) or --masks; see --help")
    changes = {key: value for key, value in (("scheduler", scheduler), ("workers", workers)) if value is not None}
    config = _settings(config_path, changes)
    if masks is not None:
        _measure_own(masks, out, graphs, config, quiet)
    else:
        _measure_stores(stores, out, graphs, config, force, quiet)


def _settings(config_path: Path | None, changes: dict):
    from pydantic import ValidationError

    from retsam.biomarkers.config import BiomarkersConfig

    base = {}
    if config_path is not None:
        from retsam.config import load_config

        base = load_config(config_path).biomarkers.model_dump()
    try:
        return BiomarkersConfig(**(base | changes))
    except ValidationError as error:
        faults = "; ".join(f"--{'.'.join(map(str, fault['loc']))}: {fault['msg']}, found {fault['input']!r}" for fault in error.errors())
        raise click.UsageError(faults) from error


def _measure_own(masks: Path, out: Path, graphs: Path | None, config, quiet: bool) -> None:
    from retsam.biomarkers.own_masks import MaskTableError, load_safely, measure_own_masks, read_mask_table
    from retsam.biomarkers.running import SchedulerError
    from retsam.biomarkers.tables import write_table

    if out.suffix not in (".parquet", ".csv"):
        raise click.UsageError(f"--out {out}: expected a name that ends in .parquet or .csv")
    try:
        rows = read_mask_table(masks)
        table = measure_own_masks(rows, config, quiet)
    except (MaskTableError, SchedulerError) as error:
        raise click.ClickException(str(error)) from error
    write_table(table, out)
    if graphs is not None:
        from retsam.biomarkers.graphs import write_graphs

        loaded = map(load_safely, rows)
        write_graphs((item[0] if isinstance(item, tuple) else item for item in loaded), graphs, config)
    failed = sum(status == "failed" for status in table["status"].to_pylist())
    click.echo(f"{len(table)} rows, {failed} failed: {out}", err=True)


def _check_places(stores, out: Path, folder: bool) -> None:
    """Refuse places for parts that are none, or where one part would be written over another."""
    if folder and (out.is_file() or (out.suffix[1:].isalpha() and not out.is_dir())):
        raise click.UsageError(
            f"--out {out}: parts of stores are Parquet; expected a name that ends in .parquet, or a folder (if its name ends like "
            "that of a file, make it first)"
        )
    if len(stores) > 1 and not folder:
        raise click.UsageError(f"--out {out}: expected a folder for {len(stores)} stores")
    named: dict[str, list[str]] = {}
    for store in stores:
        named.setdefault(store.stem, []).append(str(store))
    faults = [f"{' and '.join(same)} would both be written to {out / stem}.parquet" for stem, same in named.items() if len(same) > 1]
    if faults:
        raise click.UsageError(f"--store: {'; '.join(faults)}; rename one, or measure them into different folders")


def _measure_stores(stores, out: Path, graphs: Path | None, config, force: bool, quiet: bool) -> None:
    from retsam.biomarkers.cohort import Part, measure_stores
    from retsam.biomarkers.running import SchedulerError
    from retsam.masks.store import StoreError, read_masks

    folder = out.suffix != ".parquet"
    _check_places(stores, out, folder)
    parts = [Part(store, out / f"{store.stem}.parquet" if folder else out) for store in stores]
    try:
        measure_stores(parts, config, force, quiet)
        if graphs is not None:
            from retsam.biomarkers.graphs import write_graphs

            write_graphs((item for store in stores for item in read_masks(store)), graphs, config)
    except (StoreError, SchedulerError) as error:
        raise click.ClickException(str(error)) from error


@measure.command()
@click.option("--config", "config_path", type=_FILE, help="Configuration of the study (not needed; accepted from the workflow).")
@click.option("--cohort", required=True, type=Table("image_id", made_by="retsam ingest"), help="cohort.parquet")
@click.option("--quality", required=True, type=Table("image_id", "grade", made_by="retsam quality grade"), help="quality.parquet")
@click.option("--parts", "first_part", required=True, type=_PART, help="Parts of `retsam measure`; further ones may follow as arguments.")
@click.option("--out", required=True, type=Output(".parquet"), help="biomarkers.parquet; the CSV is written beside it.")
@click.argument("more_parts", nargs=-1, type=_PART)
def gather(config_path, cohort, quality, first_part, out, more_parts) -> None:
    """Join parts with cohort and quality: biomarkers.parquet and .csv.

    Biomarkers of photographs graded `reject` become empty with the reason `quality_reject`; the row stays.

    \b
    Example:
      retsam measure gather --cohort cohort.parquet --quality quality.parquet --out biomarkers.parquet --parts parts/*.parquet
    """
    import pandas as pd

    from retsam.biomarkers.gather import GatherError
    from retsam.biomarkers.gather import gather as join

    del config_path
    try:
        rows = join([first_part, *more_parts], pd.read_parquet(cohort), pd.read_parquet(quality), out)
    except GatherError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{rows} rows: {out}", err=True)


@measure.command()
@click.pass_context
@click.option("--disc-diameter-px", type=Number(0, min_open=True), help="Mean diameter of the disc in the photograph.")
@click.option("--disc-diameter-um", type=Number(0, min_open=True), default=1800.0, show_default=True, help="Its true diameter.")
@click.option("--fov-diameter-px", type=Number(0, min_open=True), help="Diameter of the field of view.")
@click.option("--field-degrees", type=Number(10, 60), default=45.0, show_default=True, help="Angle of the camera (ETDRS: 30).")
@click.option("--axial-length-mm", type=Number(15, 40), default=23.8, show_default=True, help="Axial length of the eye.")
def calibrate(context, disc_diameter_px, disc_diameter_um, fov_diameter_px, field_degrees, axial_length_mm) -> None:
    """Micrometres per pixel, for the column um_per_px.

    \b
    Examples:
      retsam measure calibrate --fov-diameter-px 1430 --field-degrees 45
      retsam measure calibrate --disc-diameter-px 210 --disc-diameter-um 1720
    """
    from retsam.biomarkers.calibration import um_per_px_from_disc, um_per_px_from_field

    if (disc_diameter_px is None) == (fov_diameter_px is None):
        raise click.UsageError("give either --disc-diameter-px or --fov-diameter-px")
    idle = ("field_degrees", "axial_length_mm") if disc_diameter_px is not None else ("disc_diameter_um",)
    given = [name for name in idle if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT]
    if given:
        way = "--disc-diameter-px" if disc_diameter_px is not None else "--fov-diameter-px"
        names = " and ".join("--" + name.replace("_", "-") for name in given)
        raise click.UsageError(f"{names}: not used with {way}; leave out what does not belong to the way that you measure by")
    if disc_diameter_px is not None:
        value = um_per_px_from_disc(disc_diameter_px, disc_diameter_um)
    else:
        value = um_per_px_from_field(fov_diameter_px, field_degrees, axial_length_mm)
    click.echo(f"{value:.4f}")


@measure.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the two files.")
def dictionary(out: Path) -> None:
    """Write the dictionary of biomarkers (names, definitions, units, sources, ranges) as a page and as JSON.

    \b
    Example:
      retsam measure dictionary --out docs
    """
    from retsam.biomarkers.documentation import write_documentation

    for path in write_documentation(out):
        click.echo(path, err=True)
