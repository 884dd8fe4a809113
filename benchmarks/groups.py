"""Variety within groups by simulation: coverage, false verdicts, what is found, and which groups are named.

    python benchmarks/groups.py --replicates 300 --seed 1000

Seeds: development used 0 to 999; what is reported starts at 1000. Widths of groups are lognormal (sigma 0.5), centers
normal; "heavy" draws the samples of a group from Student's t with 3 degrees of freedom.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gandiag.metrics.group_variety import GroupedFeatures, GroupVariety, compare_groups
from gandiag.record import Record, Score
from gandiag.verdict.policy import Policy, compute_verdict

SHAPES = ((50, 4), (100, 8))
DIMS = (4, 16)


@dataclass(frozen=True, slots=True)
class World:
    """Groups of one shape: G groups of n samples in `dim` effective dimensions."""

    n_groups: int
    n: int
    dim: int
    heavy: bool = False

    def draw(self, seed: int, factor: float | np.ndarray = 1.0, stream: int = 0) -> GroupedFeatures:
        """Samples with widths times `factor`; groups and centers depend on the seed alone."""
        world = np.random.default_rng(seed)
        widths = np.exp(0.5 * world.standard_normal(self.n_groups)) * factor
        centers = 5 * world.standard_normal((self.n_groups, 1, self.dim))
        noise = np.random.default_rng([seed, stream + 1])
        shape = (self.n_groups, self.n, self.dim)
        z = noise.standard_t(3, shape) if self.heavy else noise.standard_normal(shape)
        rows = (centers + z * widths[:, None, None]).reshape(-1, self.dim)
        names = [group for group in range(self.n_groups) for _ in range(self.n)]
        return GroupedFeatures(torch.from_numpy(rows).float(), names)

    def __str__(self) -> str:
        return f"{self.n_groups} x {self.n}, dim {self.dim}{', heavy' * self.heavy}"


def verdict(found: GroupVariety) -> str:
    score = Score(found.score.value, found.score.low, found.score.high, basis="groups")
    return compute_verdict(Record("inconclusive", (), score, {}, {}, groups=found.document), Policy())


def share(check: Callable[[int], bool], seeds: range) -> float:
    return sum(check(seed) for seed in seeds) / len(seeds)


def report_coverage(seeds: range) -> None:
    print("coverage of the 95 % interval, and its half-width, at a true ratio of 0.6")
    for n_groups, n in SHAPES:
        for dim in DIMS:
            for heavy in (False, True):
                world = World(n_groups, n, dim, heavy)
                found = [compare_groups(world.draw(s, 0.6), world.draw(s, 1.0, 1), seed=s).document for s in seeds]
                within = [document["within"] for document in found]
                covered = np.mean([entry["low"] <= 0.6 <= entry["high"] for entry in within])
                half = np.mean([(entry["high"] - entry["low"]) / 2 / entry["value"] for entry in within])
                print(f"  {world!s:<26} {covered:.3f}  ±{100 * half:.1f} %")


def report_verdicts(seeds: range) -> None:
    print("verdicts of collapse where subject = reference, and where half of the width is left")
    for n_groups, n in SHAPES:
        for dim in DIMS:
            world = World(n_groups, n, dim)
            false = share(
                lambda s, w=world: verdict(compare_groups(w.draw(s), w.draw(s, 1.0, 1))) == "collapsed", seeds
            )
            found = share(
                lambda s, w=world: verdict(compare_groups(w.draw(s, 0.5), w.draw(s, 1.0, 1))) == "collapsed", seeds
            )
            healthy = share(
                lambda s, w=world: verdict(compare_groups(w.draw(s), w.draw(s, 1.0, 1))) == "healthy", seeds
            )
            print(f"  {world!s:<26} false {false:.3f}  found {found:.3f}  (healthy where equal {healthy:.3f})")


def report_names(seeds: range) -> None:
    print("5 of 50 groups collapsed, 8 samples each: recall and false discovery rate of the names")
    for dim in DIMS:
        for factor in (0.02, 0.1, 0.2):
            world, recalls, wrong = World(50, 8, dim), [], []
            for seed in seeds:
                dead = np.random.default_rng(seed).permutation(50)[:5]
                factors = np.ones(50)
                factors[dead] = factor
                rows = compare_groups(world.draw(seed, factors), world.draw(seed, 1.0, 1)).document["collapsed"]
                named = {int(row["group"]) for row in rows}
                recalls.append(len(named & set(dead.tolist())) / 5)
                wrong.append(len(named - set(dead.tolist())) / max(1, len(named)))
            print(f"  dim {dim:<3} width x {factor:<5} recall {np.mean(recalls):.3f}  FDR {np.mean(wrong):.3f}")


def report_extremes(seeds: range) -> None:
    world = World(50, 4, 16)
    ratios = [compare_groups(world.draw(s, 0.02), world.draw(s, 1.0, 1)).document["within"]["value"] for s in seeds]
    error = np.abs(np.array(ratios) - 0.02).max()
    print(f"z ignored (width x 0.02): ratio {np.mean(ratios):.4f}, worst error {error:.4f}")
    still = share(lambda s: verdict(compare_groups(world.draw(s, 1e-7), world.draw(s, 0.0, 1))) == "healthy", seeds)
    print(f"deterministic against deterministic: healthy in {still:.3f}")


def report_cost(n_groups: int, per_group: int) -> None:
    """Processor seconds of a whole audit against a reference, over those of the bare forward passes of its images."""
    import time

    from gandiag import audit
    from gandiag.features.views import make_views
    from gandiag.interfaces import OutputSpec

    generator = np.random.default_rng(0)
    count = n_groups * per_group
    groups = np.repeat(np.arange(n_groups), per_group)
    sides = [generator.integers(0, 256, (count, 64, 64, 3)).astype(np.uint8) for _ in range(2)]
    output = OutputSpec("image", (3, 64, 64), (0.0, 1.0))
    (view,) = make_views(["imagenet"], output)
    view.extractor(torch.zeros(64, 3, 64, 64), output)
    start = time.process_time()
    for images in sides:
        for part in np.array_split(images, max(1, count // 64)):
            view.extractor(torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255, output)
    bare = time.process_time() - start
    start = time.process_time()
    audit(sides[0], groups=groups, against=sides[1], against_groups=groups)
    whole = time.process_time() - start
    print(
        f"{n_groups} groups x {per_group} at 64 px, both sides: {whole:.1f} s, {whole / bare:.2f} x the forward passes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1000)
    parts = {
        "coverage": report_coverage,
        "verdicts": report_verdicts,
        "names": report_names,
        "extremes": report_extremes,
    }
    parser.add_argument("--part", nargs="+", choices=parts, default=list(parts), help="some of the tables")
    parser.add_argument("--cost", type=int, default=0, metavar="GROUPS", help="only the cost, with 8 images a group")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cost:
        report_cost(options.cost, 8)
        return
    seeds = range(options.seed, options.seed + options.replicates)
    print(f"seeds {seeds.start} to {seeds.stop - 1}")
    for name in options.part:
        parts[name](seeds)


if __name__ == "__main__":
    main()
