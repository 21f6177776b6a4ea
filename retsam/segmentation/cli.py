"""`retsam segment`."""

from __future__ import annotations

import logging
from pathlib import Path

import click


@click.command()
@click.option("--config", "config_path", required=True, type=click.Path(exists=True, dir_okay=False), help="Configuration of the study.")
@click.option("--shard-file", required=True, type=click.Path(exists=True, dir_okay=False), help="CSV of the shard from `retsam ingest`.")
@click.option("--metrics", required=True, type=click.Path(exists=True, dir_okay=False), help="Table from `retsam quality metrics`.")
@click.option("--out", required=True, type=click.Path(), help="Mask store to write (.zarr).")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def segment(config_path: str, shard_file: str, metrics: str, out: str, quiet: bool) -> None:
    """Segment one shard of photographs into one mask store.

    The store is written whole under a temporary name and renamed, so a killed run leaves none; running again starts the shard anew.
    Photographs that quality control could not read become rows with their reason.

    \b
    Example:
      retsam segment --config my.yaml --shard-file shards/s0000.csv --metrics quality/s0000.parquet --out masks/s0000.zarr
    """
    import pandas as pd
    import torch

    from retsam.cohort.ingest import read_shard
    from retsam.config import load_config
    from retsam.segmentation.shard import segment_shard

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    config = load_config(config_path)
    try:
        shard = read_shard(shard_file)  # not plain pandas, which takes an image called NA for a missing one
        segment_shard(shard, pd.read_parquet(metrics), Path(out), config.segmentation, config.cohort.max_pixels, progress=not quiet)
    except (ValueError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    except torch.OutOfMemoryError as error:
        text = str(error).splitlines()[0]
        told = f"the GPU has no memory for a single photograph ({text}); free some, or set segmentation.device to `cpu`"
        raise click.ClickException(told) from error
