"""Provenance: what stood behind a row, besides its identity."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import bench

LIBRARIES = (
    "torch",
    "torchvision",
    "lightning-fabric",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "Pillow",
)


@cache
def software() -> dict[str, Any]:
    """Versions of jointbench and its libraries, and the git state of the code when it runs from a checkout."""
    return {
        "jointbench": bench.__version__,
        **git_state(Path(bench.__file__).resolve().parent),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def git_state(folder: Path) -> dict[str, Any]:
    """``git_commit`` and ``git_dirty`` of the checkout that holds the code; both None in an installed package."""
    absent = {"git_commit": None, "git_dirty": None}
    root = _git(folder, "rev-parse", "--show-toplevel")
    if not root or _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return absent  # not a checkout, or a checkout of something else that an environment lies in
    commit = _git(folder, "rev-parse", "HEAD")
    return {"git_commit": commit, "git_dirty": bool(_git(folder, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def hardware() -> dict[str, Any]:
    """Processor, cores and memory; the host's name stays out."""
    import psutil

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def provenance(*, device: str, devices: int, threads: int) -> dict[str, Any]:
    """Everything that is kept with a row: software, hardware, device, how many share a training, threads of each."""
    found = {**software(), **hardware(), "device": device, "devices": devices, "threads": threads}
    if device.startswith("cuda"):
        import torch

        found["accelerator"] = torch.cuda.get_device_name()
    return found


def reset_peak_memory() -> None:
    """Start a new measurement of the peak, where the system can (Linux); elsewhere the peak is the process's."""
    counter = Path("/proc/self/clear_refs")
    with contextlib.suppress(OSError):
        counter.write_text("5")


def peak_memory_mb() -> float:
    """Largest resident memory of this process in MB, since :func:`reset_peak_memory` where the system can tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
