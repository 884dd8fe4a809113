"""Real images with c of 10 classes dropped should score c/10, by `pixels` and by `imagenet` features.

digits   scikit-learn's 1,797 digits, 8 x 8. Up to three classes dropped: held-out digits. With more, too few would be
left, so a
         class-conditional sampler stands in: the smoothed bootstrap with the class's own covariance (Silverman and
         Young 1987), a digit shrunk towards its class's mean plus a little normal noise (KERNEL), rounded to the 17
         gray levels. It is fitted to digits that the reference does not hold; its score with all classes comes
         first.
images   fixtures/real.npz, 32 x 32 in ten classes: held-out images throughout, fewer as classes are dropped.

The seed decides which classes are dropped; each step drops one more.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from validity import seeds_of

from gandiag.features.extractors import ExtractorRequest, create_extractor
from gandiag.features.view_names import parse_view_name
from gandiag.interfaces import OutputSpec
from gandiag.metrics.score.multi_view import estimate_multi_view_loss

HELD_OUT = 0.4  # of the digits: what held-out samples are taken from, and what the sampler is fitted to
SAMPLED_FROM = 4  # dropped classes from which on the sampler is used
KERNEL = 0.15  # share of the class's own spread that the sampler draws anew
GREYS = 16
FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "real.npz"


@dataclass(frozen=True, slots=True)
class Images:
    """`pixels` (N, C, H, W) in [0, 1], `labels` (N,) int64 of ten classes."""

    pixels: Tensor
    labels: Tensor

    def features(self, name: str) -> Tensor:
        return embed(self.pixels, name)


def digits() -> Images:
    found = load_digits()
    return Images(torch.from_numpy(found.images).float()[:, None] / GREYS, torch.from_numpy(found.target).long())


def fixture_images() -> Images:
    with np.load(FIXTURES) as found:
        return Images(
            torch.from_numpy(found["images"]).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(found["labels"])
        )


def embed(pixels: Tensor, name: str) -> Tensor:
    """(N, D) by gandiag's own extractor."""
    output = OutputSpec("image", tuple(pixels.shape[1:]), (0.0, 1.0))
    return create_extractor(ExtractorRequest(parse_view_name(name), output))(pixels, output)


def scored(view: str, real: Tensor, fake: Tensor, seed: int) -> float:
    """The score of images, as an audit finds it, by one view alone."""
    return estimate_multi_view_loss({view: real}, {view: fake}, seed=seed, replicates=2)[0].score.value


def split(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the reference, and the others."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    cut = round(HELD_OUT * n)
    return order[cut:], order[:cut]


def bootstrap(images: Images, label: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` new images of one class, (count, C, H, W): mean and covariance of the class are kept, images are not."""
    rows = images.pixels[images.labels == label].flatten(1)  # (m, P)
    centred = rows - rows.mean(0)
    spread = torch.randn(count, len(rows), generator=generator) @ centred / math.sqrt(len(rows) - 1)  # (count, P)
    drawn = (
        rows.mean(0)
        + math.sqrt(1 - KERNEL**2) * centred[torch.randint(len(rows), (count,), generator=generator)]
        + KERNEL * spread
    )
    return ((drawn.clamp(0, 1) * GREYS).round() / GREYS).unflatten(1, images.pixels.shape[1:])


def sampled(images: Images, order: list[int], n: int, seed: int) -> Images:
    """Enough of each class that n are left in equal shares whichever go, in `order`: the last class needs n, the first
    n/10.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = [math.ceil(n / (len(order) - rank)) for rank in range(len(order))]
    parts = [bootstrap(images, label, count, generator) for label, count in zip(order, counts, strict=True)]
    return Images(
        torch.cat(parts), torch.cat([torch.full((count,), label) for label, count in zip(order, counts, strict=True)])
    )


def kept(labels: Tensor, gone: list[int], n: int | None = None) -> Tensor:
    """Rows whose class is not gone; with n, that many in equal shares."""
    classes = [label for label in range(10) if label not in gone]
    rows = [torch.nonzero(labels == label)[:, 0] for label in classes]
    return torch.cat(rows if n is None else [row[: math.ceil(n / len(classes))] for row in rows])


def score_digits(name: str, seed: int, steps: range) -> dict[str, tuple[float, float]]:
    """{"held-out c" or "sampler c": (target, score)}"""
    images = digits()
    real = images.features(name)
    reference, rest = split(len(real), seed)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()
    n = len(reference) // 2
    others = Images(images.pixels[rest], images.labels[rest])
    made = sampled(others, order, n, seed)
    drawn = made.features(name)
    out = {}
    for count in steps:
        gone = order[:count]
        lost = float(torch.isin(images.labels[reference], torch.tensor(gone)).double().mean()) if gone else 0.0
        if count < SAMPLED_FROM:
            out[f"held-out {count}"] = lost, scored(name, real[reference], real[rest[kept(others.labels, gone)]], seed)
        if count >= SAMPLED_FROM or count == 0:
            out[f"sampler {count}"] = lost, scored(name, real[reference], drawn[kept(made.labels, gone, n)], seed)
    return out


def score_images(name: str, seed: int, steps: range) -> dict[str, tuple[float, float]]:
    images = fixture_images()
    real = images.features(name)
    reference, rest = split(len(real), seed)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()
    out = {}
    for count in steps:
        gone = order[:count]
        lost = float(torch.isin(images.labels[reference], torch.tensor(gone)).double().mean()) if gone else 0.0
        out[f"held-out {count}"] = (
            lost,
            scored(name, real[reference], real[rest[kept(images.labels[rest], gone)]], seed),
        )
    return out


def run(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Prints and returns {features: {step: mean error}}."""
    of_digits = options.mode == "digits"
    out: dict[str, dict[str, float]] = {}
    for name in (name for name in (("pixels", "imagenet") if of_digits else ("imagenet",)) if options.only in name):
        seeds = seeds_of(options, 3 if name == "pixels" else 1, 10 if name == "pixels" else 3)
        found = [
            (score_digits if of_digits else score_images)(name, seed, range(10) if of_digits else range(8))
            for seed in seeds
        ]
        print(
            f"\n{options.mode} by {name}, seeds {seeds.start} to {seeds.stop - 1}\nclasses dropped   target   "
            "score   error",
            flush=True,
        )
        out[name] = {}
        for step in found[0]:
            target, value = (fmean(one[step][i] for one in found) for i in (0, 1))
            out[name][step] = value - target
            print(f"{step:16s}   {target:.3f}    {value:.3f}   {value - target:+.3f}", flush=True)
    return out
