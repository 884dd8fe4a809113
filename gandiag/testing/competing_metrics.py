"""Published metrics on the same rows as the score, through one interface: the columns of `gandiag selftest`.

    compute_metrics(real, fake, ("recall", "ndb"))        # {"recall": .43, "ndb": .92}

Each is computed as its authors define it, on equal numbers of real and generated rows, with its documented direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict

import torch
from torch import Tensor

from gandiag.catalogue import get_entry
from gandiag.metrics.duplicates import near_duplicates
from gandiag.metrics.frechet import frechet_distance
from gandiag.metrics.image_retrieval import image_retrieval_score
from gandiag.metrics.kernel_distance import kid
from gandiag.metrics.ndb_bins import ndb
from gandiag.metrics.pairwise import pairwise_distances
from gandiag.metrics.precision_recall import prdc
from gandiag.metrics.vendi import ORDERS, hill_number, similarity_eigenvalues
from gandiag.metrics.voronoi_cells import pqmass

SIMILARITY_KEY = "pairwise_similarity"


def pairwise_similarity(real: Tensor, fake: Tensor) -> float:
    """Mean over all pairs of generated rows of 2⟨x, y⟩ / (|x|² + |y|²), x and y about the real mean; in [-1, 1].

    Lower is more diverse. The counterpart of MS-SSIM for vectors, which have neither pixels nor scales: SSIM's contrast
    and structure term with one window that spans all coordinates. 1 where all rows are equal, about 0 for independent
    directions. Source: Wang et al. 2004, eq. 13.
    """
    x = (fake - real.mean(0)).double()  # (M, D)
    squared_norms = x.square().sum(1)  # (M,)
    similarity = 2 * (x @ x.T) / (squared_norms[:, None] + squared_norms).clamp(min=1e-300)  # (M, M)
    return float((similarity.sum() - similarity.diagonal().sum()) / (len(x) * (len(x) - 1)))


def _vendi_scores(real: Tensor, fake: Tensor) -> dict[str, float]:
    shares = similarity_eigenvalues(fake, real.mean(0, dtype=torch.float64))
    return {key: hill_number(shares, order) for key, order in ORDERS.items()}


def _distance_statistics(real: Tensor, fake: Tensor) -> dict[str, float]:
    distances = pairwise_distances(fake).double()
    return {
        "pairwise_distance": float(distances.mean()),
        "pairwise_distance_q05": float(distances.kthvalue(max(1, len(distances) // 20)).values),
    }


# Metrics computed together in one pass.
_GROUPS: dict[tuple[str, ...], Callable[[Tensor, Tensor], dict[str, float]]] = {
    ("precision", "recall", "density", "coverage"): lambda real, fake: asdict(prdc(real, fake)),
    ("frechet",): lambda real, fake: {"frechet": frechet_distance(real, fake)},
    ("kid",): lambda real, fake: {"kid": kid(real, fake)},
    ("ndb",): lambda real, fake: {"ndb": ndb(real, fake)},
    tuple(ORDERS): _vendi_scores,
    ("pairwise_distance", "pairwise_distance_q05"): _distance_statistics,
    (SIMILARITY_KEY,): lambda real, fake: {SIMILARITY_KEY: pairwise_similarity(real, fake)},
    ("irs",): lambda real, fake: {"irs": image_retrieval_score(real, fake)},
    ("pqmass",): lambda real, fake: {"pqmass": pqmass(real, fake)},
    ("near_duplicates",): lambda real, fake: {"near_duplicates": near_duplicates(real, fake)},
}

OTHER_METRICS = tuple(key for keys in _GROUPS for key in keys)
TABLE_METRICS = ("frechet", "recall", "coverage", "ndb", "vendi_1", "pairwise_distance", SIMILARITY_KEY)


def compute_metrics(real: Tensor, fake: Tensor, keys: Iterable[str] = OTHER_METRICS) -> dict[str, float]:
    """The metrics `keys` of (N, D) real and (M, D) generated rows; use N = M for a fair comparison."""
    keys = tuple(keys)
    values: dict[str, float] = {}
    for group, compute in _GROUPS.items():
        if set(group) & set(keys):
            values |= compute(real, fake)
    return {key: values[key] for key in keys}


def metric_direction(key: str) -> str:
    """The documented direction: "higher", "lower" or "neither"."""
    return get_entry(key).better
