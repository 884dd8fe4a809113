"""Estimates missing mass from the cross-fitted log odds of a classifier of real against generated rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.metrics.score.neighborhoods import measure_distances

N_COMPONENTS = 128  # whitened principal components; with the squares of some, the classifier's inputs
N_SQUARES = 64
NEIGHBOR_COUNTS = (4, 16, 64)
N_FOLDS = 5
RIDGE_PENALTY = 1.0  # prior precision of a coefficient, in units of one row
NEWTON_STEPS = 8  # at most
CONVERGED_STEP = 1e-7  # the next one is its square
MAX_NORM_RATIO = 1.25  # rows farther out than this many times the 95 % quantile are moved in for the classifier
CLEAR_DENSITY_RATIO = 3.0  # rows are clearly of one set where it is more than this many times as dense as the other

DENSITY_RATIOS = (1.5, 2.0, CLEAR_DENSITY_RATIO)  # at which real-only and fake-only rows are weighed


@dataclass(frozen=True, slots=True)
class LogOdds:
    """Held-out log odds that a row is real rather than generated, at equal shares: `real` (N,), `fake` (M,).

    Only their order and sign count.
    """

    real: Tensor
    fake: Tensor

    def total_variation(self) -> float:
        """The largest difference in shares above a threshold: the total variation that the classifier finds, in [0, 1].

        About 1/√n for equal distributions.
        """
        return _excess_tail(self.real, self.fake, 1.0)

    def real_only_fraction(self, ratio: float = CLEAR_DENSITY_RATIO) -> float:
        """Fraction of real data without a generated counterpart, in [0, 1].

        Real rows in excess of `ratio` times the generated rows.
        """
        return _excess_tail(self.real, self.fake, ratio)

    def fake_only_fraction(self, ratio: float = CLEAR_DENSITY_RATIO) -> float:
        """Fraction of generated rows without a real counterpart, in [0, 1]: outliers, or samples beside the data."""
        return _excess_tail(-self.fake, -self.real, ratio)

    def missing_fraction(self) -> float:
        """The part of the variation that is lost diversity rather than low fidelity, in [0, 1].

        Where half of the data is never generated, many real rows are clearly real and hardly any generated row is
        clearly generated: the remaining data are at most twice as dense. Where samples are noisy or blurred, as many
        are clearly generated. So the variation counts as far as the real-only fraction exceeds twice the fake-only
        fraction and what chance shows, at the density ratio where it does so most clearly; doubtful cases count as low
        fidelity. Reads low with outliers, and where the classifier is weak.
        """
        noise = 2 / math.sqrt(min(len(self.real), len(self.fake)))  # neither is detectable below this
        asymmetry = 0.0
        for ratio in DENSITY_RATIOS:
            real_only, fake_only = self.real_only_fraction(ratio), self.fake_only_fraction(ratio)
            excess = max(0.0, real_only - 2 * fake_only) * real_only / (real_only**2 + noise**2)
            asymmetry = max(asymmetry, excess)
        return self.total_variation() * asymmetry

    def subset(self, real_indices: Tensor, fake_indices: Tensor) -> LogOdds:
        """The odds of a subset of the rows, without refitting, for intervals. Indices (n,)."""
        return LogOdds(self.real[real_indices], self.fake[fake_indices])


def cross_fit_log_odds(real: Tensor, fake: Tensor, *, seed: int, fold: Tensor | None = None) -> LogOdds:
    """Held-out log odds by ridge logistic regression, five folds. `real` (N, D), `fake` (M, D) float32.

    `fold`: of the real rows, then of the generated ones, (N + M,) int64 in [0, 5); random from `seed` by default.

    The inputs are up to 128 whitened principal components, the squares of the first 64, and the shares of real rows
    among the nearest neighbors in the other folds, which follow curved boundaries. Costs one eigenvalue problem, D × D
    or n × n, whichever is smaller, one (N + M)² × D product and about 40 Newton steps of (N + M) · 195² flops.
    """
    rows = torch.cat([real, fake])
    target = torch.cat([torch.ones(len(real)), torch.zeros(len(fake))]).double()
    weight = torch.where(target > 0, 0.5 / len(real), 0.5 / len(fake)) * len(target)  # equal shares
    if fold is None:
        generator = torch.Generator().manual_seed(seed)
        fold = torch.cat([torch.randperm(len(part), generator=generator) % N_FOLDS for part in (real, fake)])
    inputs = torch.cat([_neighbor_inputs(rows, target, fold, len(real)), _component_inputs(rows)], 1)
    log_odds = torch.empty(len(target), dtype=torch.float64)
    for number in range(N_FOLDS):
        is_heldout = fold == number
        coefficients = _fit_logistic(inputs[~is_heldout], target[~is_heldout], weight[~is_heldout])
        log_odds[is_heldout] = inputs[is_heldout] @ coefficients
    return LogOdds(log_odds[: len(real)].float(), log_odds[len(real) :].float())


def _neighbor_inputs(rows: Tensor, target: Tensor, fold: Tensor, n_real: int) -> Tensor:
    """Log odds of real rows among the nearest 4, 16 and 64 rows of the other folds, (N, 3) float64.

    Neighbors in a row's own fold do not count: its own label would show in theirs.
    """
    distances = measure_distances(rows, rows)
    distances.masked_fill_(fold[:, None] == fold, torch.inf)
    n_neighbors = min(max(NEIGHBOR_COUNTS), len(rows) - int(fold.bincount().max()))
    nearest = distances.topk(n_neighbors, largest=False).indices  # (N, k)
    n_real_near = target[nearest].cumsum(1)
    prior = n_real / len(rows)
    columns = []
    for count in (min(count, n_neighbors) for count in NEIGHBOR_COUNTS):
        near = n_real_near[:, count - 1]
        columns.append(((near + prior) / (count - near + 1 - prior)).log() - math.log(prior / (1 - prior)))
    return torch.stack(columns, 1)


def _component_inputs(rows: Tensor) -> Tensor:
    """Whitened components, squares of the first N_SQUARES and an intercept column, (N, ≤ 193) float64."""
    centered = (rows - rows.mean(0)) / rows.std(0).square().sum().sqrt().clamp(min=1e-30)
    use_rows = centered.shape[1] > len(centered)  # decompose the smaller of N x N and D x D
    values, vectors = torch.linalg.eigh(centered @ centered.T if use_rows else centered.T @ centered)
    keep = values.flip(0)[:N_COMPONENTS] > 1e-6 * values[-1]
    axes = vectors.flip(1)[:, :N_COMPONENTS][:, keep]
    scores = axes if use_rows else centered @ axes / values.flip(0)[:N_COMPONENTS][keep].sqrt()
    scores = scores * math.sqrt(len(rows))  # (N, C), unit variance
    norm = scores.norm(dim=1, keepdim=True).clamp(min=1e-9)
    scores = scores * (MAX_NORM_RATIO * norm.quantile(0.95) / norm).clamp(max=1)  # an outlier would dominate the fit
    scores = scores.double().clamp(-6, 6)
    squares = (scores[:, :N_SQUARES].square() - 1) / math.sqrt(2)
    return torch.cat([scores, squares, torch.ones(len(rows), 1).double()], 1)


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
        step = torch.linalg.solve(hessian, gradient)
        coefficients = coefficients + step
        if float(step.abs().max()) < CONVERGED_STEP:
            break
    return coefficients


def _excess_tail(own: Tensor, other: Tensor, ratio: float) -> float:
    """max over t of P(own > t) − ratio · P(other > t), at least 0."""
    own_weight = torch.full((len(own),), 1 / len(own))
    other_weight = torch.full((len(other),), -ratio / len(other))
    order = torch.cat([own, other]).argsort(descending=True, stable=True)
    return max(0.0, float(torch.cat([own_weight, other_weight])[order].cumsum(0).max()))
