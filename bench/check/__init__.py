"""The contract battery: what every method and protocol, ours or a user's, has to satisfy.

entry = discover([Path("mine.py")]).methods["mine"]
for result in check_method(entry):
    ...  # result.ok, result.name, result.message
"""

from __future__ import annotations

from bench.check.battery import CheckResult
from bench.check.methods import check_method
from bench.check.protocols import check_protocol

__all__ = ["CheckResult", "check_method", "check_protocol"]
