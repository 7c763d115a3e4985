from __future__ import annotations

import itertools
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bench.store
from bench.errors import StoreError
from bench.storage import Storage, replace_file
from bench.store import COLUMNS, SCHEMA, SCHEMA_VERSION, Store

FIXTURES = Path(__file__).parent / "stored_parts"


def row(identity: str = "a" * 64, **values: Any) -> dict[str, Any]:
    return {
        "origin": "measured",
        "kind": "evaluation",
        "status": "ok",
        "identity": identity,
        "cell": f"cell of {identity[:1]}",
        "metric": "top1",
        "value": 50.0,
        "n": 10,
        "seed": 0,
        "started_at": "2026-01-01T00:00:00",
        "finished_at": "2026-01-01T00:00:01",
        **values,
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "my store"))


def reopened(store: Store) -> Store:
    return Store(store.storage.url)


def part_files(store: Store) -> list[Path]:
    assert store.storage.local_folder is not None
    return sorted((store.storage.local_folder / "parts").glob("*.parquet"))


def test_an_empty_store_has_an_empty_frame_with_all_columns(store: Store) -> None:
    assert list(store.frame().columns) == list(COLUMNS) and store.frame().empty


def test_rows_come_back_as_they_were_written(store: Store) -> None:
    store.write_rows([row(value=12.5, low=None, n=3), row(metric="top5", value=99.0)])
    frame = reopened(store).frame()
    assert frame[["metric", "value"]].to_numpy().tolist() == [["top1", 12.5], ["top5", 99.0]]
    assert frame.loc[0, "n"] == 3 and pd.isna(frame.loc[0, "low"])
    assert frame["seed"].dtype == "Int64" and frame.loc[0, "error_type"] == ""
    assert set(frame["schema_version"]) == {SCHEMA_VERSION}


def test_an_unknown_column_or_no_row_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match=r"need known columns, got \['accuracy'\]"):
        store.write_rows([row(accuracy=1.0)])
    with pytest.raises(StoreError, match="no rows at all"):
        store.write_rows([])


def test_the_newest_success_wins_in_every_order_of_the_parts(tmp_path: Path) -> None:
    attempts = [
        row(value=1.0, finished_at="2026-01-01T00:00:01"),
        row(value=2.0, finished_at="2026-01-02T00:00:01"),
        row(status="failed", metric="", value=None, finished_at="2026-01-03T00:00:01"),
    ]
    for number, order in enumerate(itertools.permutations(attempts)):
        store = Store(str(tmp_path / str(number)))
        for attempt in order:
            store.write_rows([attempt])
        frame = store.frame()
        assert frame[["status", "value"]].to_numpy().tolist() == [["ok", 2.0]]


def test_a_failure_is_a_row_until_a_success_replaces_it(store: Store) -> None:
    store.write_rows([row(status="failed", metric="", value=None, error_type="ValueError", error_message="bad")])
    assert store.frame()[["status", "error_type"]].to_numpy().tolist() == [["failed", "ValueError"]]
    store.write_rows([row(), row(metric="top5")])
    assert store.frame()["status"].tolist() == ["ok", "ok"]


def test_a_part_of_an_older_attempt_leaves_no_metric_behind(store: Store) -> None:
    store.write_rows([row(), row(metric="retired")])
    store.write_rows([row(finished_at="2026-02-01T00:00:00")])
    assert store.frame()["metric"].tolist() == ["top1"]


@pytest.mark.parametrize("position", [0, 3, 40, -300, -60, -5, -1])
def test_one_flipped_byte_anywhere_quarantines_the_part_and_names_it(store: Store, position: int) -> None:
    store.write_rows([row()])
    store.write_rows([row("b" * 64)])
    damaged = part_files(store)[0]
    content = bytearray(damaged.read_bytes())
    content[position] ^= 0x01
    damaged.write_bytes(content)
    fresh = reopened(store)
    assert fresh.frame()["identity"].tolist() == ["b" * 64]
    (problem,) = fresh.problems
    assert problem.name == f"parts/{damaged.name}" and "do not match the checksum" in problem.reason
    assert fresh.storage.local_folder is not None
    quarantine = fresh.storage.local_folder / "quarantine"
    assert {path.name for path in quarantine.iterdir()} == {damaged.name, f"{damaged.name}.reason.txt"}
    assert not reopened(store).frame().empty and not reopened(store).problems


def write_foreign_part(store: Store, table: pa.Table) -> None:
    store._write_part("foreign", table)


def test_a_part_without_the_schema_is_quarantined(store: Store) -> None:
    write_foreign_part(store, pa.table({"x": [1]}))
    write_foreign_part(store, pa.table({"schema_version": [SCHEMA_VERSION], "x": [1]}))
    assert store.frame().empty
    assert sorted(problem.reason.split(" ")[1] for problem in store.problems) == ["does", "lacks"]


def test_a_part_of_a_newer_version_is_refused_and_left_alone(store: Store) -> None:
    write_foreign_part(store, pa.table({"schema_version": [SCHEMA_VERSION + 1]}))
    with pytest.raises(StoreError, match=r"written by a newer jointbench \(schema 2, this one knows 1\). Upgrade"):
        store.frame()
    assert len(part_files(store)) == 1


def test_an_older_version_is_migrated_step_by_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_rows([row(value=0.5)])
    to_percent = {SCHEMA_VERSION: lambda t: t.set_column(t.column_names.index("value"), "value", pa.array([50.0]))}
    monkeypatch.setattr(bench.store, "MIGRATIONS", to_percent)
    monkeypatch.setattr(bench.store, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    assert reopened(store).frame()["value"].tolist() == [50.0]


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_a_stored_part_of_every_version_is_still_read(store: Store, version: int) -> None:
    content = (FIXTURES / f"v{version}.parquet").read_bytes()
    write_foreign_part(store, pq.read_table(pa.BufferReader(content)))
    frame = store.frame()
    assert not store.problems
    assert frame[["method", "metric", "value"]].to_numpy().tolist() == [
        ["vicreg", "top1", 91.5],
        ["vicreg", "top5", 99.5],
    ]
    assert frame.loc[0, "pretrain_epochs"] == 40 and frame.loc[0, "error_type"] == ""


def test_the_schema_has_no_column_twice_and_the_fixture_covers_all() -> None:
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert pq.read_schema(FIXTURES / f"v{SCHEMA_VERSION}.parquet").names == SCHEMA.names


def test_compaction_keeps_every_current_row_and_drops_the_rest(store: Store) -> None:
    for day in range(1, 4):
        store.write_rows([row(value=float(day), finished_at=f"2026-01-0{day}T00:00:00")])
    store.write_rows([row("b" * 64, status="failed", metric="", value=None)])
    before = store.frame()
    assert store.compact() == (4, 1)
    assert len(part_files(store)) == 1
    pd.testing.assert_frame_equal(reopened(store).frame(), before)
    assert store.compact() == (1, 1)


def test_the_digest_follows_the_content(store: Store) -> None:
    empty = store.digest()
    store.write_rows([row()])
    first = store.digest()
    assert first != empty and reopened(store).digest() == first
    store.write_rows([row("b" * 64)])
    assert store.digest() != first


def test_side_files_come_back_and_damage_is_set_aside(store: Store) -> None:
    frame = pd.DataFrame({"sample": [3, 4], "label": [0, 1]})
    store.write_predictions("a" * 64, frame)
    pd.testing.assert_frame_equal(store.predictions("a" * 64), frame)
    assert store.predictions("b" * 64) is None and store.history(["b" * 64]).empty
    store.storage.write(f"history/{'a' * 64}.parquet", b"not parquet")
    assert store.history(["a" * 64]).empty and "not a readable Parquet" in store.problems[0].reason


def test_an_encoder_is_believed_only_with_its_checksum(store: Store) -> None:
    store.write_pretrained("a" * 64, {"row": {"x": 1}}, b"weights")
    manifest, weights = store.pretrained("a" * 64) or ({}, b"")
    assert weights == b"weights" and manifest["row"] == {"x": 1}
    store.storage.write(f"objects/{manifest['object']}", b"Weights")
    assert store.pretrained("a" * 64) is None
    assert "do not match their checksum" in store.problems[0].reason
    assert store.pretrained("a" * 64) is None and len(store.problems) == 1


def test_equal_weights_are_kept_once(store: Store) -> None:
    store.write_pretrained("a" * 64, {}, b"weights")
    store.write_pretrained("b" * 64, {}, b"weights")
    assert len(store.storage.names("objects", "")) == 1


def test_verify_finds_what_is_damaged(store: Store) -> None:
    store.write_rows([row()])
    store.frame()
    assert store.verify() == []
    part_files(store)[0].write_bytes(b"PAR1")
    (problem,) = store.verify()
    assert problem.name.startswith("parts/")


def test_the_store_works_on_another_file_system() -> None:
    store = Store("memory://bucket/results")
    store.write_rows([row()])
    store.write_pretrained("a" * 64, {}, b"weights")
    assert Store("memory://bucket/results").frame()["value"].tolist() == [50.0]
    assert store.pretrained("a" * 64) is not None
    with store.storage.claim("job") as mine:
        assert mine


def test_an_unusable_url_says_what_to_give() -> None:
    with pytest.raises(StoreError, match="cannot be opened as a store"):
        Storage("no-such-protocol://x")


def test_a_store_below_a_file_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot"):
        Store(str(tmp_path / "file")).frame()


def write_many(url: str, start: int) -> None:
    store = Store(url)
    for number in range(start, start + 20):
        store.write_rows([row(f"{number:064d}")])


def test_processes_write_at_once_without_losing_a_row(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(store.storage.url, 20 * n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert store.frame()["identity"].tolist() == [f"{number:064d}" for number in range(60)]


def test_a_claim_is_exclusive_and_ends_with_its_holder(store: Store) -> None:
    other = reopened(store)
    with store.storage.claim("job") as mine:
        assert mine
        with other.storage.claim("job") as theirs:
            assert not theirs
        with other.storage.claim("another") as theirs:
            assert theirs
    with other.storage.claim("job") as theirs:
        assert theirs


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")

    def crash(_: int) -> None:
        raise OSError("power is gone")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="power is gone"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_compaction_sweeps_what_killed_writers_left_but_not_what_is_being_written(store: Store) -> None:
    store.write_rows([row()])
    assert store.storage.local_folder is not None
    old, new = (store.storage.local_folder / "parts" / f".{name}.tmp" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    assert store.frame()["value"].tolist() == [50.0]
    store.compact()
    assert not old.exists() and new.exists()


@pytest.mark.parametrize("position", [200, 400, -400])
def test_a_flipped_byte_in_predictions_is_noticed(store: Store, position: int) -> None:
    frame = pd.DataFrame({"sample": range(1000), "score": [float(n) ** 0.5 for n in range(1000)]})
    store.write_predictions("a" * 64, frame)
    assert store.storage.local_folder is not None
    path = store.storage.local_folder / "predictions" / f"{'a' * 64}.parquet"
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)
    found = store.predictions("a" * 64)
    assert found is None or found.equals(frame)
    assert (found is None) == bool(store.problems)


def test_parts_joined_while_the_store_is_read_are_not_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for identity in "abc":
        store.write_rows([row(identity * 64)])
    reader, real = reopened(store), Storage.read

    def read_while_another_process_joins(self: Storage, name: str) -> bytes | None:
        monkeypatch.setattr(Storage, "read", real)
        store.compact()
        return self.read(name)

    monkeypatch.setattr(Storage, "read", read_while_another_process_joins)
    assert len(reader.frame()) == 3


def test_an_unwritable_store_is_one_message() -> None:
    store = Store("/proc/no-such-store")
    with pytest.raises(StoreError, match="cannot write"), store.storage.claim("job"):
        pass
    with pytest.raises(StoreError, match="cannot write"):
        store.write_rows([row()])
