"""Stores in, parts out, one table at the end: the same on every scheduler, resumed, and no bad image ends it."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner

from retsam.biomarkers import cohort as cohort_module
from retsam.biomarkers import graphs
from retsam.biomarkers import tables as table_module
from retsam.biomarkers.cli import measure as command
from retsam.biomarkers.cohort import Part, is_current, measure_batch, measure_stores
from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.eye_phantoms import EyePhantom, Spot
from retsam.biomarkers.gather import GatherError, gather
from retsam.biomarkers.registry import registry
from retsam.biomarkers.tables import TableWriter, neutralise
from retsam.masks.frame import Frame
from retsam.masks.masks import Failure
from retsam.masks.store import StoreError, write_store
from retsam.segmentation.targets import TARGETS

CONFIG = BiomarkersConfig(families=("image", "optic_nerve", "lesions"), scheduler="synchronous", images_per_task=2)
AVAILABLE = ("disc", "cup", "microaneurysm", "hemorrhage", "hard_exudate", "cotton_wool_spot")


def eye(image_id: str, seed: int):
    """Masks as a store holds them: a square frame over a larger photograph."""
    rng = np.random.default_rng(seed)
    spots = tuple(Spot("hemorrhage", *rng.uniform(-1, 1, 2), 0.08) for _ in range(seed + 1))
    masks = EyePhantom(px_per_dd=36, spots=spots, eye="RL"[seed % 2], cup=(0.1 + 0.03 * seed, 0.2)).masks()
    side = masks.fov.shape[0]
    status = {target: "supervised" if target in AVAILABLE else "not_available" for target in TARGETS}
    frame = Frame.from_square(10, 20, 4 * side, side, 5 * side, 5 * side)
    return dataclasses.replace(masks, image_id=image_id, frame=frame, native=False, status=status)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    first = [eye("a", 0), eye("b", 1), Failure("c", "unreadable", "not a picture"), eye("d", 2), eye("e", 3)]
    write_store(folder / "s0000.zarr", first)
    write_store(folder / "s0001.zarr", [eye("f", 4), eye("g", 5)])
    return [folder / "s0000.zarr", folder / "s0001.zarr"]


@pytest.fixture(scope="module")
def parts(stores, tmp_path_factory):
    out = tmp_path_factory.mktemp("parts")
    return measure_stores([Part(store, out / f"{store.stem}.parquet") for store in stores], CONFIG, quiet=True)


def test_one_row_an_image_and_failures_are_rows(parts):
    table = pd.read_parquet(parts[0])
    assert table["image_id"].tolist() == list("abcde")
    assert table["status"].tolist() == ["ok", "ok", "failed", "ok", "ok"]
    failed = table.iloc[2]
    assert (failed["reason"], failed["detail"], failed["cdr_vertical__reason"]) == ("unreadable", "not a picture", "image_failed")
    assert table["hemorrhage_count"].iloc[[0, 1, 3, 4]].tolist() == pytest.approx([1, 2, 3, 4], abs=1)
    assert table["cdr_horizontal"].iloc[[0, 1, 3, 4]].is_monotonic_increasing
    assert table["drusen_count__reason"].iloc[0] == "head_not_available"
    assert table["disc_height_px"].iloc[0] == pytest.approx(4 * 36 * 1.06, rel=0.04)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_every_scheduler_gives_the_same_table(stores, parts, tmp_path, scheduler):
    config = CONFIG.model_copy(update={"scheduler": scheduler, "workers": 2})
    again = measure_stores([Part(store, tmp_path / f"{store.stem}.parquet") for store in stores], config, quiet=True)
    for one, two in zip(parts, again, strict=True):
        assert pq.read_table(one).equals(pq.read_table(two), check_metadata=True)


def test_a_scheduler_elsewhere_by_its_address(stores, parts, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        config = CONFIG.model_copy(update={"scheduler": cluster.scheduler_address})
        again = measure_stores([Part(stores[1], tmp_path / "s0001.parquet")], config, quiet=True)
    assert pq.read_table(parts[1]).equals(pq.read_table(again[0]))


def test_a_stopped_run_goes_on_part_by_part(stores, tmp_path, monkeypatch):
    jobs = [Part(store, tmp_path / f"{store.stem}.parquet") for store in stores]
    measure_stores(jobs[:1], CONFIG, quiet=True)
    measured = []
    real = cohort_module.measure_batch
    monkeypatch.setattr(cohort_module, "measure_batch", lambda store, ids, config: measured.extend(ids) or real(store, ids, config))
    measure_stores(jobs, CONFIG, quiet=True)
    assert measured == ["f", "g"]
    measure_stores(jobs, CONFIG.model_copy(update={"scheduler": "threads", "workers": 1, "images_per_task": 1}), quiet=True)
    assert measured == ["f", "g"]  # where the work runs does not change the result
    changed = CONFIG.model_copy(update={"um_per_dd": 1700.0})
    assert not is_current(jobs[0], changed)
    measure_stores(jobs, changed, quiet=True)
    assert sorted(measured[2:]) == list("abcdefg")


@pytest.mark.parametrize("change", [{"eye": "L"}, {"um_per_px": 20.0}, {"fovea": (60.0, 61.0)}, "planes"])
def test_a_store_written_again_with_other_contents_is_measured_again(tmp_path, change):
    """Also where no file's size tells."""
    masks = dataclasses.replace(eye("a", 0), um_per_px=10.0)
    job = Part(tmp_path / "s.zarr", tmp_path / "s.parquet")

    def write(item):
        write_store(job.store, [item])
        return {path.relative_to(job.store): path.stat().st_size for path in job.store.rglob("c/*") if path.is_file()}

    sizes = write(masks)
    measure_stores([job], CONFIG, quiet=True)
    write(masks)
    assert is_current(job, CONFIG), "the same store again"
    other = {"planes": {name: np.roll(plane, 1, 1) for name, plane in masks.planes.items()}} if change == "planes" else change
    again = write(dataclasses.replace(masks, **other))
    assert change == "planes" or again == sizes
    assert not is_current(job, CONFIG)
    measure_stores([job], CONFIG, quiet=True)
    row = pd.read_parquet(job.out).iloc[0]
    assert is_current(job, CONFIG) and (row["eye"] == "L" if change == {"eye": "L"} else True)


def test_a_store_replaced_while_it_is_measured_is_out_of_date(tmp_path, monkeypatch):
    job = Part(write_store(tmp_path / "s.zarr", [eye("a", 0)]), tmp_path / "s.parquet")
    real = cohort_module.measure_batch

    def replaced(store, ids, config):
        write_store(job.store, [dataclasses.replace(eye("a", 0), um_per_px=9.0)])
        return real(store, ids, config)

    monkeypatch.setattr(cohort_module, "measure_batch", replaced)
    measure_stores([job], CONFIG, quiet=True)
    assert not is_current(job, CONFIG)


def test_a_half_written_part_is_measured_again(stores, tmp_path):
    job = Part(stores[1], tmp_path / "s0001.parquet")
    job.out.write_bytes(b"PAR1 and then the power failed")
    assert not is_current(job, CONFIG)
    measure_stores([job], CONFIG, quiet=True)
    assert is_current(job, CONFIG) and not list(tmp_path.glob(".*"))


def test_a_store_that_is_not_whole_is_refused(tmp_path):
    write_store(tmp_path / "s0002.zarr", [eye("h", 1)])
    root = zarr.open_group(tmp_path / "s0002.zarr", mode="r+")
    root.attrs["complete"] = False
    zarr.consolidate_metadata(tmp_path / "s0002.zarr")
    with pytest.raises(StoreError, match="s0002"):
        measure_stores([Part(tmp_path / "s0002.zarr", tmp_path / "out.parquet")], CONFIG, quiet=True)
    assert not (tmp_path / "out.parquet").exists()


def test_an_image_that_breaks_the_measurement_is_a_row(stores, monkeypatch):
    real = cohort_module.measure_row

    def breaks(masks, config):
        if masks.image_id == "b":
            raise MemoryError("too large")
        return real(masks, config)

    monkeypatch.setattr(cohort_module, "measure_row", breaks)
    rows = measure_batch(str(stores[0]), ["a", "b"], CONFIG).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert rows[1]["reason"] == "measurement_failed" and "too large" in rows[1]["detail"]


def test_a_family_that_breaks_leaves_the_others(stores, monkeypatch):
    def breaks(context):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("retsam.biomarkers.lesions.measure_lesions", breaks)
    row = measure_batch(str(stores[0]), ["a"], CONFIG).to_pylist()[0]
    assert row["status"] == "ok" and row["cdr_vertical"] > 0
    assert row["hemorrhage_count__reason"] == "measurement_failed" and "of all things" in row["detail"]


def test_a_batch_whose_worker_died_is_rows(stores, tmp_path, monkeypatch):
    def dies(store, ids, config):
        raise RuntimeError("killed")

    monkeypatch.setattr(cohort_module, "measure_batch", dies)
    out = measure_stores([Part(stores[1], tmp_path / "p.parquet")], CONFIG, quiet=True)
    table = pd.read_parquet(out[0])
    assert table["reason"].tolist() == ["measurement_failed"] * 2 and table["detail"].str.contains("killed").all()


# ---- gather --------------------------------------------------------------------------------------------------------------


def tables(ids="abcdefg"):
    cohort = pd.DataFrame({"image_id": list(ids), "subject": [f"s{i // 2}" for i in range(len(ids))], "visit": None, "shard": "s0000"})
    cohort["status"] = "ok"
    grades = ["gradable", "reject", None, "usable", "gradable", "reject", "gradable"]
    quality = pd.DataFrame({"image_id": list(ids), "grade": grades[: len(ids)]})
    return cohort, quality


def test_gather_joins_and_nulls_rejects(parts, tmp_path):
    cohort, quality = tables()
    assert gather(parts, cohort, quality, tmp_path / "biomarkers.parquet") == 7
    table = pd.read_parquet(tmp_path / "biomarkers.parquet").set_index("image_id")
    assert table.columns[:4].tolist() == ["subject", "eye", "visit", "shard"]
    assert table.loc["a", "subject"] == "s0" and table.loc["g", "subject"] == "s3"
    assert np.isnan(table.loc["b", "cdr_vertical"]) and table.loc["b", "cdr_vertical__reason"] == "quality_reject"
    assert table.loc["f", "drusen_count__reason"] == "quality_reject"
    assert table.loc["c", "cdr_vertical__reason"] == "image_failed"
    assert table.loc["a", "cdr_vertical"] > 0 and pd.isna(table.loc["a", "cdr_vertical__reason"])
    csv = pd.read_csv(tmp_path / "biomarkers.csv").set_index("image_id")
    assert csv.columns.tolist() == table.columns.tolist()
    np.testing.assert_allclose(csv["cdr_vertical"], table["cdr_vertical"].astype(float), equal_nan=True)


def test_small_parts_share_a_row_group(parts, tmp_path):
    """A row group of thousands of columns costs megabytes in the writer, in the footer and in every reader."""
    table, paths = pq.read_table(parts[0]).slice(0, 1), []
    for number in range(70):
        paths.append(tmp_path / f"s{number:04d}.parquet")
        named = table.set_column(0, table.schema.field(0), pa.array([f"p{number}"]))
        pq.write_table(named, paths[-1])
    cohort, quality = (frame.loc[[0] * 70].assign(image_id=[f"p{i}" for i in range(70)]) for frame in tables())
    assert table.schema.names[0] == "image_id"
    assert gather(paths, cohort, quality, tmp_path / "b.parquet") == 70
    assert pq.read_metadata(tmp_path / "b.parquet").num_row_groups == 1
    for written in (pd.read_parquet(tmp_path / "b.parquet"), pd.read_csv(tmp_path / "b.csv")):
        assert written["image_id"].tolist() == cohort["image_id"].tolist()


def test_a_large_table_has_several_row_groups_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(table_module, "_GROUP_ROWS", 4)
    piece = pa.table({"n": [0, 1, 2]})
    with TableWriter(tmp_path / "t.parquet", tmp_path / "t.csv", piece.schema) as writer:
        for _ in range(5):
            writer.write(piece)
    written = pq.ParquetFile(tmp_path / "t.parquet")
    assert [written.metadata.row_group(i).num_rows for i in range(written.num_row_groups)] == [6, 6, 3]
    assert written.read()["n"].to_pylist() == pd.read_csv(tmp_path / "t.csv")["n"].tolist() == [0, 1, 2] * 5


def test_a_table_that_cannot_be_finished_is_not_there(tmp_path):
    schema = pa.schema([("n", pa.int64())])
    with pytest.raises(pa.ArrowException), TableWriter(tmp_path / "t.parquet", tmp_path / "t.csv", schema) as writer:
        writer.write(pa.table({"n": [0]}))
        writer.write(pa.table({"other": ["x"]}))
    assert not list(tmp_path.iterdir())


def test_gather_tells_the_header_from_the_table(stores, tmp_path):
    masks = [dataclasses.replace(eye(name, 1), um_per_px=5.0) for name in "xy"] + [eye("z", 2)]
    write_store(tmp_path / "s0003.zarr", masks)
    part = measure_stores([Part(tmp_path / "s0003.zarr", tmp_path / "p.parquet")], CONFIG, quiet=True)
    cohort, quality = tables("xyz")
    gather(part, cohort.assign(um_per_px=[5.0, np.nan, np.nan]), quality.assign(grade="usable"), tmp_path / "b.parquet")
    assert pd.read_parquet(tmp_path / "b.parquet")["scale_source"].tolist() == ["manifest", "dicom", "disc_1800um"]


def test_gather_reports_all_faults_at_once(parts, tmp_path):
    cohort, quality = tables()
    stranger = pd.DataFrame({"image_id": ["z"], "subject": ["s9"], "visit": [None], "shard": ["s0009"], "status": ["ok"]})
    cohort = pd.concat([cohort[cohort["image_id"] != "a"], stranger])
    with pytest.raises(GatherError) as caught:
        gather([parts[0], parts[1], parts[1]], cohort, quality[quality["image_id"] != "g"], tmp_path / "b.parquet")
    text = str(caught.value)
    assert "'a'" in text and "not in the cohort" in text
    assert "more than one part" in text
    assert "'z'" in text and "s0009" in text
    assert "'g'" in text and "quality table" in text
    assert not (tmp_path / "b.parquet").exists()


def test_gather_refuses_parts_of_different_settings(stores, parts, tmp_path):
    other = measure_stores([Part(stores[1], tmp_path / "s0001.parquet")], CONFIG.model_copy(update={"families": ("image",)}), quiet=True)
    with pytest.raises(GatherError, match="columns differ"):
        gather([parts[0], other[0]], *tables(), tmp_path / "b.parquet")


def test_gather_says_which_settings_differ(stores, parts, tmp_path):
    changes = {"um_per_dd": 1500.0, "min_fov_diameter_px": CONFIG.min_fov_diameter_px | {"area": 100}}
    other = measure_stores([Part(stores[1], tmp_path / "s0001.parquet")], CONFIG.model_copy(update=changes), quiet=True)
    with pytest.raises(GatherError) as caught:
        gather([parts[0], other[0]], *tables(), tmp_path / "b.parquet")
    text = str(caught.value)
    assert f"{other[0]}: measured otherwise than {parts[0]}" in text
    assert "settings.um_per_dd (1500.0, there 1800.0)" in text and "settings.min_fov_diameter_px.area (100, there 264)" in text
    assert "min_zone_share" not in text and "measure them again" in text
    table = pq.read_table(parts[1])
    old = {b"retsam": json.dumps(json.loads(table.schema.metadata[b"retsam"]) | {"retsam": "0.0.1"})}
    pq.write_table(table.replace_schema_metadata(old), tmp_path / "old.parquet")
    with pytest.raises(GatherError, match=r"retsam \('0.0.1', there '"):
        gather([parts[0], tmp_path / "old.parquet"], *tables(), tmp_path / "b.parquet")
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "silent.parquet")
    with pytest.raises(GatherError, match=r"settings \(one of the two does not say\)"):
        gather([parts[0], tmp_path / "silent.parquet"], *tables(), tmp_path / "b.parquet")


def test_where_the_work_ran_is_no_difference(stores, parts, tmp_path):
    elsewhere = CONFIG.model_copy(update={"scheduler": "threads", "workers": 1, "images_per_task": 1})
    other = measure_stores([Part(stores[1], tmp_path / "s0001.parquet")], elsewhere, quiet=True)
    assert gather([parts[0], other[0]], *tables(), tmp_path / "b.parquet") == 7


def test_cells_that_a_spreadsheet_would_run_are_neutralised():
    table = pa.table({"image_id": ["=1+1", "+x", "-y", "@z", "plain", None], "n": [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0]})
    assert neutralise(table)["image_id"].to_pylist() == ["'=1+1", "'+x", "'-y", "'@z", "plain", None]
    assert neutralise(table)["n"].to_pylist() == [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_commands(stores, tmp_path):
    run = CliRunner()
    names = [item for store in stores for item in ("--store", str(store))]
    result = run.invoke(command, [*names, "--out", str(tmp_path / "parts"), "--scheduler", "synchronous", "--quiet"])
    assert result.exit_code == 0, result.output
    cohort, quality = tables()
    cohort.to_parquet(tmp_path / "cohort.parquet")
    quality.to_parquet(tmp_path / "quality.parquet")
    found = [str(path) for path in sorted((tmp_path / "parts").glob("*.parquet"))]
    arguments = ["gather", "--cohort", str(tmp_path / "cohort.parquet"), "--quality", str(tmp_path / "quality.parquet")]
    result = run.invoke(command, [*arguments, "--parts", *found, "--out", str(tmp_path / "biomarkers.parquet")])
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(tmp_path / "biomarkers.parquet")
    assert len(table) == 7 and set(registry()) <= set(table.columns)


def test_command_says_what_is_wrong(tmp_path):
    run = CliRunner()
    assert "either --store" in run.invoke(command, ["--out", "x.parquet"]).output
    (tmp_path / "m.csv").write_text("image_id,artery\n")
    result = run.invoke(command, ["--masks", str(tmp_path / "m.csv"), "--out", str(tmp_path / "x.txt")])
    assert result.exit_code == 2 and ".parquet or .csv" in result.output
    result = run.invoke(command, ["--masks", str(tmp_path / "m.csv"), "--out", str(tmp_path / "x.csv"), "--scheduler", "moon"])
    assert result.exit_code == 2 and "scheduler" in result.output


def test_parts_are_not_written_over_each_other(stores, tmp_path):
    run = CliRunner()
    (tmp_path / "B").mkdir()
    twin = write_store(tmp_path / "B" / "s0000.zarr", [eye("p", 4)])
    result = run.invoke(command, ["--store", str(stores[0]), "--store", str(twin), "--out", str(tmp_path / "parts"), "--quiet"])
    assert result.exit_code == 2 and not (tmp_path / "parts").exists()
    for words in (str(stores[0]), str(twin), "s0000.parquet", "rename one"):
        assert words in result.output, words


def test_a_part_is_no_csv(stores, tmp_path):
    run = CliRunner()
    arguments = ["--store", str(stores[1]), "--scheduler", "synchronous", "--quiet", "--out"]
    result = run.invoke(command, [*arguments, str(tmp_path / "b.csv")])
    assert result.exit_code == 2 and "ends in .parquet" in result.output and not (tmp_path / "b.csv").exists()
    (tmp_path / "taken").touch()
    assert run.invoke(command, [*arguments, str(tmp_path / "taken")]).exit_code == 2
    assert run.invoke(command, [*arguments, str(tmp_path / "study.v2")]).exit_code == 0
    assert (tmp_path / "study.v2" / "s0001.parquet").is_file()


def test_graphs_count_the_photographs_without_masks(stores, tmp_path):
    graphs_of = ["--graphs", str(tmp_path / "graphs"), "--out", str(tmp_path / "p.parquet"), "--scheduler", "synchronous", "--quiet"]
    result = CliRunner().invoke(command, ["--store", str(stores[0]), *graphs_of])
    assert result.exit_code == 0, result.output
    assert pd.read_csv(tmp_path / "graphs" / "_failures.csv").to_dict("records") == [
        {"image_id": "c", "reason": "unreadable", "detail": "not a picture"}
    ]


def test_calibration_by_command():
    run = CliRunner()
    assert float(run.invoke(command, ["calibrate", "--disc-diameter-px", "200"]).output) == pytest.approx(9.0)
    value = float(run.invoke(command, ["calibrate", "--fov-diameter-px", "1000", "--field-degrees", "45"]).output)
    assert value == pytest.approx(1000 * 0.01306 * (23.8 - 1.82) * 45 / 1000, abs=1e-3)
    assert run.invoke(command, ["calibrate"]).exit_code == 2


def test_metadata_of_a_part_names_what_it_came_from(parts):
    stored = json.loads(pq.read_schema(parts[0]).metadata[b"retsam"])
    assert set(stored) == {"store", "settings", "retsam"}


def test_a_graph_that_cannot_be_built_is_a_row(tmp_path, monkeypatch):
    good, bad = eye("good", 1), eye("=bad", 2)
    real = graphs.graph_table
    monkeypatch.setattr(graphs, "graph_table", lambda masks, config: 1 / 0 if masks.image_id == "=bad" else real(masks, config))
    written = graphs.write_graphs([bad, good], tmp_path)
    assert [path.stem for path in written] == ["good"]
    assert pd.read_csv(tmp_path / "_failures.csv").to_dict("records") == [
        {"image_id": "'=bad", "reason": "graph_failed", "detail": "ZeroDivisionError: division by zero"}
    ]


def test_graphs_of_a_folder_are_one_table_though_an_eye_shows_no_vessels(tmp_path):
    bare, other = eye("a_bare", 1), eye("_b", 2)
    for masks in (bare, other):
        masks.planes["artery"] = np.zeros_like(masks.fov)
        masks.status["artery"] = "supervised"
    middle = len(other.fov) // 2
    other.planes["artery"][middle - 4 : middle + 4, middle - 100 : middle + 100] = True
    graphs.write_graphs([bare, other, Failure("c", "unreadable", "not a picture")], tmp_path)
    table = pd.read_parquet(tmp_path)
    assert set(table["image_id"]) == {"_b"} and list(table.columns) == graphs.SCHEMA.names
    assert pq.read_schema(tmp_path / "a_bare.parquet").equals(pq.read_schema(tmp_path / "%5Fb.parquet"))
