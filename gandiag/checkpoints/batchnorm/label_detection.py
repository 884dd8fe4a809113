"""Detects one-hot labels among the first layer's inputs by the inputs' means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MIN_LATENTS = 4  # fewer do not show how far their means scatter around 0
_MAX_CODES = 4  # continuous codes after the labels
_CODES_PENALTY = 10.0  # evidence required for codes, in units of twice the log-likelihood


@dataclass(frozen=True, slots=True)
class LabelSplit:
    """`classes` one-hot labels among the inputs, at the front or at the end.

    `continuous_codes`: inputs after the labels, as in InfoGAN (Chen et al. 2016).
    """

    classes: int
    labels_first: bool
    continuous_codes: int = 0


def find_label_split(means: Tensor) -> LabelSplit | None:
    """The split of the inputs into latents and one-hot labels shown by their means (D,); None without evidence.

    Model: latents have means N(0, v) with v unknown; labels have means 1/K, give or take 15 % (unequal classes) and the
    sampling error of 500 draws. The best split must beat "no labels" by 20 and every other split by 6, in units of
    twice the log-likelihood, and its labels must sum to 1. Codes after the labels must be clearly likelier than none.
    Very unequal classes are not detected; --classes states them.
    """
    n_inputs = len(means)
    if n_inputs < _MIN_LATENTS + 2:
        return None
    fits = [(_split_cost(means, 0, count), 0, count) for count in range(2, n_inputs - _MIN_LATENTS + 1)]
    fits += [
        (
            _split_cost(means, n_inputs - count - codes, count) + _CODES_PENALTY * (codes > 0),
            n_inputs - count - codes,
            count,
        )
        for codes in range(_MAX_CODES + 1)
        for count in range(2, n_inputs - _MIN_LATENTS - codes + 1)
    ]
    best, start, count = min(fits)
    runner_up = sorted(fits)[1][0]
    label_sum = float(means[start : start + count].sum())
    is_clear = _split_cost(means, 0, 0) - best > 20 and runner_up - best > 6
    codes = n_inputs - start - count if start else 0
    # An outlier among the latents is no evidence of codes: the labels themselves must be near 1/K.
    near_uniform = _label_misfit(means[start : start + count]) <= count + 3 * math.sqrt(2 * count)
    if is_clear and 0.85 < label_sum < 1.15 and (near_uniform or not codes):
        return LabelSplit(count, start == 0, codes)
    return None


def _split_cost(means: Tensor, start: int, count: int) -> float:
    """Twice the negative log-likelihood, up to a constant, of `count` labels from index `start` on."""
    labels, latents = means[start : start + count], torch.cat([means[:start], means[start + count :]])
    v = max(1e-8, float(latents.square().mean()))
    cost = len(latents) * (math.log(v) + 1)
    if count:
        cost += _label_misfit(labels) + count * math.log(_label_variance(count))
    return cost


def _label_misfit(labels: Tensor) -> float:
    """Squared distances of the labels' means from 1/K, in units of their variance."""
    return float((labels - 1 / len(labels)).square().sum()) / _label_variance(len(labels))


def _label_variance(count: int) -> float:
    """Variance of a label's mean around 1/K: unequal classes and sampling error."""
    return (0.15 / count) ** 2 + 1 / (500 * count)
