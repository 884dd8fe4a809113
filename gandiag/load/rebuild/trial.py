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

from gandiag.load.moments import draws, dropping, moments, paired_labels, prior_deviation
from gandiag.load.rebuild.chain import Blueprint, Chain, assemble, retuned
from gandiag.load.rebuild.inputs import Inputs
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.norms import CHANNELS, NORM, handed_on, last_of, missed, places, remembered, untouched
from gandiag.load.scales import SCALES, crossings

_BUDGET, _GLIMPSE = 2e8, 3e7  # multiplications, about, of one pass; of one among hundreds
_FLOATS = 4e6  # numbers in its largest layer
_FEWEST, _SOME, _MOST = 16, 128, 1024  # latents
_WRITTEN = 60  # multiplications that writing a number and reading it again costs, about
MANY = 128  # latents that a cheap norm can have
_POOR = 0.3  # the batch's own statistics are then not the ones to compare by
_NORMS = 3  # later ones cost more and say the same
_ALIKE = 0.05  # of the outputs' deviation: what two readings may differ by and still be one generator


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer to every question. `deviation`: of one latent; `answers`: the options of the blueprint's own questions;
    `joined`: which of the trial's inputs."""

    activation: str
    eps: float
    dropout: float
    prior: str
    deviation: float
    answers: tuple[int, ...]
    joined: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one sample up to a norm: multiplications before its map, those of the map for the channels looked at, the largest layer, all layers."""

    before: float
    last: float
    floats: float
    numbers: float

    @property
    def latents(self) -> int:
        """How many a pass can afford; an even number."""
        return self._within(_BUDGET, _MOST)

    @property
    def glimpse(self) -> int:
        """How many one of hundreds of passes can afford."""
        return self._within(_GLIMPSE, _SOME)

    @property
    def worth(self) -> float:
        """Of one sample, as so many multiplications: small layers cost what it takes to write them."""
        return self.before + self.last + _WRITTEN * self.numbers

    def _within(self, budget: float, most: int) -> int:
        return max(_FEWEST, 2 * int(min(budget / max(1.0, self.before + self.last), _FLOATS / max(1.0, self.floats), most) / 2))


@dataclass(frozen=True, slots=True)
class Stage:
    """What a layer received in a pass. `key`: of the pass up to there; `found`: the mismatches seen by then; `sure`: nothing was dropped before."""

    key: tuple[object, ...]
    place: int
    x: Tensor
    found: tuple[float, ...]
    sure: bool


class TooLong(Exception):
    """Trying the readings takes longer than is allowed."""


class Trial:
    """Readings of one blueprint, each tried once. Latents are the same for all that share a prior, so that their noise is too.

    `inputs`: the ways to join classes to latents, of which there are as many in each. `left`: multiplications, about, that all passes together
    may still take; TooLong beyond.
    """

    def __init__(self, blueprint: Blueprint, inputs: Sequence[Inputs], first: Reading) -> None:
        self.inputs, self._remade, self._spatial = inputs, blueprint.remade, blueprint.spatial
        self._blueprints: dict[tuple[int, ...], Blueprint | None] = {first.answers: blueprint}
        self._chains: dict[tuple[int, ...], Chain] = {}
        self._found: dict[tuple[Reading, int, bool], tuple[float, ...]] = {}
        self._rows: dict[tuple[object, ...], tuple[float, ...]] = {}  # by the layers that a pass goes through: readings may share them
        self._stages: dict[bool, list[Stage]] = {}  # of the last pass by the batch's own statistics, and by the running ones
        chain = assemble(blueprint, first.activation, first.eps)
        norms = [layer for layer in chain.layers if isinstance(layer, NORM)]
        self.costs = priced(chain) if norms and not all(untouched(norm) for norm in norms) else []
        self._prices: dict[tuple[tuple[int, ...], int], Cost] = {}
        self.left = math.inf

    @property
    def norms(self) -> int:
        return len(self.costs)

    def reading_of(self, answers: tuple[int, ...]) -> Blueprint | None:
        """The blueprint of these answers; None where they lead nowhere."""
        if answers not in self._blueprints:
            try:
                self._blueprints[answers] = self._remade(answers) if self._remade else None
            except NotThis:
                self._blueprints[answers] = None
        return self._blueprints[answers]

    def chain(self, reading: Reading) -> Chain | None:
        """The network of a reading, if it is one."""
        blueprint = self.reading_of(reading.answers)
        return None if blueprint is None else assemble(blueprint, reading.activation, reading.eps, reading.dropout)

    def _set(self, reading: Reading) -> Chain | None:
        """The same, but one network for all readings that share their layers: valid until the next call."""
        if reading.answers not in self._chains:
            made = self.chain(reading)
            if made is None:
                return None
            self._chains[reading.answers] = made
        blueprint = self.reading_of(reading.answers)
        assert blueprint is not None
        return retuned(self._chains[reading.answers], blueprint, reading.activation, reading.eps, reading.dropout)

    def apart(self, reading: Reading, depth: int, *, coarse: bool = False) -> tuple[float, ...]:
        """Mismatch at each of the first `depth` norms; infinite where the reading is none. `coarse`: on few latents."""
        if (reading, depth, coarse) not in self._found:
            chain = self._set(reading)
            found = (math.inf,) * depth if chain is None else self._tried(chain, reading, depth, True, coarse)
            if chain is not None and not coarse and _POOR < max(found) < math.inf:
                found = tuple(map(min, found, self._tried(chain, reading, depth, False, coarse)))
            self._found[reading, depth, coarse] = tuple(number if number == math.inf or math.isfinite(number) else 1e9 for number in found)
        return self._found[reading, depth, coarse]

    def _tried(self, chain: Chain, reading: Reading, depth: int, batch: bool, coarse: bool) -> tuple[float, ...]:
        layers, last = list(chain.layers), places(chain)[depth - 1]
        head = last - 1 if isinstance(layers[last - 1], (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)) else last
        own = self._price(chain, reading, depth)  # other strides, larger pictures
        n = min(cost.glimpse if coarse else cost.latents for cost in (self.costs[depth - 1], own))
        parts = [(repr(layer), *(entry.data_ptr() for entry in layer.parameters())) for layer in layers[: last + 1]]
        key: tuple[object, ...] = (reading.prior, reading.deviation, n, batch, reading.joined, *parts[:head])
        whole = (*key, *parts[head:])
        if whole not in self._rows:
            self.left -= n * (own.last + _WRITTEN * own.floats if any(stage.key == key for stage in self._stages.get(batch, [])) else own.worth)
            if self.left < 0:
                raise TooLong
            self._rows[whole] = self._passed(layers[: last + 1], head, key, reading)
        return self._rows[whole]

    def _price(self, chain: Chain, reading: Reading, depth: int) -> Cost:
        """Of a pass to the norm at `depth`; custom's where the layers do not fit each other."""
        if (reading.answers, depth) not in self._prices:
            try:
                self._prices[reading.answers, depth] = priced(chain, depth)[-1]
            except RuntimeError:
                self._prices[reading.answers, depth] = self.costs[depth - 1]
        return self._prices[reading.answers, depth]

    def _passed(self, layers: list[nn.Module], head: int, key: tuple[object, ...], reading: Reading) -> tuple[float, ...]:
        """Mismatch at the norms among `layers`, of which the last one is one; what the layer at `head` receives goes by `key`."""
        with torch.no_grad(), dropping(nn.Sequential(*layers)):
            try:
                reached = self._reached(layers[:head], key, reading)
                return (*reached.found, last_of(layers[head:-1], layers[-1], reached.x))
            except RuntimeError:  # a picture that a later layer's kernel does not fit into
                return (math.inf,) * sum(isinstance(layer, NORM) for layer in layers)

    def _reached(self, layers: list[nn.Module], key: tuple[object, ...], reading: Reading) -> Stage:
        """What comes behind `layers`, from where the last pass of the kind still went the same way: what a norm receives does not depend on its eps,
        nor on the activation behind it."""
        (n, batch), begun = key[2:4], len(key) - len(layers)
        assert isinstance(n, int) and isinstance(batch, bool)
        norms = [*itertools.accumulate((isinstance(layer, NORM) for layer in layers), initial=0)]  # before each place
        stages = [stage for stage in self._stages.get(batch, []) if key[: len(stage.key)] == stage.key and (stage.sure or len(stage.key) == len(key))
                  and len(stage.found) <= norms[min(stage.place + 1, len(layers))]]  # fmt: skip
        if not stages:
            z, labels = self._drawn(reading, n)
            stages = [Stage(key[:begun], 0, self.inputs[reading.joined].join(z, labels).reshape(n, -1, *(1, 1) * self._spatial), (), True)]
        x, found, sure = stages[-1].x, stages[-1].found, stages[-1].sure
        for place in range(stages[-1].place, len(layers)):
            layer = layers[place]
            if isinstance(layer, NORM) and len(found) == norms[place]:
                found = (*found, missed(layer, x))
                stages.append(Stage(key[: begun + place], place, x, found, sure))
            sure &= not isinstance(layer, nn.modules.dropout._DropoutNd) or layer.p == 0
            x = handed_on(layer, x, batch)
        stages.append(Stage(key, len(layers), x, found, sure))
        self._stages[batch] = stages
        return stages[-1]

    def alike(self, one: Reading, other: Reading) -> bool:
        """Do two readings of one prior make the same samples, to a twentieth of their deviation?"""
        if one.prior != other.prior:
            return False
        pair = (one, other)
        z, labels = self._drawn(one, 8)
        made: list[Tensor | None] = [None, None]
        with torch.no_grad(), contextlib.suppress(RuntimeError):  # of layers that do not fit each other
            chains = [self.chain(reading) for reading in pair]
            given = [self.inputs[reading.joined].join(z, labels) for reading in pair]
            made = [None if chain is None else chain(x).flatten(1).double() for chain, x in zip(chains, given, strict=True)]
        if made[0] is None or made[1] is None or made[0].shape != made[1].shape:
            return False
        return float((made[0] - made[1]).square().mean().sqrt()) <= _ALIKE * float(made[0].std())

    def scale_of(self, reading: Reading) -> float | None:
        """The deviation of one latent at which most channels of the first norm receive the variance that they remember; None where few ever do."""
        chain = self._set(reading)
        if chain is None or not self.norms:
            return None
        place = places(chain)[0]
        norm, layers = chain.layers[place], list(chain.layers)[:place]
        assert isinstance(norm, NORM)
        own = prior_deviation(reading.prior)
        z, labels = self._drawn(replace(reading, deviation=own), self.costs[0].latents)
        self.left -= len(SCALES) * len(z) * (self.costs[0].before + self.costs[0].last)
        if self.left < 0:
            raise TooLong
        grown = []
        with torch.no_grad(), dropping(nn.Sequential(*layers)):
            for scale in SCALES:
                x = self.inputs[reading.joined].join(scale * z, labels).reshape(len(z), -1, *(1, 1) * self._spatial)
                for layer in layers:
                    x = layer(x)
                grown.append(moments(x)[1])
        found = crossings(torch.stack(grown), remembered(norm)[1])
        usable = found[found.isfinite()]
        return own * math.exp(float(usable.median())) if 2 * len(usable) >= len(found) else None

    def depth(self, visible: int) -> int:
        """How many norms a pass visits: up to the one that shows the question, and further where that is cheap."""
        affordable = sum(cost.latents >= MANY for cost in self.costs)
        return min(self.norms, max(visible + 1, min(affordable, _NORMS)))

    def _drawn(self, reading: Reading, n: int) -> tuple[Tensor, Tensor | None]:
        latent, classes = self.inputs[0].latent, self.inputs[0].classes
        z = draws(n, (latent,), reading.prior, seed=0) * (reading.deviation / prior_deviation(reading.prior))
        return z, paired_labels(n, classes)


def priced(chain: Chain, depth: int | None = None) -> list[Cost]:
    """What it costs to reach every batch norm, or the first `depth`, by a pass of two samples. RuntimeError where layers do not fit each other."""
    found: list[Cost] = []
    x = torch.zeros(2, *chain.inputs)
    before, last, floats, numbers = 0.0, 0.0, 0.0, 0.0
    direct = False  # does the map's output go to the norm as it is?
    with torch.no_grad():
        for layer in chain.layers:
            if len(found) == depth:
                break
            given, x = x, layer(x)
            floats, numbers = max(floats, float(x[0].numel())), numbers + float(x[0].numel())
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                positions = math.prod((given if isinstance(layer, nn.ConvTranspose2d) else x).shape[2:])
                before, last = before + last, float(layer.weight.numel() * positions)
            elif isinstance(layer, NORM):
                found.append(Cost(before, last * (min(1.0, CHANNELS / layer.num_features) if direct else 1.0), floats, numbers))
            direct = isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    return found


def visible(found: Iterable[tuple[float, ...]]) -> list[int]:
    """The norms at which readings differ; those in front of what is asked receive the same from all."""
    rows = [row for row in found if row and math.isfinite(row[0])]
    length = min((len(row) for row in rows), default=0)
    return [norm for norm in range(length) if max(row[norm] for row in rows) - min(row[norm] for row in rows) > 1e-9]
