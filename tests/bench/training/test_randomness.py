from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from bench.training.randomness import isolated_rng, rng_state, set_rng_state, stream


def draws() -> list[Any]:
    return [torch.rand(1).item(), np.random.random(), random.random()]  # noqa: NPY002


def test_the_body_is_seeded_and_the_caller_undisturbed() -> None:
    with isolated_rng(1):
        first = draws()
    before = rng_state("cpu")
    expected = draws()
    set_rng_state(before, "cpu")
    with isolated_rng(1):
        assert draws() == first
    assert draws() == expected


def test_the_caller_is_undisturbed_by_an_error_in_the_body() -> None:
    before = rng_state("cpu")
    expected = draws()
    set_rng_state(before, "cpu")
    try:
        with isolated_rng(3):
            draws()
            raise RuntimeError
    except RuntimeError:
        assert draws() == expected


def test_different_seeds_give_different_draws() -> None:
    with isolated_rng(1):
        first = draws()
    with isolated_rng(2):
        assert all(a != b for a, b in zip(first, draws(), strict=True))


def test_a_stream_depends_on_all_its_keys_and_nothing_else() -> None:
    keys = [(1,), (1, 0), (1, 0, 0), (0, 1), (1, 1), (2**40, 1)]
    numbers = [torch.rand(1, generator=stream(*key)).item() for key in keys]
    assert len(set(numbers)) == len(keys)
    torch.rand(10)
    assert numbers == [torch.rand(1, generator=stream(*key)).item() for key in keys]
