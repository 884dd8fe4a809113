"""Cost of an audit relative to the bare forward passes of generator and extractor over the same samples.

    python -m benchmarks audit-cost [--n 2000] [--size 64] [--threads 2]

A random DCGAN of `--size` pixels is audited against noise images with `imagenet` at 128 px. The target of 1.15 covers
the point values of score, Fréchet distance, KID, PRDC and pairwise distances. Clustering, intervals and the sweep are
listed separately.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["GANDIAG_CACHE"] = "off"


def dcgan(size: int, width: int = 64) -> object:
    """pytorch/examples' generator: 100 latents to size x size RGB, every batch norm freshly initialised."""
    from torch import nn

    layers: list[nn.Module] = []
    channels, side, into = width * size // 8, 4, 100
    layers += [nn.ConvTranspose2d(into, channels, 4, 1, 0, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    while side * 2 < size:
        layers += [
            nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
        ]
        channels, side = channels // 2, side * 2
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh()).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    ask = parser.parse_args()
    import torch

    torch.set_num_threads(ask.threads)
    from gandiag.config import AuditConfig
    from gandiag.metrics.frechet import frechet_distance
    from gandiag.metrics.kernel_distance import kid
    from gandiag.metrics.pairwise import pairwise_distances
    from gandiag.metrics.precision_recall import prdc
    from gandiag.metrics.score.estimator import estimate_diversity_loss
    from gandiag.pipeline.engine import StageTimer, collect_needs, run_sources
    from gandiag.pipeline.session import open_session
    from gandiag.stats.splits import make_split
    from gandiag.stats.subset import SubsetSpec

    torch.manual_seed(0)
    module = dcgan(ask.size)
    with torch.inference_mode():
        real = torch.cat([module(torch.randn(100, 100, 1, 1)) for _ in range(2 * ask.n // 100)])  # type: ignore[operator]
        real = ((real + 0.1 * torch.randn(real.shape)).clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).numpy()

    study = open_session(module, AuditConfig(latent_dim=100, n=ask.n, device="cpu"), real=real)
    view = next(iter(study.views.values()))
    output = study.subject.output

    def seconds(work: object) -> float:
        start = time.perf_counter()
        work()  # type: ignore[operator]
        return time.perf_counter() - start

    def bare() -> None:
        sampler = study.subject.sampler
        assert sampler is not None
        with torch.inference_mode():
            for start in range(0, ask.n, sampler.batch_size):
                images = module(torch.randn(min(sampler.batch_size, ask.n - start), 100, 1, 1))  # type: ignore[operator]
                view.extractor(images, output)
            for batch in range(0, 2 * ask.n, 128):
                images = torch.from_numpy(real[batch : batch + 128]).float().div(127.5).sub(1)
                view.extractor(images, output)

    clock = StageTimer()
    needs = collect_needs(study.plan.metrics)
    results: dict[str, dict[object, object]] = {}

    def passes() -> None:
        results.update(
            run_sources(
                needs, {role: (study.batch_factory(role, needs), study.n_samples(role)) for role in needs}, timer=clock
            )
        )

    forward, passed = seconds(bare), seconds(passes)
    sets = make_split(results["real"][SubsetSpec(view.name, 2 * ask.n)], results["fake"][SubsetSpec(view.name, ask.n)])  # type: ignore[arg-type]
    both = torch.cat([sets.reference, sets.heldout])
    points = {
        "score": lambda: estimate_diversity_loss(both, sets.fake, replicates=0),
        "frechet": lambda: frechet_distance(sets.reference, sets.fake),
        "kid": lambda: kid(sets.reference, sets.fake),
        "neighbours": lambda: prdc(sets.reference, sets.fake),
        "pairwise": lambda: (pairwise_distances(sets.fake), pairwise_distances(sets.reference)),
    }
    taken = {name: seconds(work) for name, work in points.items()}
    total = passed + sum(taken.values())
    print(
        f"bare forward passes      {forward:7.2f} s   {ask.n:,} generated and {2 * ask.n:,} real images, "
        f"{ask.size} px, {view.name}"
    )
    print(f"the engine's passes      {passed:7.2f} s")
    for name, value in taken.items():
        print(f"  {name:<22} {value:7.2f} s   point value")
    print(f"audit, point values      {total:7.2f} s   {total / forward:.2f} x the bare forward passes (target 1.15)")
    rest = StageTimer()
    from gandiag.pipeline.engine import run_metrics
    from gandiag.pipeline.run_probes import run_probes

    run_metrics(study.plan.metrics, results, timer=rest)
    run_probes(study, results, timer=rest, progress=lambda *event: None)
    for name, value in rest.seconds.items():
        print(f"  {name:<22} {value:7.2f} s   with intervals and floors")


if __name__ == "__main__":
    main()
