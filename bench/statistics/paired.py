"""Paired comparison of methods that were tested on the same images: differences with intervals, tests, lead group.

Images are resampled with replacement, whole patients at a time where patients are known, and every method is
evaluated on the same resamples, so that what makes an image hard for all methods cancels in their difference d. Two
independent sources of variance add up:

    se² = C/(C-1) · var over resamples of d  +  s_a²/S_a + s_b²/S_b

with C patients (or images), and the spread s of a method's S seeds where there are several. A seed's spread on these
images also holds how seeds and images interact, which the resamples hold too: the sum is cautious. The interval is
d ± t·se and p is that of d/se, both by Student's t with Welch and Satterthwaite's degrees of freedom. One seed and
accuracy on independent images is tested exactly (McNemar) instead. The p-values of all pairs are corrected together.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 8; Robin et al. 2011,
doi:10.1186/1471-2105-12-77 (the bootstrap test of two AUROCs); McNemar 1947, doi:10.1007/BF02295996;
Satterthwaite 1946, doi:10.2307/3002019; Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.statistics.ranking import VALUES_PER_BLOCK, Reals, Units
from bench.statistics.weighted import Accuracy, Statistic

ALPHA = 0.05
POWER_QUANTILE = 0.8416  # of the standard normal distribution at 80 %


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First method minus second, as indices into what was compared.

    Attributes:
        value: in the metric's unit.
        low, high: 95 % interval of this difference alone; None where the predictions never differ.
        p: of the two-sided test that both are equal.
        adjusted: p corrected for all pairs of the comparison.
        test: how p was computed.
        image_variance: of the difference, by which images (patients) were drawn.
        seed_variance: by which seeds were drawn; None for one seed each.
    """

    first: int
    second: int
    value: float
    low: float | None
    high: float | None
    p: float
    adjusted: float
    test: str
    image_variance: float
    seed_variance: float | None

    @property
    def separated(self) -> bool:
        """Whether the two can be told apart."""
        return self.adjusted < ALPHA


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All pairs of methods.

    Attributes:
        values: mean over the seeds of each method.
        intervals: 95 % interval of each value, by the same rule as those of differences; None where nothing varies.
        differences: one for each pair, corrected together.
        images: images of the test.
        clusters: patients that they come from; equal to ``images`` where each image stands for itself.
    """

    values: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    differences: tuple[Difference, ...]
    images: int
    clusters: int

    def between(self, first: int, second: int) -> Difference:
        """Of this pair, in either order: the sign is that of ``first`` minus ``second``."""
        for item in self.differences:
            if (item.first, item.second) == (first, second):
                return item
            if (item.first, item.second) == (second, first):
                return _reversed(item)
        raise KeyError((first, second))

    def leaders(self, among: Sequence[int]) -> tuple[int, ...]:
        """The best of ``among`` and those that are not significantly worse, from the best value down."""
        ranked = sorted(among, key=lambda index: -self.values[index])
        best = ranked[0]
        return tuple(index for index in ranked if index == best or not self.between(best, index).separated)


def _reversed(item: Difference) -> Difference:
    ends = (None, None) if item.low is None or item.high is None else (-item.high, -item.low)
    return replace(item, first=item.second, second=item.first, value=-item.value, low=ends[0], high=ends[1])


def compare(
    methods: Sequence[Sequence[Statistic]],
    *,
    images: int,
    clusters: Sequence[str] | NDArray[np.str_] | None = None,
    generator: np.random.Generator,
    resamples: int = 2000,
) -> Comparison:
    """Compare all pairs of methods on the same test images.

    Args:
        methods: for each method one statistic per seed; all look at the same images in the same order.
        images: n.
        clusters: (n,) patient of each image; None where each image stands for itself, an empty string likewise.
        generator: source of the resamples.
        resamples: number of resamples.

    Raises:
        ValueError: no method, a method without a seed, or fewer than two patients.
    """
    if not methods or not all(methods):
        raise ValueError("A comparison needs methods with at least one seed each.")
    if clusters is not None and len(clusters) != images:
        raise ValueError(f"{images} images need as many patients, got {len(clusters)}.")
    units = Units.of(images, None if clusters is None else np.asarray(clusters))
    count, independent = units.count, units.count == images
    if count < 2:
        raise ValueError(f"A comparison needs at least 2 patients or images, got {count}.")
    seeds = [np.array([statistic(np.ones((1, images)))[0] for statistic in seed]) for seed in methods]
    values = [float(item.mean()) for item in seeds]
    resampled = _resampled(methods, units, generator=generator, resamples=resamples)
    spans = [
        _span(value, _sources(part, count, [own])) for value, part, own in zip(values, resampled, seeds, strict=True)
    ]
    pairs = []
    for a, b in combinations(range(len(methods)), 2):
        sources = _sources(resampled[a] - resampled[b], count, [seeds[a], seeds[b]])
        pair = _tested(a, b, values[a] - values[b], sources, count)
        pairs.append(_exactly(pair, methods[a], methods[b]) if independent else pair)
    adjusted = holm([pair.p for pair in pairs])
    return Comparison(
        values=tuple(values),
        intervals=tuple(spans),
        differences=tuple(replace(pair, adjusted=p) for pair, p in zip(pairs, adjusted, strict=True)),
        images=images,
        clusters=count,
    )


def _resampled(
    methods: Sequence[Sequence[Statistic]],
    units: Units,
    *,
    generator: np.random.Generator,
    resamples: int,
) -> list[Reals]:
    """Each method's mean over its seeds on every resample; all see the same resamples."""
    block = max(1, VALUES_PER_BLOCK // len(units.members))
    shares = np.full(units.count, 1 / units.count)
    parts: list[list[Reals]] = [[] for _ in methods]
    for start in range(0, resamples, block):
        drawn = generator.multinomial(units.count, shares, size=min(block, resamples - start))
        weights = drawn[:, units.members].astype(np.float64)  # (r, n)
        for part, seeds in zip(parts, methods, strict=True):
            part.append(np.mean([statistic(weights) for statistic in seeds], axis=0))
    return [np.concatenate(part) for part in parts]


@dataclass(frozen=True)
class _Sources:
    """Independent sources of variance with their degrees of freedom: the images first, then each method's seeds."""

    parts: tuple[tuple[float, float], ...]

    @property
    def variance(self) -> float:
        return sum(part for part, _ in self.parts)

    @property
    def freedom(self) -> float:
        """Of the sum, after Welch and Satterthwaite."""
        return self.variance**2 / sum(part**2 / df for part, df in self.parts)


def _sources(resampled: Reals, count: int, seeds: Sequence[Reals]) -> _Sources:
    images = float(np.nanvar(resampled, ddof=1)) * count / (count - 1)
    spreads = ((float(own.var(ddof=1)) / len(own), len(own) - 1.0) for own in seeds if len(own) > 1)
    return _Sources(((images, count - 1.0), *spreads))


def _span(value: float, sources: _Sources) -> tuple[float, float] | None:
    from scipy.special import stdtrit  # imported late: only comparisons need it

    if sources.variance <= 0:
        return None
    half = float(stdtrit(sources.freedom, 1 - ALPHA / 2)) * math.sqrt(sources.variance)
    return value - half, value + half


def _tested(a: int, b: int, value: float, sources: _Sources, count: int) -> Difference:
    """The difference with its interval and p, before correction."""
    from scipy.special import stdtr  # imported late: only comparisons need it

    span = _span(value, sources)
    if span:
        p = 2 * float(stdtr(sources.freedom, -abs(value) / math.sqrt(sources.variance)))
    else:
        p = min(1.0, 2 * 0.5**count) if value else 1.0  # all images differ alike, or none does: the sign test
    return Difference(
        first=a,
        second=b,
        value=value,
        low=span[0] if span else None,
        high=span[1] if span else None,
        p=p,
        adjusted=p,  # until all pairs are known
        test="paired bootstrap",
        image_variance=sources.parts[0][0],
        seed_variance=sum(part for part, _ in sources.parts[1:]) if len(sources.parts) > 1 else None,
    )


def _exactly(pair: Difference, first: Sequence[Statistic], second: Sequence[Statistic]) -> Difference:
    """With McNemar's p where it applies: accuracy of one seed each, on independent images."""
    if len(first) > 1 or len(second) > 1:
        return pair
    a, b = first[0], second[0]
    if not isinstance(a, Accuracy) or not isinstance(b, Accuracy):
        return pair
    p = mcnemar(int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum()))
    return replace(pair, p=p, test="exact McNemar")


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test.

    Args:
        only_first, only_second: images that only the one or only the other method classifies correctly.
    """
    from scipy.special import bdtr  # imported late: only comparisons need it

    if min(only_first, only_second) < 0:
        raise ValueError(f"Numbers of images are not negative, got {only_first} and {only_second}.")
    n = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), n, 0.5))) if n else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the i-th smallest of m times m - i + 1, never falling, at most 1."""
    corrected = [0.0] * len(p)
    reached = 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        reached = max(reached, min(1.0, p[index] * (len(p) - rank)))
        corrected[index] = reached
    return corrected


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What would tell two methods apart if their difference is the one observed; None where it would never do alone.

    Attributes:
        images: factor by which the test split would have to grow, at the seeds there are.
        seeds: seeds of each method, at the test split there is.
    """

    images: float | None
    seeds: int | None


def needed(item: Difference, *, seeds: int, pairs: int = 1) -> Needed:
    """How much more would separate this pair with a probability of 80 %.

    Both answers keep the other source of variance as it is and use normal quantiles, so they are an order of
    magnitude and no promise: the observed difference is itself uncertain.

    Args:
        item: of two methods that cannot be told apart.
        seeds: of each method.
        pairs: comparisons that are corrected together.

    Source: the sample size of a two-sided z-test, e.g. Chow, Shao and Wang, Sample Size Calculations, chapter 1.
    """
    from scipy.special import ndtri  # imported late: only comparisons need it

    allowed = (item.value / (float(ndtri(1 - ALPHA / (2 * pairs))) + POWER_QUANTILE)) ** 2
    spread = item.seed_variance or 0.0
    images = item.image_variance / (allowed - spread) if allowed > spread else None
    enough = None
    if item.seed_variance is not None and allowed > item.image_variance:
        enough = max(seeds, math.ceil(seeds * spread / (allowed - item.image_variance)))
    return Needed(images=None if images is None else max(1.0, images), seeds=enough)
