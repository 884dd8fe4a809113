"""Lost mass, learned: a cross-fitted classifier finds the part of the real data that the generator never shows, without cells or balls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

N_COMPONENTS = 64  # whitened principal components; with their squares, the classifier's inputs
N_FOLDS = 5
RIDGE_PENALTY = 1.0  # prior precision of a coefficient, in units of one row
NEWTON_STEPS = 8  # of Newton's method
CLEAR_DENSITY_RATIO = 3.0  # where one side is more than this many times as dense, its rows are clearly its own


@dataclass(frozen=True, slots=True)
class LogOdds:
    """Held-out log odds that a row is real rather than generated, at equal shares: `real` (N,), `fake` (M,). Only their order and sign count."""

    real: Tensor
    fake: Tensor

    def total_variation(self) -> float:
        """Total variation as far as the classifier shows it, about −0.05 … 1; 0 on average where there is no difference."""
        return float((self.real > 0).float().mean() - (self.fake > 0).float().mean())

    def real_only_fraction(self) -> float:
        """Share of real rows, in [0, 1], beyond what CLEAR times as many generated rows would cover: real data without a counterpart."""
        return _tail(self.real, self.fake)

    def fake_only_fraction(self) -> float:
        """The same of generated rows that no real ones are near, in [0, 1]: junk, or a generator that stands beside the data."""
        return _tail(-self.fake, -self.real)

    def missing_fraction(self) -> float:
        """The part of the variation that is lost variety, and not low fidelity, about −0.05 … 1.

        Where half of the data is never generated, many real rows are clearly real, and hardly a generated row is clearly generated: what
        is left is twice as dense, no more. Where samples are noisy or blurred, as many are clearly generated. So the variation is taken
        as far as `absent` exceeds twice `invented`, and stands out of what chance shows. In doubt, for fidelity. Reads low beside junk,
        and where the classifier is weak.
        """
        absent, invented = self.real_only_fraction(), self.fake_only_fraction()
        noise = 2 / math.sqrt(min(len(self.real), len(self.fake)))  # below this neither is seen
        return self.total_variation() * max(0.0, absent - 2 * invented) * absent / (absent**2 + noise**2)

    def subset(self, real_indices: Tensor, fake_indices: Tensor) -> LogOdds:
        """The odds of the rows picked alone, without fitting again: for intervals. Indices (n,)."""
        return LogOdds(self.real[real_indices], self.fake[fake_indices])


def cross_fit_log_odds(real: Tensor, fake: Tensor, *, seed: int) -> LogOdds:
    """Held-out log odds by ridge logistic regression on 64 whitened principal components and their squares, five folds.

    `real` (N, D), `fake` (M, D) float32. Costs one D × D eigenproblem or n × n, whichever is less, and about 40 Newton steps of
    (N + M) · 129² flops.
    """
    inputs = _inputs(torch.cat([real, fake]))
    label = torch.cat([torch.ones(len(real)), torch.zeros(len(fake))]).double()
    weight = torch.where(label > 0, 0.5 / len(real), 0.5 / len(fake)) * len(label)  # equal shares
    generator = torch.Generator().manual_seed(seed)
    fold = torch.cat([torch.randperm(len(side), generator=generator) % N_FOLDS for side in (real, fake)])
    out = torch.empty(len(label), dtype=torch.float64)
    for number in range(N_FOLDS):
        held = fold == number
        out[held] = inputs[held] @ _fit(inputs[~held], label[~held], weight[~held])
    return LogOdds(out[: len(real)].float(), out[len(real) :].float())


def _inputs(rows: Tensor) -> Tensor:
    """Whitened components, their squares and a one, (N, 2C + 1) float64."""
    centred = (rows - rows.mean(0)) / rows.std(0).square().sum().sqrt().clamp(min=1e-30)
    wide = centred.shape[1] > len(centred)
    values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    keep = values.flip(0)[:N_COMPONENTS] > 1e-6 * values[-1]
    top = vectors.flip(1)[:, :N_COMPONENTS][:, keep]
    left = top if wide else centred @ top / values.flip(0)[:N_COMPONENTS][keep].sqrt()
    left = left * math.sqrt(len(rows))  # (N, C), unit variance
    left = left.double().clamp(-6, 6)  # an outlier's square would rule the fit
    return torch.cat([left, (left.square() - 1) / math.sqrt(2), torch.ones(len(rows), 1).double()], 1)


def _fit(inputs: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Coefficients of the logistic regression, (P,), by Newton's method; the ridge keeps it from diverging on separable data."""
    beta = torch.zeros(inputs.shape[1], dtype=torch.float64)
    ridge = RIDGE_PENALTY * torch.ones_like(beta)
    ridge[-1] = 0.0
    for _ in range(NEWTON_STEPS):
        chance = torch.sigmoid(inputs @ beta)
        slope = inputs.T @ (weight * (label - chance)) - ridge * beta
        curve = (inputs * (weight * chance * (1 - chance))[:, None]).T @ inputs + torch.diag(ridge + 1e-6)
        beta = beta + torch.linalg.solve(curve, slope)
    return beta


def _tail(own: Tensor, other: Tensor) -> float:
    """max over t of P(own > t) − CLEAR · P(other > t), at least 0."""
    worth = torch.cat(
        [torch.full((len(own),), 1 / len(own)), torch.full((len(other),), -CLEAR_DENSITY_RATIO / len(other))]
    )
    best = worth[torch.cat([own, other]).argsort(descending=True, stable=True)].cumsum(0).max()
    return max(0.0, float(best))
