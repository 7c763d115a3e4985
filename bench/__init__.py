"""The core of jointbench: specs, identity, plan, store, runner, data, encoders and training."""

__version__ = "0.1.0"
