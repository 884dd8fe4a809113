"""The fifteen sanity checks of Räisä et al. 2025, "All current generative fidelity and diversity metrics are flawed".

Written anew from the published description: the laws, sizes and thresholds are theirs, the code is not. Each check has
two groups of criteria ("desiderata"): 30 groups in all. The grids of the parameter are thinner than theirs; they hold
every point at which a criterion looks, but that sets of real rows end at 3,162 where theirs end at 10,000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sanity_criteria import (
    Criterion,
    bell,
    close_to,
    falling,
    falling_early,
    level,
    level_from,
    low_or_high,
    rising,
    wide,
)

Rows = np.ndarray[Any, np.dtype[np.float64]]
Random = np.random.Generator
Draw = Callable[[Any, float, Random], Rows]
Groups = dict[str, list[Criterion]]
N = 1000
DIMS = (1, 8, 64)
MAX_SHIFT = {1: 6.0, 8: 3.0, 64: 1.0}
MAX_LOG_STD = {1: 3.0, 8: 1.0, 64: 0.5}
MODE_STD = {1: 1 / 6, 8: 1 / 3, 64: 1.0}
N_MODES = 10
MID_DROPPED_SHARE = 47 / 49  # the .95 quantile of their grid of 50
OVERLAP = 0.2
INVENTED_STD = 0.25
INVENTED_CENTERS = np.array(
    [
        (5.46794328, -4.08481523),
        (4.87211875, -13.64864684),
        (-16.39432073, 9.09802249),
        (-2.15447941, 12.46200019),
        (11.55784483, -4.96049923),
        (-24.60558474, 14.18020818),
        (16.84215967, -3.18710751),
        (-5.47807206, -6.77247129),
        (9.46726546, 1.05922347),
        (-5.40346201, -17.29490131),
    ]
)


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `points[variant]`: the parameters; `real` and `fake` draw (rows, D); `fidelity` and `diversity`: the
    criteria by group, of one variant.
    """

    name: str
    points: dict[Any, list[float]]
    real: Draw
    fake: Draw
    fidelity: Callable[[Any], Groups]
    diversity: Callable[[Any], Groups]


def _fixed(**groups: list[Criterion]) -> Callable[[Any], Groups]:
    return lambda variant: groups


def _normal(dim: int, random: Random, n: int = N) -> Rows:
    return random.normal(size=(n, dim))


def _mixture(centers: Rows, std: Any, shares: Rows, random: Random) -> Rows:
    """N rows of normal modes: centers (K, D), shares (K,)."""
    return centers[random.choice(len(centers), N, p=shares / shares.sum())] + std * random.normal(
        size=(N, centers.shape[1])
    )


def _same(variants: Sequence[Any], points: Sequence[float]) -> dict[Any, list[float]]:
    """The same points for every variant."""
    return {variant: list(points) for variant in variants}


def _grid(end: float, count: int = 7) -> list[float]:
    half = count // 2
    return [end * i / half for i in range(-half, half + 1)]


def mean_checks() -> list[Check]:
    """A normal law and the same one elsewhere; with an outlier at the far end among real or generated rows."""

    def with_outlier(side: str) -> Draw:
        def draw(variant: tuple[str, int], shift: float, random: Random) -> Rows:
            scenario, dim = variant
            rows = _normal(dim, random) + (shift if side == "fake" else 0)
            return np.vstack([rows, np.full((1, dim), MAX_SHIFT[dim])]) if scenario == side else rows

        return draw

    criteria = _fixed(
        bounds=[close_to(1, 0.0), close_to(0, "min"), close_to(0, "max")],
        property=[bell(0.0)],
    )
    variants = [(scenario, dim) for scenario in ("real", "fake") for dim in DIMS]
    return [
        Check(
            "mean",
            {dim: _grid(MAX_SHIFT[dim]) for dim in DIMS},
            lambda dim, shift, random: _normal(dim, random),
            lambda dim, shift, random: _normal(dim, random) + shift,
            criteria,
            criteria,
        ),
        Check(
            "mean, an outlier",
            {variant: _grid(MAX_SHIFT[variant[1]], 5) for variant in variants},
            with_outlier("real"),
            with_outlier("fake"),
            criteria,
            criteria,
        ),
        Check(
            "mean, heavy tails beside",
            {0: _grid(6.0)},
            lambda _, shift, random: np.stack([random.normal(size=N), random.pareto(1.01, N) + 1], 1),
            lambda _, shift, random: np.stack([random.normal(size=N) + shift, random.pareto(1.01, N) + 1], 1),
            criteria,
            criteria,
        ),
    ]


def std_check() -> Check:
    return Check(
        "standard deviation",
        {dim: [10.0**x for x in _grid(MAX_LOG_STD[dim])] for dim in DIMS},
        lambda dim, std, random: _normal(dim, random),
        lambda dim, std, random: std * _normal(dim, random),
        _fixed(bounds=[close_to(1, 1.0), close_to(1, "min"), close_to(0, "max")], property=[falling]),
        _fixed(
            bounds=[close_to(1, 1.0), close_to(0, "min"), wide("max")],
            property=[low_or_high(bell(1.0), rising)],
        ),
    )


def mode_checks() -> list[Check]:
    """Ten modes on a diagonal: all but one thinned alike, or dropped one by one."""

    def modes(dim: int, shares: Rows, random: Random) -> Rows:
        centers = np.repeat(np.linspace(0, 10, N_MODES)[:, None], dim, 1)
        return _mixture(centers, MODE_STD[dim], shares, random)

    def thinned(dim: int, share: float, random: Random) -> Rows:
        return modes(dim, np.r_[1.0, np.full(N_MODES - 1, 1 - share)], random)

    def dropped(dim: int, count: float, random: Random) -> Rows:
        return modes(dim, (np.arange(N_MODES) < N_MODES - count).astype(float), random)

    fidelity = _fixed(bounds=[close_to(1, "min"), close_to(1, "max")], property=[level])

    def diversity(middle: float) -> Callable[[Any], Groups]:
        return _fixed(bounds=[close_to(1, "min")], property=[falling_early(middle)])

    shares, counts = [0, 0.25, 0.5, 0.75, MID_DROPPED_SHARE, 1], [0.0, 2.0, 4.0, 6.0, 8.0, 9.0]

    def even(dim: int, _: float, random: Random) -> Rows:
        return modes(dim, np.ones(N_MODES), random)

    return [
        Check(
            "modes thinned together",
            _same(DIMS, shares),
            even,
            thinned,
            fidelity,
            diversity(MID_DROPPED_SHARE),
        ),
        Check("modes dropped in turn", _same(DIMS, counts), even, dropped, fidelity, diversity(4.0)),
    ]


def invention_check() -> Check:
    def first(count: int, random: Random) -> Rows:
        return _mixture(INVENTED_CENTERS[:count], INVENTED_STD, np.ones(count), random)

    return Check(
        "modes dropped or invented",
        {0: [float(count) for count in range(1, 11)]},
        lambda _, count, random: first(5, random),
        lambda _, count, random: first(int(count), random),
        _fixed(bounds=[close_to(1, 5.0), close_to(1, "min")], property=[falling]),
        _fixed(bounds=[close_to(1, 5.0), close_to(1, "max")], property=[rising]),
    )


def sphere_check() -> Check:
    def sphere(dim: int, radius: float, random: Random) -> Rows:
        rows = _normal(dim, random)
        return radius * rows / np.linalg.norm(rows, axis=1, keepdims=True)

    criteria = _fixed(
        bounds=[close_to(1, 1.0), close_to(0, "min"), close_to(0, "max")],
        property=[bell(1.0)],
    )
    return Check(
        "surface of a sphere",
        _same((2, 16, 128), [1 + 0.9 * x for x in _grid(1.0)]),
        lambda dim, radius, random: sphere(dim, 1.0, random),
        sphere,
        criteria,
        criteria,
    )


def cube_checks() -> list[Check]:
    """Two cubes that share a fifth of their volume, at growing sizes of both sets or of the generated one."""

    def overlapping(dim: int, n: float, random: Random) -> Rows:
        return random.uniform(size=(int(n), dim)) + 1 - OVERLAP ** (1 / dim)

    def criteria(group: str) -> Callable[[Any], Groups]:
        return _fixed(**{group: [level_from(1000)], "property": [close_to(OVERLAP, "max")]})

    def both(dim: int, n: float, random: Random) -> Rows:
        return random.uniform(size=(int(n), dim))

    def data_alone(dim: int, n: float, random: Random) -> Rows:
        return random.uniform(size=(N, dim))

    size, generated = criteria("data size"), criteria("hyperparameters")
    sizes, generated_sizes = _same(DIMS, [1000, 3162]), _same(DIMS, [1000, 3162, 10_000])
    return [
        Check("cubes, both sizes", sizes, both, overlapping, size, size),
        Check("cubes, generated size", generated_sizes, data_alone, overlapping, generated, generated),
    ]


def torus_check() -> Check:
    """A ball in the hole of a torus, either of them real."""

    def ball(n: int, dim: int, radius: float, random: Random) -> Rows:
        rows = random.normal(size=(n, dim))
        return radius * random.uniform(size=(n, 1)) ** (1 / dim) * rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def torus(n: int, random: Random) -> Rows:
        disc, angle = ball(n, 2, 0.1, random) + (1, 0), random.uniform(0, 2 * np.pi, n)
        return np.stack([disc[:, 0] * np.cos(angle), disc[:, 0] * np.sin(angle), disc[:, 1]], 1)

    def shape(is_ball: bool, n: float, random: Random) -> Rows:
        return ball(int(n), 3, 0.8, random) if is_ball else torus(int(n), random)

    criteria = _fixed(property=[level_from(1000)], bounds=[close_to(0, "max")])
    return Check(
        "ball and torus",
        _same(("ball", "torus"), [1000, 3162, 10_000]),
        lambda real, n, random: shape(real == "ball", N, random),
        lambda real, n, random: shape(real != "ball", n, random),
        criteria,
        criteria,
    )


def one_mode_check() -> Check:
    """Two modes in the data, one wide mode of the same mean and deviation generated."""

    def two(dim: int, gap: float, random: Random) -> Rows:
        centers = np.repeat(np.array([[-gap / 2], [gap / 2]]), dim, 1)
        return _mixture(centers, 1.0, np.ones(2), random)

    return Check(
        "one mode for two",
        _same(DIMS, [0.0, 0.5, 1.0, 2.0, 3.5, 5.0]),
        two,
        lambda dim, gap, random: np.sqrt(1 + gap**2) * _normal(dim, random),
        _fixed(property=[falling], bounds=[close_to(1, "min")]),
        _fixed(property=[low_or_high(falling, level)], bounds=[close_to(1, "min")]),
    )


def scale_checks() -> list[Check]:
    """Apart in one dimension; the other is stretched, or there are up to a thousand equal others."""

    def stretched(shift: float) -> Draw:
        return lambda _, scale, random: (_normal(2, random) + (shift, 0)) * (1, scale)

    def padded(shift: float) -> Draw:
        return lambda _, extra, random: _normal(int(extra) + 1, random) + np.r_[shift, np.zeros(int(extra))]

    def criteria(group: str) -> Callable[[Any], Groups]:
        return _fixed(**{group: [level], "bounds": [close_to(0, "min"), close_to(0, "max")]})

    scaling, extra = criteria("invariance"), criteria("property")
    return [
        Check(
            "scale of one dimension", {0: [0.001, 0.1, 1.0, 10.0, 1000.0]}, stretched(0), stretched(6), scaling, scaling
        ),
        Check("one dimension apart", {0: [1, 10, 100, 1000]}, padded(0), padded(6), extra, extra),
    ]


def rounding_check() -> Check:
    """Rounded data against continuous samples, and the other way round, from coarse to fine."""

    def draw(rounded: str) -> Draw:
        def rows(real: str, scale: float, random: Random) -> Rows:
            values = scale * random.normal(size=(N, 1))
            return np.round(values) if real == rounded else values

        return rows

    def fidelity(real: str) -> Groups:
        right = 0 if real == "rounded" else 1
        return {"property": [level], "bounds": [close_to(right, "min"), close_to(right, "max")]}

    def diversity(real: str) -> Groups:
        bounds = [wide("min"), wide("max")] if real == "rounded" else [close_to(0, "min"), close_to(0, "max")]
        return {"property": [level], "bounds": bounds}

    return Check(
        "rounded and continuous",
        _same(("rounded", "continuous"), [1, 3, 10, 100, 1000]),
        draw("rounded"),
        draw("continuous"),
        fidelity,
        diversity,
    )


def all_checks() -> list[Check]:
    return [
        *mean_checks(),
        std_check(),
        *mode_checks(),
        invention_check(),
        sphere_check(),
        *cube_checks(),
        torus_check(),
        one_mode_check(),
        *scale_checks(),
        rounding_check(),
    ]
