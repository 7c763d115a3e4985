from __future__ import annotations

import numpy as np

from bench.data.draws import Draws


def test_draws_reach_both_ends_equally_often() -> None:
    draws = Draws(np.random.PCG64(0))
    counts = np.bincount([draws.between(2, 5) for _ in range(4000)], minlength=6)
    assert counts[:2].sum() == 0 and (abs(counts[2:] - 1000) < 120).all()
    levels = draws.levels(100, 100, 2)
    assert (abs(np.bincount((levels + 2).ravel()) - 2000) < 200).all()
