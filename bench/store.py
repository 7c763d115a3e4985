"""The result store: one Parquet part per finished job, folded into one tidy frame.

    parts/        one file per finished job, named by the job and by the SHA-256 of its own bytes
    predictions/  per-sample predictions of an evaluation
    history/      loss terms and diagnostics of a pre-training, by epoch
    pretrained/   one manifest per pre-training, naming its objects
    objects/      encoder weights, named by the SHA-256 of their bytes
    imports/      encoders from files of the user's: in which suite, on which data, under which name
    resume/       unfinished trainings
    quarantine/   parts that failed their checksum or schema, with the reason

A file is replaced whole or not at all and there is no shared writer, so any number of processes write at once.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import CorruptPartError, StoreError
from bench.storage import Storage

SCHEMA_VERSION = 1

_TEXT, _REAL, _WHOLE = pa.string(), pa.float64(), pa.int64()
SCHEMA = pa.schema(
    [
        ("schema_version", _WHOLE),
        *((name, _TEXT) for name in ("origin", "kind", "status", "identity", "cell", "suite", "method", "backbone")),
        ("pretrain_data", _TEXT),
        ("pretrain_epochs", _WHOLE),
        *((name, _TEXT) for name in ("protocol", "variant", "eval_data")),
        ("label_fraction", _REAL),
        ("seed", _WHOLE),
        ("metric", _TEXT),
        *((name, _REAL) for name in ("value", "low", "high")),
        ("n", _WHOLE),
        *((name, _TEXT) for name in ("interval", "covers", "error_type", "error_message", "log")),
        *((name, _TEXT) for name in ("spec_hash", "code_hash", "data_hash", "pretrain_identity")),
        *((name, _TEXT) for name in ("spec", "code", "provenance", "details", "started_at", "finished_at")),
        *((f"seconds_{part}", _REAL) for part in ("total", "data", "compute", "evaluation")),
        ("peak_memory_mb", _REAL),
        ("images_per_second", _REAL),
    ]
)
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)

MIGRATIONS: dict[int, Callable[[pa.Table], pa.Table]] = {}
"""``MIGRATIONS[v]`` turns a part of schema version v into version v + 1."""


@dataclass(frozen=True)
class Problem:
    """Something in the store that was set aside: its name and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"Quarantined {self.name}: {self.reason}. What it held will be computed again."


class Store:
    """The results under one URL."""

    def __init__(self, url: str) -> None:
        self.storage = Storage(url)
        self.problems: list[Problem] = []
        self._tables: dict[str, pa.Table] = {}

    # --- rows ---------------------------------------------------------------------------------------------------

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write one job's rows as a part; returns its name.

        Raises:
            StoreError: a row has an unknown column, or the part cannot be written.
        """
        unknown = {name for row in rows for name in row} - set(COLUMNS)
        if unknown or not rows:
            raise StoreError(f"A job's rows need known columns, got {sorted(unknown) or 'no rows at all'}.")
        complete = [{**row, "schema_version": SCHEMA_VERSION} for row in rows]
        table = pa.Table.from_pylist(complete, schema=SCHEMA)
        return self._write_part(str(rows[0]["identity"])[:16], table)

    def _write_part(self, stem: str, table: pa.Table) -> str:
        content = _to_parquet(table)
        name = f"parts/{stem}-{hashlib.sha256(content).hexdigest()[:32]}.parquet"
        self.storage.write(name, content)
        return name

    def frame(self) -> pd.DataFrame:
        """All current rows: for each job its newest success, else its newest failure.

        A part that fails its checksum or schema is moved to quarantine and listed in ``problems``.
        """
        while not self._read_parts(self.storage.names("parts", ".parquet")):
            continue  # another process has joined parts since they were listed
        tables = [self._tables[name] for name in sorted(self._tables)]
        table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        return _fold(_to_frame(table))

    def _read_parts(self, names: Sequence[str]) -> bool:
        """Read what is new among ``names``; False when one of them is gone."""
        self._tables = {name: table for name, table in self._tables.items() if name in names}
        for name in names:
            if name in self._tables:
                continue
            content = self.storage.read(name)
            if content is None:
                return False
            try:
                self._tables[name] = self._parse_part(name, content)
            except CorruptPartError as error:
                self._quarantine(name, str(error))
        return True

    def _parse_part(self, name: str, content: bytes) -> pa.Table:
        if hashlib.sha256(content).hexdigest()[:32] != name.rsplit("-", 1)[-1].removesuffix(".parquet"):
            raise CorruptPartError("its bytes do not match the checksum in its name")
        try:
            table = pq.read_table(io.BytesIO(content))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise CorruptPartError(f"not a readable Parquet file: {error}") from error
        return _migrate(table, name)

    def _quarantine(self, name: str, reason: str) -> None:
        leaf = name.split("/")[-1]
        self.storage.write(f"quarantine/{leaf}.reason.txt", f"{name}: {reason}\n".encode())
        self.storage.move(name, f"quarantine/{leaf}")
        self.problems.append(Problem(name, reason))

    # --- side files ---------------------------------------------------------------------------------------------

    def write_predictions(self, identity: str, predictions: pd.DataFrame) -> None:
        self._write_side("predictions", identity, predictions)

    def predictions(self, identity: str) -> pd.DataFrame | None:
        """Per-sample predictions of an evaluation, or None when the store has none."""
        return self._read_side(f"predictions/{identity}.parquet")

    def write_history(self, identity: str, history: pd.DataFrame) -> None:
        self._write_side("history", identity, history)

    def history(self, identities: Iterable[str]) -> pd.DataFrame:
        """Loss terms and diagnostics by epoch of the given pre-trainings, in one tidy frame."""
        frames = [self._read_side(f"history/{identity}.parquet") for identity in identities]
        present = [frame for frame in frames if frame is not None]
        return pd.concat(present, ignore_index=True) if present else pd.DataFrame()

    def _write_side(self, folder: str, identity: str, frame: pd.DataFrame) -> None:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        self.storage.write(f"{folder}/{identity}.parquet", _to_parquet(table))

    def _read_side(self, name: str) -> pd.DataFrame | None:
        content = self.storage.read(name)
        if content is None:
            return None
        try:
            table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
            frame: pd.DataFrame = table.to_pandas()
        except (pa.ArrowException, OSError, ValueError) as error:
            self._quarantine(name, f"not a readable Parquet file: {error}")
            return None
        return frame

    # --- pretrained encoders ------------------------------------------------------------------------------------

    def write_pretrained(self, identity: str, manifest: Mapping[str, Any], weights: bytes) -> None:
        """Keep an encoder: its weights as an object named by content, then the manifest that names the object."""
        name = self.write_object(weights)
        text = json.dumps({**manifest, "object": name}, sort_keys=True, indent=1)
        self.storage.write(f"pretrained/{identity}.json", text.encode())

    def pretrained(self, identity: str) -> tuple[dict[str, Any], bytes] | None:
        """Manifest and weights of a finished pre-training; None when there is none, or it is damaged."""
        text = self.storage.read(f"pretrained/{identity}.json")
        if text is None:
            return None
        try:
            manifest: dict[str, Any] = json.loads(text)
            weights = self.storage.read(f"objects/{manifest['object']}")
        except (ValueError, KeyError) as error:
            self._quarantine(f"pretrained/{identity}.json", f"not a readable manifest: {error}")
            return None
        if weights is None or hashlib.sha256(weights).hexdigest() != manifest["object"]:
            self._quarantine(f"pretrained/{identity}.json", "its weights are missing or do not match their checksum")
            return None
        return manifest, weights

    def write_object(self, content: bytes) -> str:
        """Keep bytes under the name of their SHA-256; returns it."""
        name = hashlib.sha256(content).hexdigest()
        self.storage.write(f"objects/{name}", content)
        return name

    def object(self, name: str) -> bytes | None:
        """The bytes of this SHA-256; None when they are not there, or damaged."""
        content = self.storage.read(f"objects/{name}") if name else None
        return content if content is not None and hashlib.sha256(content).hexdigest() == name else None

    # --- imported encoders --------------------------------------------------------------------------------------

    def write_import(self, record: Mapping[str, Any]) -> None:
        """Remember that a suite shows an imported encoder; one record for each suite, dataset and name."""
        place = [record[field] for field in ("suite", "data", "name")]
        name = hashlib.sha256(json.dumps(place).encode()).hexdigest()[:32]
        self.storage.write(f"imports/{name}.json", json.dumps(record, sort_keys=True, indent=1).encode())

    def imports(self) -> list[dict[str, Any]]:
        """All records of imported encoders, by name; a damaged one goes to quarantine."""
        found = []
        for name in self.storage.names("imports", ".json"):
            text = self.storage.read(name)
            try:
                record = json.loads(text) if text is not None else None
                if record is not None:
                    found.append({field: record[field] for field in ("suite", "data", "name", "candidate")})
            except (ValueError, KeyError, TypeError) as error:
                self._quarantine(name, f"not a readable record of an import: {error}")
        return sorted(found, key=lambda record: (str(record["name"]), str(record["suite"]), str(record["data"])))

    # --- upkeep -------------------------------------------------------------------------------------------------

    def digest(self) -> str:
        """Changes exactly when the set of parts changes: part names carry their checksums."""
        return hashlib.sha256("\n".join(self.storage.names("parts", ".parquet")).encode()).hexdigest()

    def verify(self) -> list[Problem]:
        """Check every part and every encoder; damaged ones go to quarantine and are returned."""
        before = len(self.problems)
        self._tables.clear()
        self.frame()
        self.imports()
        for name in self.storage.names("pretrained", ".json"):
            self.pretrained(name.removeprefix("pretrained/").removesuffix(".json"))
        for folder in ("predictions", "history"):
            for name in self.storage.names(folder, ".parquet"):
                self._read_side(name)
        return self.problems[before:]

    def compact(self) -> tuple[int, int]:
        """Join all parts into one and drop rows that a newer part replaces; returns parts before and after.

        What killed writers left behind goes too.
        """
        self.storage.sweep()
        names = self.storage.names("parts", ".parquet")
        frame = self.frame()
        kept = [name for name in names if name in self._tables]
        if len(kept) < 2:
            return len(names), len(kept)
        table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
        joined = self._write_part("compacted", table)
        for name in kept:
            if name != joined:
                self.storage.delete(name)
        return len(names), 1


def _to_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def _migrate(table: pa.Table, name: str) -> pa.Table:
    """Bring a part to the present schema.

    Raises:
        CorruptPartError: the part has no version, a newer one, or lacks columns.
    """
    versions = set(table["schema_version"].to_pylist()) if "schema_version" in table.column_names else set()
    if len(versions) != 1:
        raise CorruptPartError("it does not carry one schema version")
    version = int(versions.pop())
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{name} was written by a newer jointbench (schema {version}, this one knows {SCHEMA_VERSION}). Upgrade."
        )
    while version < SCHEMA_VERSION:
        table = MIGRATIONS[version](table)
        version += 1
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        raise CorruptPartError(f"it lacks the columns {', '.join(missing)}")
    try:
        return table.select(list(COLUMNS)).cast(SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise CorruptPartError(f"its columns have other types than the schema: {error}") from error


def _to_frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True)
    for field in SCHEMA:
        if field.type == _WHOLE:
            frame[field.name] = frame[field.name].astype("Int64")
        elif field.type == _TEXT:
            frame[field.name] = frame[field.name].fillna("").astype(object)
    return frame


def _fold(rows: pd.DataFrame) -> pd.DataFrame:
    """One outcome per job: a success before a failure, then the newest; the order of the parts does not matter."""
    if rows.empty:
        return rows
    success = rows["status"].eq("ok")
    attempts = rows.assign(_success=success).sort_values(
        ["identity", "_success", "finished_at", "started_at"], ascending=[True, False, False, False], kind="stable"
    )
    first = attempts.groupby("identity", sort=False)[["_success", "finished_at", "started_at"]].transform("first")
    keep = (attempts[["_success", "finished_at", "started_at"]] == first).all(axis=1)
    kept = attempts[keep].drop(columns="_success").drop_duplicates(["identity", "metric"])
    return kept.sort_values(["cell", "identity", "metric"], kind="stable").reset_index(drop=True)
