"""Photographs that the quality model is fitted and scored on, and their metrics."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from retsam.quality.other_pictures import write_other_pictures, write_variants
from retsam.quality.project_grades import held_back, project_grades
from retsam.quality.table import as_table, measure_file

#: Sets on whose photographs experts drew or measured.
CURATED = (
    "aria",
    "avrdb",
    "drive",
    "drishti",
    "fives",
    "gave",
    "hei_med",
    "hrf",
    "idrid_grading",
    "idrid_native",
    "idrid_seg",
    "ords",
    "orvs",
    "palm",
    "stare",
)
#: Sets with grades by eye, half of whose subjects are kept back.
HALVED = ("odir", "palm")
#: Weight of altered versions of pictures; they neither score nor calibrate.
VARIANT_WEIGHT = 0.3
#: Photographs of retinas that are altered too, and how: cameras' software and old archives do so, and the head took it for strangeness.
#: Blurred, closer and brighter retinas are left out: they look like fronts of eyes out of focus, of which there are five.
ALTERED_RETINAS, RETINA_ALTERATIONS = 60, ("vivid", "framed")
# Photographs after which metrics are written to the cache.
_KEEP_EVERY = 200


def _measure(task: tuple[str, str]) -> dict:
    return measure_file(*task)


def _by_hash(names: pd.Series) -> pd.Index:
    """The index in an order that depends on the names alone."""
    return names.map(lambda name: hashlib.sha256(name.encode()).hexdigest()).sort_values().index


def choose(manifest: pd.DataFrame, sample: int, sample_odir: int) -> pd.DataFrame:
    """The photographs to measure: all graded ones, all of PALM, and samples of the other sets; with labels and what is kept back.

    Parameters
    ----------
    manifest : DataFrame
    sample, sample_odir : int
        Most photographs of a set without quality grades, and of ODIR.
    """
    # refuge_roi holds crops around the disc: no field of view to judge. Ungraded EyePACS photographs may be anything.
    manifest = manifest[(manifest["dataset"] != "refuge_roi") & ~((manifest["dataset"] == "eyepacs400") & manifest["quality"].isna())]
    graded, _ = project_grades(manifest)
    always = manifest["quality"].notna() | manifest["image"].isin(graded["image_id"]) | (manifest["dataset"] == "palm")
    odir = manifest["dataset"] == "odir"
    rest = [g.sample(min(sample, len(g)), random_state=1) for _, g in manifest[~always & ~odir].groupby("dataset")]
    known = pd.concat([manifest[always], *rest, manifest.loc[_by_hash(manifest.loc[odir, "image"])[:sample_odir]]]).drop_duplicates("image")
    known = known[["image", "dataset", "group", "quality", "diagnosis"]].rename(columns={"image": "image_id"})
    known = known.merge(graded, on="image_id", how="left").assign(weight=1.0)
    return known.assign(held_back=held_back(known["group"]) & known["dataset"].isin(HALVED))


def _altered(known: pd.DataFrame, where: dict[str, Path], folder: Path) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Altered versions of pictures of other things (but the drawn ones) and of as many retinas, none of them kept back."""
    strange = known[(known["quality"] == "not_fundus") & (known["dataset"] != "made")]
    retinas = known[known["dataset"].isin([*CURATED, *HALVED]) & ~known["held_back"].astype(bool)]
    own = pd.concat([strange, retinas.loc[_by_hash(retinas["image_id"])[:ALTERED_RETINAS]]]).set_index("image_id")
    made = {i: write_variants(i, where[i], folder, None if i in set(strange["image_id"]) else RETINA_ALTERATIONS) for i in own.index}
    origin = {i: original for original, versions in made.items() for i, _ in versions}
    # An altered picture is still of a retina or not, but no grade of its quality holds any longer.
    copies = own.loc[list(origin.values())].assign(weight=VARIANT_WEIGHT, image_id=list(origin))
    copies.loc[copies["quality"] != "not_fundus", "quality"] = None
    copies[["project_grade", "p_reject_label", "p_gradable_label", "stands_for"]] = None
    return copies, {i: path for versions in made.values() for i, path in versions}


def load_metrics(data: Path, cache: Path, jobs: int, sample: int = 45, sample_odir: int = 4000) -> pd.DataFrame:
    """Metrics of the chosen photographs (see `choose`) and of pictures of other things; kept in `cache` between runs.

    Parameters
    ----------
    data : Path
        Folder with ``manifest.csv``.
    cache : Path
        Folder for ``metrics.parquet`` and the made pictures.
    jobs : int
    sample, sample_odir : int
        Most photographs of a set without quality grades, and of ODIR.
    """
    known = choose(pd.read_csv(data / "manifest.csv", low_memory=False), sample, sample_odir)
    where = {i: data / i for i in known["image_id"]}
    others = write_other_pictures(cache / "pictures")
    extra = pd.DataFrame([{"image_id": i, "dataset": i.split(":")[0], "group": i, "quality": "not_fundus"} for i, _ in others])
    known = pd.concat([known, extra.assign(weight=1.0, held_back=False)], ignore_index=True)
    where |= dict(others)
    copies, paths = _altered(known, where, cache / "variants")
    known, where = pd.concat([known, copies], ignore_index=True), where | paths
    kept = cache / "metrics.parquet"
    done = pd.read_parquet(kept) if kept.exists() else as_table([])
    have = set(done["image_id"])
    wanted = [(i, str(path)) for i, path in where.items() if i not in have]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool, tqdm(total=len(wanted), unit="image") as bar:
        for start in range(0, len(wanted), _KEEP_EVERY):
            rows = as_table(list(pool.map(_measure, wanted[start : start + _KEEP_EVERY], chunksize=8)))
            done = pd.concat([done, rows], ignore_index=True) if len(done) else rows
            done.to_parquet(kept, index=False)
            bar.update(len(rows))
    table = done.merge(known, on="image_id")
    failed = table[table["status"] != "ok"]
    for row in failed.itertuples():
        print(f"left out: {row.image_id}: {row.reason}, {row.detail}")
    # In an order of its own, whatever the cache held before: folds are dealt by it.
    return table[table["status"] == "ok"].sort_values("image_id", ignore_index=True)
