"""Settings that neither the weights nor the BatchNorm statistics settle, and the networks of their other values.

Where no BatchNorm sees an activation or the prior, a default is a guess, and a network read wrongly looks exactly like
a collapsed one. So every combination that the file allows is offered as a reading; an audit samples those that make
other samples, and judges each (`pipeline.readings`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gandiag.checkpoints.batchnorm.thresholds import DECISIVE_RATIO
from gandiag.checkpoints.inference.activation_twins import TWINS, leaves_twin_open
from gandiag.checkpoints.inference.candidate_networks import Assignment
from gandiag.checkpoints.inference.hyperparameters import Hyperparameter, ScoreTables
from gandiag.checkpoints.inference.sequential import Choice
from gandiag.interfaces import Assumption

OPEN_ACTIVATIONS = (
    *("relu", "leaky:0.2", "tanh", "elu", "leaky:0.01", "selu", "silu"),
    *("gelu", "mish", "leaky:0.1", "leaky:0.3"),
)
MAX_READINGS = 150  # combinations that are offered, those with the fewest changes first
_GUESSES = ("default", "undecided")


@dataclass(frozen=True, slots=True)
class OpenSetting:
    """One open setting. `values`: the one taken first; `assign`: an assignment with another of them."""

    setting: str
    values: tuple[Any, ...]
    assign: Callable[[Assignment, Any], Assignment]
    describe: Callable[[Any], Choice] = Choice

    def value_text(self, value: Any) -> str:
        """A value as its option takes it, with the note that tells it from others."""
        choice = self.describe(value)
        return f"{choice.value} ({choice.note})" if choice.note else f"{choice.value}"


def list_open_settings(
    parameters: Sequence[tuple[Hyperparameter, Assumption]], tables: ScoreTables, assignment: Assignment
) -> tuple[OpenSetting, ...]:
    """The open settings of a network that an audit may be wrong about.

    `parameters`: every hyperparameter with the assumption made of it.
    """
    settings = [
        OpenSetting(parameter.setting, values, parameter.assign, parameter.describe)
        for parameter, assumption in parameters
        if parameter.changes_output and assumption.source in _GUESSES
        for values in [_open_values(parameter, tables, parameter.value_of(assignment))]
        if len(values) > 1
    ]
    settings += [
        OpenSetting(parameter.setting, (taken, TWINS[taken]), parameter.assign, parameter.describe)
        for parameter, assumption in parameters
        for taken in [parameter.value_of(assignment)]
        if parameter.field == "activation" and leaves_twin_open(assumption)
    ]
    return tuple(settings)


def list_affine_settings(affine_norms: tuple[str, ...]) -> tuple[OpenSetting, ...]:
    """The norms that gains and biases may belong to, as an open setting where there are several."""
    if len(affine_norms) < 2:
        return ()
    return (OpenSetting("hidden_norm", affine_norms, lambda entry, value: replace(entry, norm=value)),)


def _open_values(parameter: Hyperparameter, tables: ScoreTables, taken: Any) -> tuple[Any, ...]:
    """The values that stay possible, the one taken first: all without evidence, else those that fit nearly as well."""
    scores = tables.get(parameter.field, {})
    if scores:
        best = min(score for score, _ in scores.values())
        values = [value for value in scores if scores[value][0] < DECISIVE_RATIO * best]
    else:
        values = list(OPEN_ACTIVATIONS if parameter.field == "activation" else parameter.candidates)
    if parameter.prefer_default and taken == parameter.default and scores:
        return (taken,)  # uncommon values that fit no better than the default
    return tuple(dict.fromkeys([taken, *values]))


def count_readings(settings: Sequence[OpenSetting]) -> int:
    """Number of other combinations of open values."""
    return math.prod(len(entry.values) for entry in settings) - 1


def iter_readings(
    settings: Sequence[OpenSetting], assignment: Assignment
) -> Iterator[tuple[Mapping[str, str], Assignment]]:
    """The other combinations of open values, those with the fewest changes first; each with its values in words.

    At most MAX_READINGS of them.
    """
    for indices in itertools.islice(_iter_changes([len(entry.values) for entry in settings]), MAX_READINGS):
        candidate, texts = assignment, {}
        for entry, index in zip(settings, indices, strict=True):
            candidate = entry.assign(candidate, entry.values[index])
            texts[entry.setting] = entry.value_text(entry.values[index])
        yield texts, candidate


def _iter_changes(lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every tuple of indices but zeros, by the number of others than zero; early values first where they are few."""
    for n_changes in range(1, len(lengths) + 1):
        for changed in itertools.combinations(range(len(lengths)), n_changes):
            ranges = [range(1, length) if at in changed else range(1) for at, length in enumerate(lengths)]
            combinations = itertools.product(*ranges)
            few = math.prod(map(len, ranges)) <= MAX_READINGS
            yield from sorted(combinations, key=sum) if few else combinations
