"""The table of built-in metrics: names, factories, defaults and plain functions.

To add a metric, write its module, add one line to `_ENTRIES`, describe its measurements in data/catalogue, and test it.
Importing this module is cheap: metrics are imported when they are first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gandiag.interfaces import Metric, OutputSpec
from gandiag.registry import Registry

if TYPE_CHECKING:
    from gandiag.sampling.tables.encoder import TableEncoder


@dataclass(frozen=True, slots=True)
class MetricContext:
    """What a metric factory needs to know.

    `referenced`: there are real data. `roles`: all roles of generated samples, "fake" first. `encoder`: of the
    columns of the view "table". `is_network`: the samples come from a network, not from a set of samples.
    `neighbors_max`: the most samples that are compared pair by pair; None for all.
    """

    view: str
    n: int
    seed: int
    output: OutputSpec
    referenced: bool
    is_conditional: bool
    class_names: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("fake",)
    encoder: TableEncoder | None = None
    is_network: bool = False
    neighbors_max: int | None = None

    @property
    def n_neighbors(self) -> int:
        """Generated samples of a metric whose cost grows with the square: a subset, by seed, of the n."""
        return self.n if self.neighbors_max is None else min(self.n, self.neighbors_max)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A module of this package, the metric class or factory in it, and its functions for `gandiag.metrics`."""

    module: str
    factory: str
    functions: tuple[str, ...] = ()
    is_default: bool = True


# Default metrics are measured in this order.
_ENTRIES = {
    "outputs": _Entry("outputs", "create_output_metrics"),
    "score": _Entry("collapse_score", "create_score_metrics"),
    "classes": _Entry("per_class", "create_class_metrics"),
    "neighbours": _Entry("precision_recall", "Prdc", ("prdc", "precision", "recall", "density", "coverage")),
    "frechet": _Entry("frechet", "FrechetDistance", ("frechet_distance",)),
    "kid": _Entry("kernel_distance", "Kid", ("kid", "kid_subsets")),
    "vendi": _Entry("vendi", "Vendi", ("vendi_score",)),
    "ndb": _Entry("ndb_bins", "Ndb", ("ndb",), is_default=False),
    "irs": _Entry(
        "image_retrieval", "ImageRetrieval", ("image_retrieval_score", "image_retrieval_ratio"), is_default=False
    ),
    "pqmass": _Entry("voronoi_cells", "VoronoiMass", ("pqmass",), is_default=False),
    "kernel_missing": _Entry("kernel_modes", "KernelMissingModes", ("missing_kernel_modes",), is_default=False),
    "pairwise": _Entry("pairwise", "PairwiseDistances", ("pairwise_distance", "pairwise_distances", "pairwise_ratio")),
    "duplicates": _Entry("duplicates", "Duplicates", ("duplicate_threshold", "near_duplicates", "support_size")),
    "memorisation": _Entry("memorization", "Memorization", ("authenticity", "copies", "memorised")),
    "structure": _Entry("structure_gap", "create_structure_metrics"),
    "modes": _Entry("modes", "create_mode_metrics"),
    "fid": _Entry("inception", "create_fid", ("fid",), is_default=False),
    "is": _Entry("inception", "create_inception_score", ("inception_score",), is_default=False),
}

# Names that --metrics accepts. A metric class is constructed from the context; a factory takes it and returns metrics.
METRICS = Registry(
    "metrics", {name: f"gandiag.metrics.{entry.module}:{entry.factory}" for name, entry in _ENTRIES.items()}
)
# Metrics whose cost grows with the square of the samples; the score chooses for itself.
PAIRWISE_METRICS = frozenset(
    {"neighbours", "kid", "irs", "pqmass", "kernel_missing", "pairwise", "duplicates", "memorisation", "modes"}
)
DEFAULT_METRICS = tuple(name for name, entry in _ENTRIES.items() if entry.is_default)
# Functions without a metric: they need the group of each sample, or a bandwidth.
_GROUP_FUNCTIONS = {"conditional_vendi": "kernel_entropy", "rke_score": "kernel_entropy"}
FUNCTION_MODULES = {
    **{function: entry.module for entry in _ENTRIES.values() for function in entry.functions},
    **_GROUP_FUNCTIONS,
}
# Metric -> (view, measurement key). Reported as not measured unless requested, or unless the weights are on this disk.
INCEPTION_METRICS = {"fid": ("inception-v3-compat", "fid"), "is": ("inception-v3-compat/logits", "inception_score")}


def create_metrics(factory: Any, context: MetricContext) -> Sequence[Metric]:
    """The metrics of a metric class (view, n, seed, referenced) or of a function of the context."""
    if isinstance(factory, type):
        return [factory(context.view, context.n, context.seed, context.referenced)]
    metrics: Sequence[Metric] = factory(context)
    return metrics
