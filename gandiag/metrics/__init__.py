"""One file per idea; each a frozen dataclass with needs() and measure(), and plain functions on arrays.

    gandiag.metrics.coverage(real, fake)        # (N, D) and (M, D), tensors or arrays

The plain functions are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "precision_recall": ("prdc", "precision", "recall", "density", "coverage"),
    "frechet": ("frechet_distance",),
    "kernel_distance": ("kid", "kid_subsets"),
    "inception": ("fid", "inception_score"),
    "vendi": ("vendi_score",),
    "ndb_bins": ("ndb",),
    "pairwise": ("pairwise_distance", "pairwise_distances", "pairwise_ratio"),
    "duplicates": ("duplicate_threshold", "near_duplicates", "support_size"),
    "memorization": ("authenticity", "copies", "memorised"),
}
_FUNCTIONS = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "authenticity",
    "copies",
    "coverage",
    "density",
    "duplicate_threshold",
    "fid",
    "frechet_distance",
    "inception_score",
    "kid",
    "kid_subsets",
    "memorised",
    "ndb",
    "near_duplicates",
    "pairwise_distance",
    "pairwise_distances",
    "pairwise_ratio",
    "prdc",
    "precision",
    "recall",
    "support_size",
    "vendi_score",
]

if TYPE_CHECKING:
    from gandiag.metrics.duplicates import duplicate_threshold, near_duplicates, support_size
    from gandiag.metrics.frechet import frechet_distance
    from gandiag.metrics.inception import fid, inception_score
    from gandiag.metrics.kernel_distance import kid, kid_subsets
    from gandiag.metrics.memorization import authenticity, copies, memorised
    from gandiag.metrics.ndb_bins import ndb
    from gandiag.metrics.pairwise import pairwise_distance, pairwise_distances, pairwise_ratio
    from gandiag.metrics.precision_recall import coverage, density, prdc, precision, recall
    from gandiag.metrics.vendi import vendi_score


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
