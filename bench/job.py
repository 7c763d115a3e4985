"""One encoder's jobs: train it or load it, then evaluate it under each protocol; every outcome becomes rows."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.data.sources import DataSource
from bench.errors import DependencyError, JobError, StoreError, TrainingError
from bench.identity import Identity, manifest_changes, pretraining_identity
from bench.metric import TRAINING_LOSS
from bench.plan import PlannedCell
from bench.provenance import peak_memory_mb, reset_peak_memory
from bench.registry import Catalog
from bench.rows import base_row, json_text, now, score_rows
from bench.spec import PretrainSpec
from bench.store import Store

if TYPE_CHECKING:
    from bench.data.dataset import ImageDataset
    from bench.encoders.encoder import Encoder
    from bench.evaluation import Evaluator
    from bench.training.checkpoint import CheckpointFile
    from bench.training.history import HistoryRow, TrainingResult
    from bench.training.method import Method

MOST_SHOWN = 4
"""Values of an evaluation that progress prints; all are in the store."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One pre-training and the cells that evaluate its encoder: the unit that one worker computes."""

    suite: str
    spec: PretrainSpec
    identity: Identity
    cells: tuple[PlannedCell, ...]

    @property
    def fingerprint(self) -> str:
        """Of the data that it trains on, as planned."""
        return self.identity.data

    @property
    def training_job(self) -> str:
        """What progress calls the pre-training."""
        return f"{self.spec.name} seed {self.spec.seed}: pre-training"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Progress of one job, for whoever watches."""

    kind: Literal["started", "progress", "waiting", "finished", "failed"]
    job: str
    is_cell: bool = False
    text: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What a job works with: registered things, data, store, device.

    Attributes:
        scratch: local folder for unfinished trainings when the store is not local.
        devices: processes that share each pre-training and each evaluation, one device each.
        save_seconds: least time between two saves of an unfinished training.
    """

    catalog: Catalog
    source: DataSource
    store: Store
    scratch: Path
    device: str
    devices: int
    threads: int
    force: bool
    save_seconds: float
    notify: Callable[[Event], None]

    @property
    def unfinished(self) -> Path:
        """Folder of what was not finished: trainings and long evaluations."""
        return (self.store.storage.local_folder or self.scratch) / "resume"


Result = Literal["done", "elsewhere"]


def restore_training_rows(store: Store, cells: Iterable[PlannedCell]) -> None:
    """Write again the rows of finished pre-trainings whose part was lost: the encoder's manifest keeps them."""
    stored = set(store.frame()["identity"])
    for identity in {cell.pretraining.digest for cell in cells if cell.state == "fresh"} - stored:
        found = store.pretrained(identity)
        if found is not None:
            store.write_rows([found[0]["row"]])


def execute(bundle: Bundle, shop: Workshop, *, wait: bool) -> Result:
    """Compute what the store lacks of the bundle.

    Args:
        wait: when another run computes this encoder, wait for it; otherwise return ``"elsewhere"`` at once.
    """
    while True:
        with shop.store.storage.claim(bundle.identity.digest[:32]) as mine:
            if mine:
                _execute(bundle, shop)
                return "done"
        if not wait:
            shop.notify(Event(kind="waiting", job=bundle.training_job, text="another run is computing this"))
            return "elsewhere"
        time.sleep(0.5)


def _execute(bundle: Bundle, shop: Workshop) -> None:
    rows = shop.store.frame()
    answered = set() if shop.force else set(rows.loc[rows["status"] == "ok", "identity"])
    cells = [cell for cell in bundle.cells if cell.identity.digest not in answered]
    for cell in bundle.cells:
        if cell not in cells:
            shop.notify(Event(kind="finished", job=cell.address, is_cell=True, text="computed by another run"))
    if not cells:
        return
    encoder = _guarded(bundle, shop, lambda: _obtain_encoder(bundle, shop, answered))
    if not isinstance(encoder, Exception):
        _evaluate_all(bundle, cells, encoder, shop)
        return
    for cell in cells:
        reason = DependencyError(f"pre-training failed: {type(encoder).__name__}: {encoder}")
        write_failure(shop, bundle, cell, reason)


def _guarded(bundle: Bundle, shop: Workshop, work: Callable[[], Any]) -> Any:
    """Run a pre-training; an exception becomes a failed row, a log and the return value."""
    reset_peak_memory()
    try:
        return work()
    except StoreError:
        raise  # nothing can be kept, so there is no point in going on
    except (Exception, SystemExit) as raised:
        error = _as_error(raised)
        write_failure(shop, bundle, None, error)
        return error


def _as_error(raised: Exception | SystemExit) -> Exception:
    return raised if isinstance(raised, Exception) else JobError(f"it called sys.exit({raised.code!r})")


def write_failure(shop: Workshop, bundle: Bundle, cell: PlannedCell | None, error: Exception) -> None:
    """Keep a failed job as a row: class, message and the path of its log."""
    identity = cell.identity if cell else bundle.identity
    log = f"logs/{identity.digest[:32]}.log"
    trace = "" if isinstance(error, DependencyError) else "".join(traceback.format_exception(error))
    shop.store.storage.write(log, (trace or f"{error}\n").encode())
    row = base_row(bundle, cell, shop)
    row |= {
        "status": "failed",
        "metric": "",
        "error_type": type(error).__name__,
        "error_message": " ".join(str(error).split()) or "no message",
        "log": log,
        "finished_at": now(),
        "peak_memory_mb": peak_memory_mb(),
    }
    shop.store.write_rows([row])
    text = f"{row['error_type']}: {row['error_message']}"
    if isinstance(error, DependencyError):
        text = "its pre-training failed"  # the reason has just been shown
    job = cell.address if cell else bundle.training_job
    shop.notify(Event(kind="failed", job=job, is_cell=cell is not None, text=text))


# --- pre-training -----------------------------------------------------------------------------------------------


def _obtain_encoder(bundle: Bundle, shop: Workshop, answered: set[str]) -> Encoder:
    """The encoder of the bundle, always made from stored bytes: trained now or loaded, it is the same."""
    from bench.encoders.build import load_weights

    identity = bundle.identity.digest
    data = shop.source.load(bundle.spec.data)
    check_data(bundle.spec.data.label, data, bundle.fingerprint)
    _, encoder = untrained(bundle, shop.catalog, data)
    stored = shop.store.pretrained(identity)
    if stored is None:
        weights = _pretrain(bundle, shop, data)
    else:
        check_training_code(bundle, shop.catalog)
        manifest, weights = stored
        if identity not in answered:
            shop.store.write_rows([manifest["row"]])  # the run that trained it was killed before it wrote the row
    _resume_file(shop, identity).delete()
    load_weights(encoder.networks, weights, where=f"the weights of pre-training {identity[:12]}")
    return encoder


def untrained(bundle: Bundle, catalog: Catalog, data: ImageDataset) -> tuple[Method, Encoder]:
    """The method with initial weights, and the encoder that shares its backbone and projector."""
    from bench.encoders.build import initial_encoder
    from bench.training.pretraining import build_method

    backbone = catalog.backbones[bundle.spec.backbone]
    encoder = initial_encoder(backbone, bundle.spec, data, identity=bundle.identity.digest)
    return build_method(encoder, catalog.methods[bundle.spec.method].load(), bundle.spec, data)


def _pretrain(bundle: Bundle, shop: Workshop, data: ImageDataset) -> bytes:
    """Train, keep history, weights and row, in this order; returns the weights."""
    from bench.encoders.build import weights_to_bytes

    row = base_row(bundle, None, shop)
    started = time.perf_counter()
    model, encoder = untrained(bundle, shop.catalog, data)
    if bundle.spec.training is not None:
        try:
            result = _train(bundle, shop, data, model, encoder)
        except TrainingError as error:  # its curves are the evidence
            _keep_history(bundle, shop, error.history)
            raise
        _keep_history(bundle, shop, result.history)
        row |= _training_columns(result)
    if bundle.spec.imported:
        _fill_imported(bundle, shop, encoder)
    weights = weights_to_bytes(encoder.networks)
    row |= {
        "status": "ok",
        "finished_at": now(),
        "seconds_total": time.perf_counter() - started,
        "peak_memory_mb": peak_memory_mb(),
    }
    shop.store.write_pretrained(bundle.identity.digest, {"row": row}, weights)
    shop.store.write_rows([row])
    if bundle.spec.training is not None:
        shop.notify(Event(kind="finished", job=bundle.training_job, text=f"{row['seconds_total']:.0f} s"))
    return weights


def _fill_imported(bundle: Bundle, shop: Workshop, encoder: Encoder) -> None:
    """Give the encoder the weights of the user's file, which the store keeps by their digest.

    Raises:
        JobError: the store does not have them.
    """
    from bench.encoders.build import load_weights

    weights = shop.store.object(str(bundle.spec.method_params["weights"]))
    if weights is None:
        raise JobError(
            f"The store has no weights of the imported encoder {bundle.spec.variant!r}. "
            f"Give its file again: jointbench evaluate --weights FILE --name {bundle.spec.variant!r}."
        )
    load_weights(encoder.networks, weights, where=f"the weights of {bundle.spec.variant!r}")


def _keep_history(bundle: Bundle, shop: Workshop, rows: Sequence[HistoryRow]) -> None:
    import pandas as pd

    if rows:
        history = pd.DataFrame([vars(item) for item in rows])
        identity = bundle.identity.digest
        shop.store.write_history(
            identity, history.assign(pretrain_identity=identity, method=bundle.spec.method, seed=bundle.spec.seed)
        )


def _training_columns(result: TrainingResult) -> dict[str, Any]:
    """What the row says of the training."""
    return {
        "metric": TRAINING_LOSS.key,
        "value": result.final_loss,
        "seconds_data": result.seconds["data_wait"],
        "seconds_compute": result.seconds["compute"],
        "images_per_second": result.images_per_second,
        "details": json_text({"collapse": result.collapse, **({"pairing": result.pairing} if result.pairing else {})}),
    }


def _train(bundle: Bundle, shop: Workshop, data: ImageDataset, model: Method, encoder: Encoder) -> TrainingResult:
    """Train the method and with it the encoder in place; returns the loop's result."""
    from bench.processes import process_group
    from bench.rank import prepare_rank
    from bench.training.history import EpochRecord
    from bench.training.pretraining import train_encoder

    job = bundle.training_job
    shop.notify(Event(kind="started", job=job, total=bundle.spec.training.epochs if bundle.spec.training else 0))
    check_training_code(bundle, shop.catalog)

    def report(record: EpochRecord) -> None:
        text = f"loss {record.total:.4g}"
        shop.notify(Event(kind="progress", job=job, text=text, done=record.epoch, total=record.epochs))

    checkpoint = _resume_file(shop, bundle.identity.digest)
    source = shop.source
    settings = (source.root, source.cache, source.loaders, source.sharers, shop.device, shop.threads)
    arguments = (replace(bundle, cells=()), shop.catalog.plugins, *settings, checkpoint)
    with process_group(shop.devices, shop.device, prepare_rank, arguments):
        return train_encoder(
            encoder, model, bundle.spec, data, device=shop.device, checkpoint=checkpoint, progress=report
        )


def _resume_file(shop: Workshop, identity: str) -> CheckpointFile:
    from bench.training.checkpoint import CheckpointFile

    path = shop.unfinished / f"{identity}-{shop.device}.ckpt"  # random states of one device mean nothing to another
    return CheckpointFile(path=path, identity=identity, every_seconds=shop.save_seconds)


# --- evaluation -------------------------------------------------------------------------------------------------


def _evaluate_all(bundle: Bundle, cells: Sequence[PlannedCell], encoder: Encoder, shop: Workshop) -> None:
    """Evaluate under each protocol; what fails becomes a failed row.

    A failure ends the processes that share the work: the cells after it get new ones.
    """
    from bench.evaluation import evaluator

    waiting = list(cells)
    while waiting:
        try:
            with evaluator(bundle, waiting, encoder, shop) as own:
                while waiting:
                    reset_peak_memory()
                    _evaluate(waiting[0], own, shop)
                    waiting = waiting[1:]
        except StoreError:
            raise
        except (Exception, SystemExit) as raised:
            if not waiting:
                raise
            write_failure(shop, bundle, waiting[0], _as_error(raised))
            waiting = waiting[1:]


def _evaluate(cell: PlannedCell, own: Evaluator, shop: Workshop) -> None:
    from bench.data.facts import facts_of
    from bench.evaluation import with_patients

    data = own.data(cell)
    shop.notify(Event(kind="started", job=cell.address, is_cell=True))
    row = base_row(own.bundle, cell, shop)
    started = time.perf_counter()

    def report(done: int, total: int, text: str) -> None:
        shop.notify(Event(kind="progress", job=cell.address, is_cell=True, done=done, total=total, text=text))

    outcome = own.outcome(cell, report)
    seconds = time.perf_counter() - started
    row |= {
        "status": "ok",
        "finished_at": now(),
        "seconds_total": seconds,
        "seconds_evaluation": seconds,
        "peak_memory_mb": peak_memory_mb(),
        "details": json_text({**outcome.details, "data": facts_of(data), "seconds": outcome.seconds}),
    }
    shop.store.write_predictions(cell.identity.digest, with_patients(outcome.predictions, data))
    shop.store.write_rows(score_rows(row, outcome))
    own.checkpoint(cell).delete()
    shown = [(score.metric.title, score.metric.format(score.value)) for score in outcome.scores]
    more = [f"{len(shown) - MOST_SHOWN} more"] if len(shown) > MOST_SHOWN else []
    text = ", ".join([*(f"{title} {value or 'undefined'}" for title, value in shown[:MOST_SHOWN]), *more])
    shop.notify(Event(kind="finished", job=cell.address, is_cell=True, text=f"{text} ({seconds:.1f} s)"))


def check_training_code(bundle: Bundle, catalog: Catalog) -> None:
    """Refuse to train by code that was edited after the plan was made (JobError)."""
    present = pretraining_identity(bundle.spec, catalog, fingerprint=bundle.fingerprint)
    check_code(bundle.identity, present)


def check_code(planned: Identity, present: Identity) -> None:
    """Refuse to compute under an identity that the code on disk no longer has.

    Raises:
        JobError: a source was edited after the plan was made.
    """
    if planned.code != present.code:
        changes = "; ".join(manifest_changes(planned.manifest, present.manifest))
        raise JobError(f"The code was edited while the run was under way ({changes}). Run again.")


def check_data(label: str, data: ImageDataset, planned: str) -> None:
    """Refuse to use data that changed after the plan was made (JobError)."""
    if data.fingerprint != planned:
        raise JobError(f"The images or splits of {label} changed while the run was under way. Run again.")
