"""What a machine offers to jointbench, and what is missing."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.errors import JointbenchError
from bench.provenance import hardware, software
from bench.request import Request, default_cache

OPTIONAL = {"detectron2": "reference engine of object detection; install it from its own repository"}


@dataclass(frozen=True)
class Finding:
    """One examined thing; ``ok`` is False only when something needed does not work."""

    subject: str
    text: str
    ok: bool = True


def examine(store: str, data: Path | None) -> list[Finding]:
    """Examine software, hardware, device, store, cache, data and optional parts."""
    found = software()
    machine = hardware()
    libraries = ", ".join(f"{name} {version}" for name, version in found["libraries"].items())
    return [
        Finding("jointbench", f"{found['jointbench']} on Python {found['python']}"),
        Finding("libraries", libraries, all(found["libraries"].values())),
        Finding("machine", f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB"),
        _device(),
        _registered(),
        _writable("cache", default_cache()),
        _store(store),
        _data(data),
        *(_optional(name, purpose) for name, purpose in OPTIONAL.items()),
    ]


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", f"cuda: {torch.cuda.device_count()} × {torch.cuda.get_device_name()}")
    return Finding("device", "cpu (torch sees no CUDA device)")


def _registered() -> Finding:
    try:
        catalog = Request().catalog
    except JointbenchError as error:
        return Finding("registry", str(error), ok=False)
    counts = {kind: len(catalog.registry(kind)) for kind in ("method", "protocol", "dataset", "backbone")}
    return Finding("registry", ", ".join(f"{count} {kind}s" for kind, count in counts.items()))


def _writable(subject: str, folder: Path) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            subject, f"{folder} cannot be written ({error}). Set JOINTBENCH_CACHE to a folder that can.", False
        )
    return Finding(subject, str(folder))


def _store(url: str) -> Finding:
    request = Request(store=url)
    try:
        rows = request.results.frame()
    except JointbenchError as error:
        return Finding("store", str(error), ok=False)
    damaged = len(request.results.problems)
    text = f"{url}: {rows['identity'].nunique()} jobs"
    return Finding("store", text + (f", {damaged} damaged parts set aside" if damaged else ""), ok=not damaged)


def _data(folder: Path | None) -> Finding:
    if folder is None and not os.environ.get("JOINTBENCH_DATA"):
        return Finding("data", "only the embedded datasets (no --data and no JOINTBENCH_DATA)")
    try:
        return Finding("data", str(Request(data=folder).root))
    except JointbenchError as error:
        return Finding("data", str(error), ok=False)


def _optional(name: str, purpose: str) -> Finding:
    present = importlib.util.find_spec(name) is not None
    return Finding(name, "installed" if present else f"not installed ({purpose})")
