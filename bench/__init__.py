"""The core of jointbench: specs, identity, plan, store, runner, data, encoders and training."""

__version__ = "0.1.0"

DEFAULT_STORE = "jointbench-store"
"""Folder of the results when no other is named."""
