"""Claims about records on disk."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from sublab import records
from sublab.records import RecordError

CONFIG = {"experiment": "trial", "seed": 0, "hidden": [256, 256]}
TABLE = pl.DataFrame({"run": [0, 1], "accuracy": [0.5, 0.25]})
PROVENANCE = {"versions": {"jax": "0"}}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results"


def write(out, config=CONFIG, table=TABLE, experiment="trial"):
    return records.write(out, experiment, config, table, PROVENANCE)


def found(out, config=CONFIG):
    said: list[str] = []
    return records.find(out, "trial", config, said.append), said


def test_what_was_written_is_read(out):
    record = write(out)
    assert record.folder == out / "trial" / records.config_hash(CONFIG)
    assert sorted(p.name for p in record.folder.iterdir()) == [
        "config.json",
        "provenance.json",
        "table.parquet",
    ]
    again, said = found(out)
    assert again is not None
    assert again.table.equals(TABLE)
    assert again.config == CONFIG
    assert again.provenance["versions"] == PROVENANCE["versions"]
    assert said == []


def test_the_hash_depends_on_every_setting_and_not_on_their_order():
    assert records.config_hash(CONFIG) == records.config_hash(dict(reversed(CONFIG.items())))
    assert records.config_hash(CONFIG) != records.config_hash(CONFIG | {"seed": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        records.config_hash(CONFIG | {"seed": float("nan")})


def test_absent_is_none(out):
    assert found(out) == (None, [])


@pytest.mark.parametrize("name", ["config.json", "table.parquet", "provenance.json"])
@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "a bit flipped"])
def test_damage_to_any_file_is_seen_told_and_moved_aside(out, name, how):
    path = write(out).folder / name
    content = path.read_bytes()
    path.unlink()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "a bit flipped" and name == "provenance.json":
        path.write_bytes(content.replace(b'"table_sha256": "', b'"table_sha256": "0'))
    elif how == "a bit flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    with pytest.raises(RecordError, match="damaged record") as caught:
        records.read(path.parent)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)
    record, said = found(out)
    assert record is None
    assert len(said) == 1
    assert "damaged record" in said[0]
    assert not path.parent.exists()
    assert len(list((out / "trial").glob(".damaged-*"))) == 1
    assert write(out).table.equals(TABLE)


def test_a_record_in_a_folder_of_another_name_is_damaged(out):
    folder = write(out).folder
    moved = folder.rename(folder.parent / ("0" * 16))
    with pytest.raises(RecordError, match="does not match its folder"):
        records.read(moved)


def test_of_writers_at_once_one_wins_and_nothing_is_left_over(out):
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda _: write(out), range(8)))
    assert {record.folder for record in written} == {written[0].folder}
    assert [path.name for path in (out / "trial").iterdir()] == [written[0].folder.name]


def test_a_good_record_is_not_replaced_and_a_damaged_one_is(out):
    folder = write(out).folder
    stamp = (folder / "table.parquet").stat().st_mtime_ns
    write(out)
    assert (folder / "table.parquet").stat().st_mtime_ns == stamp
    (folder / "table.parquet").write_bytes(b"damaged")
    assert write(out).table.equals(TABLE)


def test_a_writer_that_fails_leaves_nothing(out, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RecordError, match=r"cannot be written \(No space left on device\)"):
        write(out)
    assert list((out / "trial").iterdir()) == []


def test_scan_is_one_table_over_every_experiment(out):
    write(out)
    write(out, {"experiment": "other"}, pl.DataFrame({"loss": [1.0]}), experiment="other")
    table = records.scan(out)
    assert isinstance(table, pl.LazyFrame)
    rows = table.collect().sort("experiment")
    assert rows["experiment"].to_list() == ["other", "trial", "trial"]
    assert rows["accuracy"].to_list() == [None, 0.5, 0.25]
    assert rows["record"][1] == records.config_hash(CONFIG)


def test_scan_trusts_no_damaged_record_and_passes_over_what_is_no_record(out):
    folder = write(out).folder
    (out / "figures").mkdir()
    (out / "figures" / "a.png").write_bytes(b"")
    (out / "notes.txt").write_text("mine")
    assert len(records.scan(out).collect()) == 2
    (folder / "table.parquet").write_bytes(b"damaged")
    with pytest.raises(RecordError, match="damaged record"):
        records.scan(out)


def test_a_table_with_a_column_that_scan_adds_is_refused(out):
    with pytest.raises(ValueError, match="experiment"):
        write(out, table=TABLE.with_columns(experiment=pl.lit("x")))


def test_scan_of_nothing_says_so(out):
    with pytest.raises(RecordError, match="no records here"):
        records.scan(out)


def test_read_all_gives_the_oldest_first(out):
    for seed in (3, 1, 2):
        os.utime(write(out, CONFIG | {"seed": seed}).folder, (seed, seed))
    assert [record.config["seed"] for record in records.read_all(out, "trial")] == [1, 2, 3]
    assert records.read_all(out, "absent") == []


def test_prepare_makes_the_folder_and_refuses_a_file(out, tmp_path):
    records.prepare(out)
    assert list(out.iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RecordError, match="must be a folder"):
            records.prepare(path)


def test_prepare_refuses_a_read_only_folder(readable_tmp, unprivileged):
    with pytest.raises(RecordError, match="cannot be written"):
        records.prepare(readable_tmp)
    with pytest.raises(RecordError, match="cannot be written"):
        records.prepare(readable_tmp / "below")


def test_prepare_sweeps_what_killed_writers_left_and_nothing_else(out):
    kept = write(out).folder
    old, fresh = (out / "trial" / f".0123456789abcdef.{name}" for name in ("old", "fresh"))
    for folder in (old, fresh):
        folder.mkdir()
    long_ago = time.time() - 2 * 3600
    os.utime(old, (long_ago, long_ago))
    os.utime(kept, (long_ago, long_ago))
    others = [out / "trial" / name for name in (".damaged-0123456789abcdef-0", ".users.own")]
    for folder in others:
        folder.mkdir()
        os.utime(folder, (long_ago, long_ago))
    records.prepare(out)
    assert set((out / "trial").iterdir()) == {fresh, kept, *others}


def test_files_are_plain_json_and_parquet(out):
    folder = write(out).folder
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert pl.read_parquet(folder / "table.parquet").equals(TABLE)


# --- attached files -----------------------------------------------------------------------------

MODEL = {"model.safetensors": bytes(range(256))}


def test_an_attached_file_is_read_by_name_and_not_with_the_table(out, monkeypatch):
    folder = records.write(out, "trial", CONFIG, TABLE, PROVENANCE, MODEL).folder
    assert records.read_file(folder, "model.safetensors") == MODEL["model.safetensors"]
    opened = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or read_bytes(path))
    records.read(folder)
    records.scan(out).collect()
    assert opened
    assert not any(path.suffix == ".safetensors" for path in opened)


@pytest.mark.parametrize("damage", [b"", bytes(range(255))])
def test_a_damaged_file_is_seen_when_it_is_read_and_the_table_is_not_lost(out, damage):
    folder = records.write(out, "trial", CONFIG, TABLE, PROVENANCE, MODEL).folder
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(RecordError, match=r"damaged record \(model.safetensors does not match"):
        records.read_file(folder, "model.safetensors")
    assert records.read(folder).table.equals(TABLE)
    records.write(out, "trial", CONFIG, TABLE, PROVENANCE, MODEL)
    assert records.read_file(folder, "model.safetensors") == MODEL["model.safetensors"]


def test_a_file_that_was_not_kept_is_told_and_may_be_added(out):
    folder = write(out).folder
    with pytest.raises(RecordError, match=r"no file model\.safetensors was kept"):
        records.read_file(folder, "model.safetensors")
    stamp = (folder / "table.parquet").stat().st_mtime_ns
    records.write(out, "trial", CONFIG, TABLE, PROVENANCE, MODEL)
    assert records.read_file(folder, "model.safetensors") == MODEL["model.safetensors"]
    assert (folder / "table.parquet").stat().st_mtime_ns == stamp
    assert records.read(folder).provenance["versions"] == PROVENANCE["versions"]


def test_a_file_that_is_gone_is_told(out):
    folder = records.write(out, "trial", CONFIG, TABLE, PROVENANCE, MODEL).folder
    (folder / "model.safetensors").unlink()
    with pytest.raises(RecordError, match=r"model.safetensors: No such file"):
        records.read_file(folder, "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "measures", "../escape", ".hidden", ""])
def test_a_file_of_a_name_that_is_taken_or_leads_elsewhere_is_refused(out, name):
    with pytest.raises(ValueError, match="must not be called"):
        records.write(out, "trial", CONFIG, TABLE, PROVENANCE, {name: b""})
    assert not out.exists()


# --- later measurements -------------------------------------------------------------------------

ROW = TABLE[:1]


def test_a_later_measurement_is_further_columns_of_read_and_scan(out):
    folder = write(out, table=ROW).folder
    other = write(out, CONFIG | {"seed": 1}, ROW).folder
    records.extend(folder, "cka", {"cka": [0.5, 1.0], "layers": 2, "missing": None})
    records.extend(folder, "kl", {"kl": 1e-300 / 3, "worst": float("inf")})
    row = records.read(folder).table.to_dicts()[0]
    expected = {"cka": [0.5, 1.0], "layers": 2, "missing": None, "kl": 1e-300 / 3}
    assert row == ROW.to_dicts()[0] | expected | {"worst": float("inf")}
    table = records.scan(out).collect()
    by_record = {row.pop("record"): row for row in table.to_dicts()}
    assert by_record[folder.name]["cka"] == [0.5, 1.0]
    assert by_record[folder.name]["accuracy"] == 0.5
    assert by_record[other.name]["cka"] is None


def test_what_some_measured_at_once_and_others_later_is_one_column(out):
    write(out, table=ROW.with_columns(kl=pl.lit(0.25)))
    records.extend(write(out, CONFIG | {"seed": 1}, ROW).folder, "kl", {"kl": 0.75})
    assert sorted(records.scan(out).collect()["kl"]) == [0.25, 0.75]


def test_a_measurement_replaces_itself_and_no_other_column(out):
    folder = write(out, table=ROW).folder
    records.extend(folder, "kl", {"kl": 1.0})
    records.extend(folder, "kl", {"kl": 2.0})
    assert records.read(folder).table["kl"].to_list() == [2.0]
    for name, column in (("other", "kl"), ("other", "accuracy"), ("other", "record")):
        with pytest.raises(ValueError, match="are there already"):
            records.extend(folder, name, {column: 3.0})


@pytest.mark.parametrize("content", ["", "{", "{}", '{"sha256": "0", "content": "{}"}'])
def test_a_damaged_measurement_is_told_dropped_and_costs_nothing_else(out, content):
    folder = write(out, table=ROW).folder
    records.extend(folder, "cka", {"cka": 0.5})
    records.extend(folder, "kl", {"kl": 1.0})
    (folder / "measures" / "kl.json").write_text(content)
    with pytest.raises(records.MeasureError, match="damaged measurement"):
        records.read(folder)
    with pytest.raises(RecordError, match="damaged measurement"):
        records.scan(out)
    record, said = found(out)
    assert record is not None
    assert len(said) == 1
    assert record.table.columns == [*ROW.columns, "cka"]
    assert records.read(folder).table.columns == [*ROW.columns, "cka"]


def test_a_writer_that_comes_second_does_not_stumble_over_a_damaged_measurement(out):
    folder = write(out, table=ROW).folder
    records.extend(folder, "kl", {"kl": 1.0})
    (folder / "measures" / "kl.json").write_text("")
    assert write(out, table=ROW).table.equals(ROW)


def test_measurements_are_of_one_row_and_have_plain_names(out):
    with pytest.raises(ValueError, match="of one row"):
        records.extend(write(out).folder, "kl", {"kl": 1.0})
    with pytest.raises(ValueError, match="must not be called"):
        records.extend(write(out, CONFIG | {"seed": 1}, ROW).folder, "../kl", {"kl": 1.0})


def test_many_may_measure_at_once(out):
    folder = write(out, table=ROW).folder
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: records.extend(folder, f"m{i}", {f"m{i}": i}), range(16)))
    assert records.read(folder).table.width == 2 + 16
    assert not [path for path in (folder / "measures").iterdir() if path.name.startswith(".")]


# --- records of many schemas, and of older versions ---------------------------------------------


def test_scan_of_many_schemas_is_what_reading_one_by_one_gives(out):
    for number in range(12):
        extra = pl.lit(float(number)).alias(f"only {number % 3}")
        table = TABLE.with_columns(extra) if number % 2 else TABLE[:1].with_columns(run=pl.lit(1.5))
        folder = write(out, CONFIG | {"seed": number}, table).folder
        if number % 5 == 0:
            path = folder / "provenance.json"
            older = json.loads(path.read_text())
            del older["table_rows"], older["table_schema"], older["files"]
            path.write_text(json.dumps(older))
    one_by_one = [
        record.table.select(
            pl.lit("trial").alias("experiment"),
            pl.lit(record.folder.name).alias("record"),
            pl.all(),
        )
        for record in records.read_all(out, "trial")
    ]
    expected = pl.concat(one_by_one, how="diagonal_relaxed")
    table = records.scan(out).collect().select(expected.columns)
    keys = ["record", "accuracy"]
    assert table.sort(keys).equals(expected.sort(keys))
