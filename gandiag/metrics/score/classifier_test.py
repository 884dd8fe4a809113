"""Estimates missing mass from the cross-fitted log odds of a classifier of real against generated rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

N_COMPONENTS = 64  # whitened principal components; with their squares, the classifier's inputs
N_FOLDS = 5
RIDGE_PENALTY = 1.0  # prior precision of a coefficient, in units of one row
NEWTON_STEPS = 8
CLEAR_DENSITY_RATIO = 3.0  # rows are clearly of one set where it is more than this many times as dense as the other


@dataclass(frozen=True, slots=True)
class LogOdds:
    """Held-out log odds that a row is real rather than generated, at equal shares: `real` (N,), `fake` (M,).

    Only their order and sign count.
    """

    real: Tensor
    fake: Tensor

    def total_variation(self) -> float:
        """The total variation that the classifier detects, about −0.05 … 1; 0 on average for equal distributions."""
        return float((self.real > 0).float().mean() - (self.fake > 0).float().mean())

    def real_only_fraction(self) -> float:
        """Fraction of real data without a generated counterpart, in [0, 1].

        Real rows in excess of CLEAR_DENSITY_RATIO times the generated rows.
        """
        return _excess_tail(self.real, self.fake)

    def fake_only_fraction(self) -> float:
        """Fraction of generated rows without a real counterpart, in [0, 1]: outliers, or samples beside the data."""
        return _excess_tail(-self.fake, -self.real)

    def missing_fraction(self) -> float:
        """The part of the variation that is lost diversity rather than low fidelity, about −0.05 … 1.

        Where half of the data is never generated, many real rows are clearly real and hardly any generated row is
        clearly generated: the remaining data are at most twice as dense. Where samples are noisy or blurred, as many
        are clearly generated. So the variation counts as far as the real-only fraction exceeds twice the fake-only
        fraction and what chance shows; doubtful cases count as low fidelity. Reads low with outliers, and where the
        classifier is weak.
        """
        real_only, fake_only = self.real_only_fraction(), self.fake_only_fraction()
        noise = 2 / math.sqrt(min(len(self.real), len(self.fake)))  # neither is detectable below this
        return self.total_variation() * max(0.0, real_only - 2 * fake_only) * real_only / (real_only**2 + noise**2)

    def subset(self, real_indices: Tensor, fake_indices: Tensor) -> LogOdds:
        """The odds of a subset of the rows, without refitting, for intervals. Indices (n,)."""
        return LogOdds(self.real[real_indices], self.fake[fake_indices])


def cross_fit_log_odds(real: Tensor, fake: Tensor, *, seed: int) -> LogOdds:
    """Held-out log odds by ridge logistic regression on 64 whitened principal components and their squares, five folds.

    `real` (N, D), `fake` (M, D) float32. Costs one eigenvalue problem, D × D or n × n, whichever is smaller, and about
    40 Newton steps of (N + M) · 129² flops.
    """
    inputs = _classifier_inputs(torch.cat([real, fake]))
    target = torch.cat([torch.ones(len(real)), torch.zeros(len(fake))]).double()
    weight = torch.where(target > 0, 0.5 / len(real), 0.5 / len(fake)) * len(target)  # equal shares
    generator = torch.Generator().manual_seed(seed)
    fold = torch.cat([torch.randperm(len(rows), generator=generator) % N_FOLDS for rows in (real, fake)])
    log_odds = torch.empty(len(target), dtype=torch.float64)
    for number in range(N_FOLDS):
        is_heldout = fold == number
        coefficients = _fit_logistic(inputs[~is_heldout], target[~is_heldout], weight[~is_heldout])
        log_odds[is_heldout] = inputs[is_heldout] @ coefficients
    return LogOdds(log_odds[: len(real)].float(), log_odds[len(real) :].float())


def _classifier_inputs(rows: Tensor) -> Tensor:
    """Whitened components, their squares and an intercept column, (N, 2C + 1) float64."""
    centered = (rows - rows.mean(0)) / rows.std(0).square().sum().sqrt().clamp(min=1e-30)
    use_rows = centered.shape[1] > len(centered)  # decompose the smaller of N x N and D x D
    values, vectors = torch.linalg.eigh(centered @ centered.T if use_rows else centered.T @ centered)
    keep = values.flip(0)[:N_COMPONENTS] > 1e-6 * values[-1]
    axes = vectors.flip(1)[:, :N_COMPONENTS][:, keep]
    scores = axes if use_rows else centered @ axes / values.flip(0)[:N_COMPONENTS][keep].sqrt()
    scores = scores * math.sqrt(len(rows))  # (N, C), unit variance
    scores = scores.double().clamp(-6, 6)  # the square of an outlier would dominate the fit
    return torch.cat([scores, (scores.square() - 1) / math.sqrt(2), torch.ones(len(rows), 1).double()], 1)


def _fit_logistic(inputs: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Logistic regression coefficients (P,) by Newton's method. The ridge keeps separable data from diverging."""
    coefficients = torch.zeros(inputs.shape[1], dtype=torch.float64)
    ridge = RIDGE_PENALTY * torch.ones_like(coefficients)
    ridge[-1] = 0.0  # the intercept is not penalized
    for _ in range(NEWTON_STEPS):
        probability = torch.sigmoid(inputs @ coefficients)
        gradient = inputs.T @ (weight * (target - probability)) - ridge * coefficients
        curvature = weight * probability * (1 - probability)
        hessian = (inputs * curvature[:, None]).T @ inputs + torch.diag(ridge + 1e-6)
        coefficients = coefficients + torch.linalg.solve(hessian, gradient)
    return coefficients


def _excess_tail(own: Tensor, other: Tensor) -> float:
    """max over t of P(own > t) − CLEAR_DENSITY_RATIO · P(other > t), at least 0."""
    own_weight = torch.full((len(own),), 1 / len(own))
    other_weight = torch.full((len(other),), -CLEAR_DENSITY_RATIO / len(other))
    order = torch.cat([own, other]).argsort(descending=True, stable=True)
    return max(0.0, float(torch.cat([own_weight, other_weight])[order].cumsum(0).max()))
