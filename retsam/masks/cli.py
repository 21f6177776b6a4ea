"""``retsam masks``: look into mask stores and export them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click


@click.group()
def masks() -> None:
    """Look into mask stores (`masks/<shard>.zarr`) and export them as PNG."""


@masks.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
@click.option("--image-id", "image_ids", multiple=True, help="Only this image; may be given again.")
@click.option("--ids", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File with one image id a line.")
@click.option("--all", "everything", is_flag=True, help="Every image (one folder each).")
@click.option("--target", "targets", multiple=True, help="Only this target; may be given again. Default: every head that exists.")
def export(stores, out, image_ids, ids, everything, targets) -> None:
    """Write masks as PNG of native size: OUT/IMAGE_ID/TARGET.png, av.png, disc_cup.png, lesions.png, fov.png.

    OUT/masks.csv is a table for `retsam measure --masks`, which reads these of the files: artery, vein, vessel, fov, disc_cup and
    lesions.png. Correct those to measure them again. All other files (disc, cup, av, each lesion and phenotype) are for other programs and
    for eyes, listed in OUT/files.csv; what is corrected in them is not measured.

    disc_cup.png needs the heads of both; lesions.png all four lesions (microaneurysm, hemorrhage, hard_exudate, cotton_wool_spot), among
    the targets too where some are chosen: an image without one of them would say that there is none.

    \b
    Examples:
      retsam masks export results/odir/masks/*.zarr --image-id 0_left --out png
      retsam masks export results/odir/masks/s0000.zarr --all --target vessel --out png
    """
    from retsam.masks.export import MEASURED, export_stores
    from retsam.masks.store import StoreError

    wanted = [*image_ids, *([line.strip() for line in ids.read_text().splitlines() if line.strip()] if ids else [])]
    if bool(wanted) == everything:
        raise click.UsageError("choose images: --image-id, --ids, or --all")
    try:
        table = export_stores(stores, out, None if everything else wanted, targets or None)
    except (StoreError, KeyError) as error:
        raise click.ClickException(str(error.args[0])) from error
    failed = int((table["status"] == "failed").sum()) if len(table) else 0
    click.echo(f"{len(table) - failed} images exported to {out}" + (f", {failed} without masks (see masks.csv)" if failed else ""))
    if len(table) > failed and not set(table.columns) & set(MEASURED) - {"fov"}:
        click.echo("none of the files is one that `retsam measure --masks` reads; see `retsam masks export --help`")


@masks.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(stores, as_json) -> None:
    """Say what mask stores hold: images, failures with reasons, heads and their status, size, weights."""
    from retsam.masks.store import StoreError, open_stores

    try:
        cohort = open_stores(stores)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    size = sum(f.stat().st_size for store in stores for f in store.rglob("*") if f.is_file())
    status = cohort.attrs["target_status"]
    summary = {
        "stores": len(stores),
        "images": cohort.sizes["image"],
        "failed": dict(Counter(str(r) for r, s in zip(cohort.reason.values, cohort.status.values, strict=True) if s != "ok")),
        "frame_side": cohort.attrs["frame_side"],
        "heads": {target: state for target, state in status.items() if state != "not_available"},
        "not_available": [target for target, state in status.items() if state == "not_available"],
        "kb_per_image": round(size / 1000 / cohort.sizes["image"], 1),
        **{name: cohort.attrs.get(name) for name in ("model", "weights_sha256", "retsam_version")},
    }
    if as_json:
        click.echo(json.dumps(summary))
        return
    for name, value in summary.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}: {v}" for k, v in value.items()) or "none"
        click.echo(f"{name:15s} {', '.join(value) if isinstance(value, list) else value}")
