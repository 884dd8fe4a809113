"""Digit generators trained here, graded by an independent reader: the score against the loss that they really have.

    python -m benchmarks digit-generators                              # seed 0, pixels
    python -m benchmarks digit-generators --first-seed 40 --seeds 1 --keep FILE     # resumes from FILE
    python -m benchmarks digit-generators --audit                      # those at scale 1 also by a whole audit

Variational autoencoders and GANs (plain, and with the R1 penalty) of 2, 3, 5, 7 and 10 of scikit-learn's digits, each
with its latents at scale 1, .6 and .3, and a smoothed bootstrap of all classes, which has lost nothing. The reader is a
network that ships with gandiag (its held-out accuracy is printed); the score never sees it.

True loss = 1 − (1 − TV) (width kept) (distinct): TV is that between the shares of the ten digits as read; width is the
spread within a class in the reader's last layer over that of real digits that are read as the same class, at most 1,
averaged over the mass that both have.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import fmean
from typing import Any

import torch
from kept_results import KeptResults
from torch import Tensor, nn
from trained_mixtures import LIMIT, spearman, verdict
from validity_classes import bootstrap, digits

import gandiag
from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.testing.competing_metrics import compute_metrics
from gandiag.trainer.digit_classifier import load_classifier, validation_accuracy
from gandiag.trainer.gan_trainer import make_trainer
from gandiag.trainer.image_data import load_digit_images, load_digits_dataset
from gandiag.trainer.recipes import NetworkSettings, Recipe, get_recipe
from gandiag.trainer.remedies.registry import get_remedy
from gandiag.trainer.unrolling.adam import AdamSettings

N_CLASSES = (10, 7, 5, 3, 2)
SCALES = (1.0, 0.6, 0.3)
N_FAKE = 600
VAE_LATENT, VAE_WIDTH, VAE_STEPS = 12, 128, 2500
GAN_STEPS, GAN_BATCH = 2000, 64
OTHERS = ("frechet", "coverage", "recall", "vendi_1", "irs", "pqmass")
Sampler = Callable[[float, int], Tensor]
"""(latent scale, seed) -> images (N_FAKE, 1, 8, 8) in [-1, 1]."""


def chosen_images(count: int, seed: int) -> Tensor:
    """The digits of `count` classes that the seed chooses."""
    images, labels = load_digit_images()
    classes = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:count]
    return images[torch.isin(labels, classes)]


def train_vae(images: Tensor, seed: int) -> Sampler:
    """A small variational autoencoder; its samples are the decoder's means, blurry as usual."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Linear(64, VAE_WIDTH), nn.ReLU(), nn.Linear(VAE_WIDTH, 2 * VAE_LATENT))
        decoder = nn.Sequential(nn.Linear(VAE_LATENT, VAE_WIDTH), nn.ReLU(), nn.Linear(VAE_WIDTH, 64), nn.Tanh())
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    rows = images.flatten(1)
    for _ in range(VAE_STEPS):
        batch = rows[torch.randint(len(rows), (64,), generator=rng)]
        mean, log_variance = encoder(batch).chunk(2, 1)
        latent = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=rng)
        error = (decoder(latent) - batch).square().sum(1) / 0.2
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        optimizer.zero_grad()
        (0.5 * (error + divergence)).mean().backward()
        optimizer.step()

    def sample(scale: float, draw: int) -> Tensor:
        latents = torch.randn(N_FAKE, VAE_LATENT, generator=torch.Generator().manual_seed(draw))
        with torch.no_grad():
            return decoder(scale * latents).unflatten(1, (1, 8, 8))

    return sample


def make_short_recipe() -> Recipe:
    """The digits recipe of the reference trainer with small dense networks."""
    return dataclasses.replace(
        get_recipe("digits"),
        batch=GAN_BATCH,
        generator=NetworkSettings(hidden=(128, 128), final="tanh"),
        discriminator=NetworkSettings(hidden=(128, 128), activation="leaky:0.2"),
        adam_generator=AdamSettings(lr=5e-4, beta1=0.5),
        adam_discriminator=AdamSettings(lr=5e-4, beta1=0.5),
    )


def train_gan(images: Tensor, seed: int, remedy: str = "none") -> Sampler:
    """A short run of the reference trainer on these images alone."""

    def draw(n: int, rng: torch.Generator) -> Tensor:
        return images[torch.randint(len(images), (n,), generator=rng)]

    dataset = dataclasses.replace(load_digits_dataset(), draw=draw)
    trainer = make_trainer(make_short_recipe(), dataset, get_remedy(remedy), seed=seed, unroll_steps=0)
    while trainer.steps < GAN_STEPS:
        trainer.step()

    def sample(scale: float, draw: int) -> Tensor:
        net, rng = trainer.generator.net.eval(), torch.Generator().manual_seed(draw)
        with torch.no_grad():
            return net(scale * trainer.sample_latents(N_FAKE, rng))

    return sample


def draw_bootstrap(seed: int) -> Tensor:
    """New images of all classes, in the shares of the data."""
    images, generator = digits(), torch.Generator().manual_seed(seed)
    counts = (images.labels.bincount() * N_FAKE / len(images.labels)).round().long()
    parts = [bootstrap(images, label, int(counts[label]), generator) for label in range(10)]
    return torch.cat(parts) * 2 - 1


def generators(seed: int) -> Iterator[tuple[str, Callable[[], dict[str, Tensor]]]]:
    """(name, function that trains it and samples it at every latent scale)."""
    for count in N_CLASSES:
        for kind, train in (("vae", train_vae), ("gan", train_gan), ("r1", partial(train_gan, remedy="r1"))):

            def make(train: Any = train, count: int = count) -> dict[str, Tensor]:
                sample = train(chosen_images(count, 100 * seed + count), seed)
                return {f"x{scale}": sample(scale, 9_000 + seed) for scale in SCALES}

            yield f"{kind} {count} {seed}", make
    yield f"bootstrap 10 {seed}", lambda: {f"#{i}": draw_bootstrap(1000 * seed + i) for i in range(3)}


class Reader:
    """The shipped classifier, as the grader."""

    def __init__(self) -> None:
        self.net = load_classifier()
        self.real = self.read(load_digit_images()[0])

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class (N,) and the last layer's input (N, 192)."""
        with torch.no_grad():
            hidden = self.net[:-1](images)
            return self.net[-1](hidden).argmax(1), hidden

    def true_loss(self, images: Tensor) -> tuple[float, float, float]:
        """(loss, total variation of the classes, width kept)."""
        (real_class, real_rows), (fake_class, fake_rows) = self.real, self.read(images)
        shares = [labels.bincount(minlength=10).double() / len(labels) for labels in (real_class, fake_class)]
        kept = torch.minimum(*shares)
        widths = torch.zeros(10, dtype=torch.float64)
        for digit in range(10):
            real, fake = real_rows[real_class == digit], fake_rows[fake_class == digit]
            if len(fake) > 2:
                ratio = (fake - fake.mean(0)).square().sum(1).mean() / (real - real.mean(0)).square().sum(1).mean()
                widths[digit] = ratio.sqrt().clamp(max=1)
        width = float((kept * widths).sum() / kept.sum())
        distinct = len(torch.unique(images, dim=0)) / len(images)
        return 1 - float(kept.sum()) * width * distinct, 1 - float(kept.sum()), width


def grade(images: Tensor, reader: Reader, with_audit: bool) -> dict[str, float]:
    """Truth, score by pixels, the same by a whole audit where asked, and other metrics on the same rows."""
    loss, variation, width = reader.true_loss(images)
    real = load_digit_images()[0]
    rows = real.flatten(1), images.flatten(1)
    estimate = estimate_diversity_loss(*rows)
    n = min(len(images), len(real) // 2)
    row = {
        "truth": loss,
        "variation": variation,
        "width": width,
        "score": estimate.score.value,
        "low": estimate.score.low,
        "high": estimate.score.high,
        "doubtful": float(bool(estimate.inconclusive_reasons)),
        **compute_metrics(rows[0][:n], rows[1][:n], OTHERS),
    }
    if with_audit:
        record = gandiag.audit(((images + 1) / 2).clamp(0, 1).numpy(), real=((real + 1) / 2).numpy())
        row |= {"audit": record.score.value, "audit_low": record.score.low, "audit_high": record.score.high}
        row["audit_doubtful"] = float(record.verdict not in ("healthy", "collapsed", "memorised"))
    return row


def grade_all(make: Callable[[], dict[str, Tensor]], reader: Reader, with_audit: bool) -> dict[str, dict[str, float]]:
    found = make()
    return {name: grade(images, reader, with_audit and name == next(iter(found))) for name, images in found.items()}


def as_audit(row: dict[str, float]) -> dict[str, float]:
    """The row with the audit's score in place of that of pixels."""
    names = {"score": "audit", "low": "audit_low", "high": "audit_high", "doubtful": "audit_doubtful"}
    return row | {name: row[other] for name, other in names.items()}


def summarize(rows: list[dict[str, float]], title: str) -> None:
    truth = [row["truth"] for row in rows]
    verdicts = [verdict(row) for row in rows]
    false_alarms = sum(found == "collapsed" and loss < LIMIT for found, loss in zip(verdicts, truth, strict=True))
    missed = sum(found == "healthy" and loss >= LIMIT for found, loss in zip(verdicts, truth, strict=True))
    scores = [row["score"] for row in rows]
    print(
        f"{title}: {len(rows)} generators; Spearman {spearman(truth, scores):.2f}, mean absolute error "
        f"{fmean(abs(x - y) for x, y in zip(scores, truth, strict=True)):.3f}; "
        f"{sum(loss < LIMIT for loss in truth)} with a loss below {LIMIT}, {false_alarms} of them called collapsed; "
        f"{missed} above called healthy; "
        f"{verdicts.count('inconclusive')} undecided"
    )


def run(options: argparse.Namespace) -> list[dict[str, float]]:
    kept, reader = KeptResults(options.keep), Reader()
    print(f"held-out accuracy of the reader: {validation_accuracy():.3f}")
    print("generator              truth   TV   width  score  interval      verdict       audit")
    rows = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name, make in generators(seed):
            if options.only not in name:
                continue
            found = kept.get(f"{name} {options.audit}", lambda make=make: grade_all(make, reader, options.audit))  # type: ignore[misc]
            for part, row in found.items():
                rows.append(row)
                audit = (
                    f"{row['audit']:.2f} [{row['audit_low']:.2f}, {row['audit_high']:.2f}] {verdict(as_audit(row))}"
                    if "audit" in row
                    else ""
                )
                print(
                    f"{name + ' ' + part:20s}   {row['truth']:.2f}  {row['variation']:.2f}   {row['width']:.2f}   "
                    f"{row['score']:.2f}  [{row['low']:.2f}, {row['high']:.2f}]  {verdict(row):12s}  {audit}",
                    flush=True,
                )
    summarize(rows, "pixels")
    audited = [row for row in rows if "audit" in row]
    if len(audited) > 2:
        summarize(audited, "pixels, of those audited")
        summarize([as_audit(row) for row in audited], "audit")
    truth = [row["truth"] for row in rows]
    print("|Spearman|: " + ", ".join(f"{key} {abs(spearman(truth, [row[key] for row in rows])):.2f}" for key in OTHERS))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--audit", action="store_true", help="a whole audit of those at scale 1 as well: half a minute each"
    )
    parser.add_argument("--only", default="", help="generators whose name contains this, such as 'vae 5'")
    parser.add_argument(
        "--keep", metavar="FILE", help="write every generator's results here at once, and resume from it"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    run(options)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
