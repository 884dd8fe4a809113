"""Metrics: one module each, with a frozen dataclass that has needs() and measure(), and plain functions on arrays.

    gandiag.metrics.coverage(real, fake)        # (N, D) and (M, D), tensors or arrays

The plain functions, listed in `gandiag.metrics.registry`, are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gandiag.metrics.registry import FUNCTION_MODULES

if TYPE_CHECKING:  # for type checkers, which cannot follow __getattr__
    from gandiag.metrics.duplicates import duplicate_threshold as duplicate_threshold
    from gandiag.metrics.duplicates import near_duplicates as near_duplicates
    from gandiag.metrics.duplicates import support_size as support_size
    from gandiag.metrics.frechet import frechet_distance as frechet_distance
    from gandiag.metrics.image_retrieval import image_retrieval_ratio as image_retrieval_ratio
    from gandiag.metrics.image_retrieval import image_retrieval_score as image_retrieval_score
    from gandiag.metrics.inception import fid as fid
    from gandiag.metrics.inception import inception_score as inception_score
    from gandiag.metrics.kernel_distance import kid as kid
    from gandiag.metrics.kernel_distance import kid_subsets as kid_subsets
    from gandiag.metrics.kernel_entropy import conditional_vendi as conditional_vendi
    from gandiag.metrics.kernel_entropy import rke_score as rke_score
    from gandiag.metrics.kernel_modes import missing_kernel_modes as missing_kernel_modes
    from gandiag.metrics.memorization import authenticity as authenticity
    from gandiag.metrics.memorization import copies as copies
    from gandiag.metrics.memorization import memorised as memorised
    from gandiag.metrics.ndb_bins import ndb as ndb
    from gandiag.metrics.pairwise import pairwise_distance as pairwise_distance
    from gandiag.metrics.pairwise import pairwise_distances as pairwise_distances
    from gandiag.metrics.pairwise import pairwise_ratio as pairwise_ratio
    from gandiag.metrics.precision_recall import coverage as coverage
    from gandiag.metrics.precision_recall import density as density
    from gandiag.metrics.precision_recall import prdc as prdc
    from gandiag.metrics.precision_recall import precision as precision
    from gandiag.metrics.precision_recall import recall as recall
    from gandiag.metrics.vendi import vendi_score as vendi_score
    from gandiag.metrics.voronoi_cells import pqmass as pqmass

__all__ = sorted(FUNCTION_MODULES)


def __getattr__(name: str) -> Any:
    if name in FUNCTION_MODULES:
        return getattr(import_module(f"{__name__}.{FUNCTION_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
