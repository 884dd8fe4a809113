"""One complete reading of a blueprint, tried on a few latents: what do its batch norms receive, against what they remember?

Every norm hands on what it makes of the batch's own statistics, as it did while the running ones were taken: a wrong layer then
shows at the norm behind it, and not at all that follow. Where rare latents carry much of a variance, batches differ; so what
fits poorly is tried again with the running ones, and the better one counts. Of the last map before the last norm a few channels are enough.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.moments import (
    channel_moments,
    enable_dropout,
    paired_labels,
    prior_std,
    sample_prior,
)
from gandiag.checkpoints.batchnorm.scale_grid import SCALE_GRID, interpolate_scales
from gandiag.checkpoints.batchnorm.sequential import (
    MAX_CHANNELS,
    BatchNorm,
    batchnorm_indices,
    bias_corrected_statistics,
    forward_layer,
    has_initial_statistics,
    last_layer_mismatch,
    layer_mismatch,
)
from gandiag.checkpoints.inference.conditioning import InputLayout
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.sequential import (
    SequentialGenerator,
    SequentialSpec,
    build_sequential_generator,
    set_hyperparameters,
)

_BUDGET, _GLIMPSE = 2e8, 3e7  # multiplications, about, of one pass; of one among hundreds
_FLOATS = 4e6  # numbers in its largest layer
_FEWEST, _SOME, _MOST = 16, 128, 1024  # latents
_WRITTEN = 60  # multiplications that writing a number and reading it again costs, about
MIN_LATENTS = 128  # latents that a cheap norm can have
_POOR = 0.3  # the batch's own statistics are then not the ones to compare by
_NORMS = 3  # later ones cost more and say the same
_ALIKE = 0.05  # of the outputs' deviation: what two readings may differ by and still be one generator


@dataclass(frozen=True, slots=True)
class Assignment:
    """An answer to every question. `deviation`: of one latent; `answers`: the options of the blueprint's own questions;
    `joined`: which of the trial's inputs."""

    activation: str
    eps: float
    dropout: float
    prior: str
    latent_std: float
    choices: tuple[int, ...]
    layout_index: int = 0


@dataclass(frozen=True, slots=True)
class ForwardCost:
    """Of one sample up to a norm: multiplications before its map, those of the map for the channels looked at, the largest layer, all layers."""

    macs_before: float
    macs_last: float
    largest_layer: float
    total_values: float

    @property
    def max_latents(self) -> int:
        """How many a pass can afford; an even number."""
        return self._within(_BUDGET, _MOST)

    @property
    def max_latents_coarse(self) -> int:
        """How many one of hundreds of passes can afford."""
        return self._within(_GLIMPSE, _SOME)

    @property
    def cost_per_sample(self) -> float:
        """Of one sample, as so many multiplications: small layers cost what it takes to write them."""
        return self.macs_before + self.macs_last + _WRITTEN * self.total_values

    def _within(self, budget: float, most: int) -> int:
        return max(
            _FEWEST,
            2
            * int(
                min(budget / max(1.0, self.macs_before + self.macs_last), _FLOATS / max(1.0, self.largest_layer), most)
                / 2
            ),
        )


@dataclass(frozen=True, slots=True)
class CachedActivation:
    """What a layer received in a pass. `key`: of the pass up to there; `found`: the mismatches seen by then; `sure`: nothing was dropped before."""

    key: tuple[object, ...]
    layer_index: int
    x: Tensor
    mismatches: tuple[float, ...]
    deterministic: bool


class OutOfBudget(Exception):
    """Trying the readings takes longer than is allowed."""


class CandidateScorer:
    """Readings of one blueprint, each tried once. Latents are the same for all that share a prior, so that their noise is too.

    `inputs`: the ways to join classes to latents, of which there are as many in each. `left`: multiplications, about, that all passes together
    may still take; TooLong beyond.
    """

    def __init__(self, spec: SequentialSpec, input_layouts: Sequence[InputLayout], initial: Assignment) -> None:
        self.input_layouts, self._remade, self._spatial = input_layouts, spec.rebuild_with, spec.latent_is_1x1
        self._blueprints: dict[tuple[int, ...], SequentialSpec | None] = {initial.choices: spec}
        self._chains: dict[tuple[int, ...], SequentialGenerator] = {}
        self._found: dict[tuple[Assignment, int, bool], tuple[float, ...]] = {}
        self._rows: dict[
            tuple[object, ...], tuple[float, ...]
        ] = {}  # by the layers that a pass goes through: readings may share them
        self._stages: dict[
            bool, list[CachedActivation]
        ] = {}  # of the last pass by the batch's own statistics, and by the running ones
        chain = build_sequential_generator(spec, initial.activation, initial.eps)
        norms = [layer for layer in chain.layers if isinstance(layer, BatchNorm)]
        self.costs = estimate_costs(chain) if norms and not all(has_initial_statistics(norm) for norm in norms) else []
        self._prices: dict[tuple[tuple[int, ...], int], ForwardCost] = {}
        self.remaining_budget = math.inf

    @property
    def n_batchnorms(self) -> int:
        return len(self.costs)

    def get_spec(self, choices: tuple[int, ...]) -> SequentialSpec | None:
        """The blueprint of these answers; None where they lead nowhere."""
        if choices not in self._blueprints:
            try:
                self._blueprints[choices] = self._remade(choices) if self._remade else None
            except ArchitectureMismatch:
                self._blueprints[choices] = None
        return self._blueprints[choices]

    def build(self, assignment: Assignment) -> SequentialGenerator | None:
        """The network of a reading, if it is one."""
        blueprint = self.get_spec(assignment.choices)
        return (
            None
            if blueprint is None
            else build_sequential_generator(blueprint, assignment.activation, assignment.eps, assignment.dropout)
        )

    def _set(self, reading: Assignment) -> SequentialGenerator | None:
        """The same, but one network for all readings that share their layers: valid until the next call."""
        if reading.choices not in self._chains:
            made = self.build(reading)
            if made is None:
                return None
            self._chains[reading.choices] = made
        blueprint = self.get_spec(reading.choices)
        assert blueprint is not None
        return set_hyperparameters(
            self._chains[reading.choices], blueprint, reading.activation, reading.eps, reading.dropout
        )

    def mismatch(self, assignment: Assignment, depth: int, *, coarse: bool = False) -> tuple[float, ...]:
        """Mismatch at each of the first `depth` norms; infinite where the reading is none. `coarse`: on few latents."""
        if (assignment, depth, coarse) not in self._found:
            chain = self._set(assignment)
            found = (math.inf,) * depth if chain is None else self._tried(chain, assignment, depth, True, coarse)
            if chain is not None and not coarse and _POOR < max(found) < math.inf:
                found = tuple(map(min, found, self._tried(chain, assignment, depth, False, coarse)))
            self._found[assignment, depth, coarse] = tuple(
                number if number == math.inf or math.isfinite(number) else 1e9 for number in found
            )
        return self._found[assignment, depth, coarse]

    def _tried(
        self, chain: SequentialGenerator, reading: Assignment, depth: int, batch: bool, coarse: bool
    ) -> tuple[float, ...]:
        layers, last = list(chain.layers), batchnorm_indices(chain)[depth - 1]
        head = last - 1 if isinstance(layers[last - 1], (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)) else last
        own = self._price(chain, reading, depth)  # other strides, larger pictures
        n = min(cost.max_latents_coarse if coarse else cost.max_latents for cost in (self.costs[depth - 1], own))
        parts = [(repr(layer), *(entry.data_ptr() for entry in layer.parameters())) for layer in layers[: last + 1]]
        key: tuple[object, ...] = (reading.prior, reading.latent_std, n, batch, reading.layout_index, *parts[:head])
        whole = (*key, *parts[head:])
        if whole not in self._rows:
            self.remaining_budget -= n * (
                own.macs_last + _WRITTEN * own.largest_layer
                if any(stage.key == key for stage in self._stages.get(batch, []))
                else own.cost_per_sample
            )
            if self.remaining_budget < 0:
                raise OutOfBudget
            self._rows[whole] = self._passed(layers[: last + 1], head, key, reading)
        return self._rows[whole]

    def _price(self, chain: SequentialGenerator, reading: Assignment, depth: int) -> ForwardCost:
        """Of a pass to the norm at `depth`; custom's where the layers do not fit each other."""
        if (reading.choices, depth) not in self._prices:
            try:
                self._prices[reading.choices, depth] = estimate_costs(chain, depth)[-1]
            except RuntimeError:
                self._prices[reading.choices, depth] = self.costs[depth - 1]
        return self._prices[reading.choices, depth]

    def _passed(
        self, layers: list[nn.Module], head: int, key: tuple[object, ...], reading: Assignment
    ) -> tuple[float, ...]:
        """Mismatch at the norms among `layers`, of which the last one is one; what the layer at `head` receives goes by `key`."""
        with torch.no_grad(), enable_dropout(nn.Sequential(*layers)):
            try:
                reached = self._reached(layers[:head], key, reading)
                return (*reached.mismatches, last_layer_mismatch(layers[head:-1], layers[-1], reached.x))
            except RuntimeError:  # a picture that a later layer's kernel does not fit into
                return (math.inf,) * sum(isinstance(layer, BatchNorm) for layer in layers)

    def _reached(self, layers: list[nn.Module], key: tuple[object, ...], reading: Assignment) -> CachedActivation:
        """What comes behind `layers`, from where the last pass of the kind still went the same way: what a norm receives does not depend on its eps,
        nor on the activation behind it."""
        (n, batch), begun = key[2:4], len(key) - len(layers)
        assert isinstance(n, int) and isinstance(batch, bool)
        norms = [
            *itertools.accumulate((isinstance(layer, BatchNorm) for layer in layers), initial=0)
        ]  # before each place
        stages = [
            stage
            for stage in self._stages.get(batch, [])
            if key[: len(stage.key)] == stage.key
            and (stage.deterministic or len(stage.key) == len(key))
            and len(stage.mismatches) <= norms[min(stage.layer_index + 1, len(layers))]
        ]
        if not stages:
            z, labels = self._drawn(reading, n)
            stages = [
                CachedActivation(
                    key[:begun],
                    0,
                    self.input_layouts[reading.layout_index].combine(z, labels).reshape(n, -1, *(1, 1) * self._spatial),
                    (),
                    True,
                )
            ]
        x, found, sure = stages[-1].x, stages[-1].mismatches, stages[-1].deterministic
        for place in range(stages[-1].layer_index, len(layers)):
            layer = layers[place]
            if isinstance(layer, BatchNorm) and len(found) == norms[place]:
                found = (*found, layer_mismatch(layer, x))
                stages.append(CachedActivation(key[: begun + place], place, x, found, sure))
            sure &= not isinstance(layer, nn.modules.dropout._DropoutNd) or layer.p == 0
            x = forward_layer(layer, x, batch)
        stages.append(CachedActivation(key, len(layers), x, found, sure))
        self._stages[batch] = stages
        return stages[-1]

    def same_outputs(self, first: Assignment, second: Assignment) -> bool:
        """Do two readings of one prior make the same samples, to a twentieth of their deviation?"""
        if first.prior != second.prior:
            return False
        pair = (first, second)
        z, labels = self._drawn(first, 8)
        made: list[Tensor | None] = [None, None]
        with torch.no_grad(), contextlib.suppress(RuntimeError):  # of layers that do not fit each other
            chains = [self.build(reading) for reading in pair]
            given = [self.input_layouts[reading.layout_index].combine(z, labels) for reading in pair]
            made = [
                None if chain is None else chain(x).flatten(1).double() for chain, x in zip(chains, given, strict=True)
            ]
        if made[0] is None or made[1] is None or made[0].shape != made[1].shape:
            return False
        return float((made[0] - made[1]).square().mean().sqrt()) <= _ALIKE * float(made[0].std())

    def fit_latent_std(self, assignment: Assignment) -> float | None:
        """The deviation of one latent at which most channels of the first norm receive the variance that they remember; None where few ever do."""
        chain = self._set(assignment)
        if chain is None or not self.n_batchnorms:
            return None
        place = batchnorm_indices(chain)[0]
        norm, layers = chain.layers[place], list(chain.layers)[:place]
        assert isinstance(norm, BatchNorm)
        own = prior_std(assignment.prior)
        z, labels = self._drawn(replace(assignment, latent_std=own), self.costs[0].max_latents)
        self.remaining_budget -= len(SCALE_GRID) * len(z) * (self.costs[0].macs_before + self.costs[0].macs_last)
        if self.remaining_budget < 0:
            raise OutOfBudget
        grown = []
        with torch.no_grad(), enable_dropout(nn.Sequential(*layers)):
            for scale in SCALE_GRID:
                x = (
                    self.input_layouts[assignment.layout_index]
                    .combine(scale * z, labels)
                    .reshape(len(z), -1, *(1, 1) * self._spatial)
                )
                for layer in layers:
                    x = layer(x)
                grown.append(channel_moments(x)[1])
        found = interpolate_scales(torch.stack(grown), bias_corrected_statistics(norm)[1])
        usable = found[found.isfinite()]
        return own * math.exp(float(usable.median())) if 2 * len(usable) >= len(found) else None

    def required_depth(self, last_batchnorm: int) -> int:
        """How many norms a pass visits: up to the one that shows the question, and further where that is cheap."""
        affordable = sum(cost.max_latents >= MIN_LATENTS for cost in self.costs)
        return min(self.n_batchnorms, max(last_batchnorm + 1, min(affordable, _NORMS)))

    def _drawn(self, reading: Assignment, n: int) -> tuple[Tensor, Tensor | None]:
        latent, classes = self.input_layouts[0].latent_dim, self.input_layouts[0].classes
        z = sample_prior(n, (latent,), reading.prior, seed=0) * (reading.latent_std / prior_std(reading.prior))
        return z, paired_labels(n, classes)


def estimate_costs(generator: SequentialGenerator, depth: int | None = None) -> list[ForwardCost]:
    """What it costs to reach every batch norm, or the first `depth`, by a pass of two samples. RuntimeError where layers do not fit each other."""
    found: list[ForwardCost] = []
    x = torch.zeros(2, *generator.input_shape)
    before, last, floats, numbers = 0.0, 0.0, 0.0, 0.0
    direct = False  # does the map's output go to the norm as it is?
    with torch.no_grad():
        for layer in generator.layers:
            if len(found) == depth:
                break
            given, x = x, layer(x)
            floats, numbers = max(floats, float(x[0].numel())), numbers + float(x[0].numel())
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                positions = math.prod((given if isinstance(layer, nn.ConvTranspose2d) else x).shape[2:])
                before, last = before + last, float(layer.weight.numel() * positions)
            elif isinstance(layer, BatchNorm):
                found.append(
                    ForwardCost(
                        before, last * (min(1.0, MAX_CHANNELS / layer.num_features) if direct else 1.0), floats, numbers
                    )
                )
            direct = isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    return found


def informative_layers(mismatches: Iterable[tuple[float, ...]]) -> list[int]:
    """The norms at which readings differ; those in front of what is asked receive the same from all."""
    rows = [row for row in mismatches if row and math.isfinite(row[0])]
    length = min((len(row) for row in rows), default=0)
    return [norm for norm in range(length) if max(row[norm] for row in rows) - min(row[norm] for row in rows) > 1e-9]
