"""Agreement of gandiag's metrics with their peers on the same features. Exit code 1 if one differs.

    python -m benchmarks peer-parity [-n 1500] [--dim 256]

Peers: prdc (precision, recall, density, coverage), torch-fidelity (KID, FID, IS), SciPy's sqrtm (Fréchet). Each pair of
sets is drawn healthy and collapsed in several ways, because that is where implementations differ.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator

import numpy as np
import torch
from prdc import compute_prdc
from scipy.linalg import sqrtm
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from gandiag.metrics.frechet import frechet_distance
from gandiag.metrics.inception import inception_score
from gandiag.metrics.kernel_distance import kid_subsets
from gandiag.metrics.precision_recall import KEYS, prdc

KID = {
    "kid_kernel": "poly",
    "kid_kernel_poly_degree": 3,
    "kid_kernel_poly_gamma": None,
    "kid_kernel_poly_coef0": 1.0,
    "verbose": False,
    "rng_seed": 2020,
}


def worlds(n: int, dim: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, real and generated rows (n, dim) float32."""
    draw = torch.Generator().manual_seed(0)

    def normal(rows: int) -> Tensor:
        return torch.randn(rows, dim, generator=draw)

    real = normal(n)
    yield "healthy", real, normal(n)
    yield "far from the origin", real + 100, normal(n) + 100
    yield "thin", real, 0.8 * normal(n)
    yield "recycled", real, normal(n // 20).repeat(20, 1)
    yield "recycled, jittered", real, normal(n // 20).repeat(20, 1) + 1e-5 * normal(n // 20 * 20)
    yield "training copies", real, real.clone()


def pairs(real: Tensor, fake: Tensor) -> Iterator[tuple[str, float, float]]:
    """Statistic, the peer's value, ours."""
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = compute_prdc(real.numpy(), fake.numpy(), 5)
    ours = prdc(real, fake)
    yield from ((f"{key} (prdc)", float(theirs[key]), getattr(ours, key)) for key in KEYS)
    x, y = real.double(), fake.double()
    size = min(len(x), len(y)) // 2
    found = kid_features_to_metric(y, x, kid_subsets=10, kid_subset_size=size, **KID)["kernel_inception_distance_mean"]
    yield "kid (torch-fidelity)", found, kid_subsets(x, y, subsets=10, size=size)[0]
    sides = [fid_features_to_statistics(side) for side in (y, x)]
    distance = frechet_distance(x, y)
    yield (
        "fid (torch-fidelity)",
        fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"],
        distance,
    )
    root = float(np.trace(sqrtm(sides[0]["sigma"] @ sides[1]["sigma"]).real))
    gap = sides[0]["mu"] - sides[1]["mu"]
    yield (
        "frechet (sqrtm)",
        float(gap @ gap + np.trace(sides[0]["sigma"]) + np.trace(sides[1]["sigma"]) - 2 * root),
        distance,
    )
    yield "is (torch-fidelity)", isc_features_to_metric(fake)["inception_score_mean"], inception_score(fake)[0]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-n", type=int, default=1500)
    options.add_argument("--dim", type=int, default=256)
    chosen = options.parse_args()
    failed = 0
    for world, real, fake in worlds(chosen.n, chosen.dim):
        scale = float(real.double().var(0).sum())
        for name, theirs, ours in pairs(real, fake):
            # Rank-deficient covariances cost every route √eps of the trace; at distance 0 only that is left.
            slack = 1e-6 * max(
                abs(theirs), scale if "fid" in name or "frechet" in name else 1e-6 if "kid" in name else 1
            )
            equal = abs(theirs - ours) <= slack
            failed += not equal
            print(f"{'ok ' if equal else 'OFF'} {world:<22} {name:<24} {theirs:.10g}  {ours:.10g}")
    print(f"{failed} differ" if failed else "all equal")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
