"""Scores one hyperparameter assignment by comparing BatchNorm input moments with the stored running statistics.

BatchNorm runs in train mode here, so a wrong layer affects only the next BatchNorm. Where rare latents carry much of a
variance, batches differ from each other: an assignment that fits poorly is scored again with the running statistics,
and the better score counts. Of the last layer before the last BatchNorm a few channels are computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.moments import (
    channel_moments,
    enable_dropout,
    paired_labels,
    prior_std,
    sample_prior,
)
from gandiag.checkpoints.batchnorm.scale_search import SCALE_GRID, interpolate_log_scales
from gandiag.checkpoints.batchnorm.sequential import (
    BatchNorm,
    batchnorm_indices,
    bias_corrected_statistics,
    has_initial_statistics,
)
from gandiag.checkpoints.inference.activation_cache import ActivationCache
from gandiag.checkpoints.inference.candidate_networks import Assignment, CandidateNetworks
from gandiag.checkpoints.inference.conditioning import InputLayout
from gandiag.checkpoints.inference.forward_cost import MACS_PER_VALUE, WEIGHTED_LAYERS, ForwardCost, estimate_costs
from gandiag.checkpoints.inference.search_state import PASS_OVERHEAD, SearchState
from gandiag.checkpoints.inference.sequential import SequentialGenerator, SequentialSpec, build_sequential_generator
from gandiag.interfaces import IMPOSSIBLE_MISMATCH

MIN_LATENTS = 128  # latents with which a pass counts as cheap
_POOR_MISMATCH = 0.3  # from here on the running statistics are tried in place of the batch's own
_MAX_DEPTH = 3  # BatchNorm layers visited where that is cheap; later ones cost more and add nothing
_CACHED_VALUES, _CACHE_MISSES = 1e6, 2.5  # activations of more numbers leave the cache: how much slower that is
_MAX_OUTPUT_DIFFERENCE = 0.05  # in outputs' std: how far two assignments may differ and still count as one generator


class CandidateScorer:
    """Scores assignments of one spec, each of them once.

    All with the same prior share their latents, and so their sampling noise. `input_layouts`: the ways to join classes
    to latents; all have the same number of latents. `state`: the budget of the search, and what its passes found;
    methods that run networks raise OutOfBudget where it is spent.
    """

    def __init__(
        self,
        spec: SequentialSpec,
        input_layouts: Sequence[InputLayout],
        initial: Assignment,
        state: SearchState | None = None,
    ) -> None:
        self.input_layouts = input_layouts
        self.networks = CandidateNetworks(spec, initial.choices)
        self.state = state or SearchState()
        self._latent_is_1x1 = spec.latent_is_1x1
        self._cache = ActivationCache()
        self._mismatches: dict[tuple[Assignment, int, bool], tuple[float, ...]] = {}
        self._costs: dict[tuple[tuple[object, ...], int], ForwardCost] = {}
        network = build_sequential_generator(spec, initial.activation, initial.eps)
        layers = [layer for layer in network.layers if isinstance(layer, BatchNorm)]
        self._name = _name_search(spec, network, input_layouts)
        has_statistics = bool(layers) and not all(has_initial_statistics(layer) for layer in layers)
        self.costs = estimate_costs(network) if has_statistics else []  # of the initial choices, by BatchNorm

    @property
    def n_batchnorms(self) -> int:
        """Number of BatchNorm layers; 0 where their statistics were never updated."""
        return len(self.costs)

    def mismatch(self, assignment: Assignment, depth: int, *, coarse: bool = False) -> tuple[float, ...]:
        """Mismatch at each of the first `depth` BatchNorm layers; infinite where the choices do not fit the weights.

        `coarse`: with few latents.
        """
        key = (assignment, depth, coarse)
        if key not in self._mismatches:
            name = f"{self._name} {describe_assignment(assignment)} {depth} {'few' if coarse else 'many'}"
            self._mismatches[key] = self.state.recall(name, lambda: self._measure(assignment, depth, coarse))
        return self._mismatches[key]

    def _measure(self, assignment: Assignment, depth: int, coarse: bool) -> tuple[float, ...]:
        """Mismatch at each of the first `depth` BatchNorm layers, by a pass with the batch's or running statistics."""
        self.state.spend(PASS_OVERHEAD)
        network = self.networks.configure(assignment)
        mismatches = (math.inf,) * depth
        if network is not None:
            mismatches = self._run(network, assignment, depth, use_batch_stats=True, coarse=coarse)
        if network is not None and not coarse and _POOR_MISMATCH < max(mismatches) < math.inf:
            with_running = self._run(network, assignment, depth, use_batch_stats=False, coarse=coarse)
            mismatches = tuple(map(min, mismatches, with_running))
        return tuple(
            number if number == math.inf or math.isfinite(number) else IMPOSSIBLE_MISMATCH for number in mismatches
        )

    def _run(
        self, network: SequentialGenerator, assignment: Assignment, depth: int, *, use_batch_stats: bool, coarse: bool
    ) -> tuple[float, ...]:
        """Mismatch at each of the first `depth` BatchNorm layers of a network, in one pass."""
        layers, last = list(network.layers), batchnorm_indices(network)[depth - 1]
        split = last - 1 if isinstance(layers[last - 1], WEIGHTED_LAYERS) else last
        cost = self._estimate_cost(network, assignment, depth)  # other strides make larger images
        n = min(each.max_latents_coarse if coarse else each.max_latents for each in (self.costs[depth - 1], cost))
        parts = [(repr(layer), *(entry.data_ptr() for entry in layer.parameters())) for layer in layers[: last + 1]]
        head_key: tuple[object, ...] = (
            assignment.prior,
            assignment.latent_std,
            n,
            use_batch_stats,
            assignment.layout_index,
            *parts[:split],
        )
        key = (*head_key, *parts[split:])
        known = self._cache.get_mismatches(key)
        if known is not None:
            return known
        resumes = self._cache.has_activation(head_key, use_batch_stats)
        self.state.spend(
            n * (cost.macs_last + MACS_PER_VALUE * cost.largest_layer if resumes else cost.cost_per_sample)
        )
        return self._cache.run(
            layers[: last + 1], split, (head_key, key), lambda: self._draw_input(assignment, n), use_batch_stats
        )

    def _estimate_cost(self, network: SequentialGenerator, assignment: Assignment, depth: int) -> ForwardCost:
        """Cost of a pass to the BatchNorm at `depth`; the initial choices' cost if layers do not fit together."""
        key = ((*assignment.choices, assignment.norm), depth)
        if key not in self._costs:
            try:
                self._costs[key] = estimate_costs(network, depth)[-1]
            except RuntimeError:
                self._costs[key] = self.costs[depth - 1]
        return self._costs[key]

    def same_outputs(self, first: Assignment, second: Assignment) -> bool:
        """Whether two assignments with the same prior give the same samples, to 5 % of their std."""
        if first.prior != second.prior:
            return False
        name = f"{self._name} {describe_assignment(first)} as {describe_assignment(second)}"
        return self.state.recall(name, lambda: (float(self._compare_outputs(first, second)),)) == (1.0,)

    def _compare_outputs(self, first: Assignment, second: Assignment) -> bool:
        z, labels = self._draw(first, 8)
        outputs: list[Tensor | None] = []
        with torch.no_grad(), contextlib.suppress(RuntimeError):  # of layers that do not fit each other
            for assignment in (first, second):
                network = self.networks.build(assignment)
                x = self.input_layouts[assignment.layout_index].combine(z, labels)
                outputs.append(None if network is None else network(x).flatten(1).double())
        if len(outputs) < 2 or outputs[0] is None or outputs[1] is None or outputs[0].shape != outputs[1].shape:
            return False
        difference = float((outputs[0] - outputs[1]).square().mean().sqrt())
        return difference <= _MAX_OUTPUT_DIFFERENCE * float(outputs[0].std())

    def fit_latent_std(self, assignment: Assignment) -> float | None:
        """The latent std at which most channels of the first BatchNorm have their stored variance, if any."""
        name = f"{self._name} {describe_assignment(assignment)} scale"
        found = self.state.recall(name, lambda: (self._fit_latent_std(assignment) or 0.0,))[0]
        return found or None

    def _fit_latent_std(self, assignment: Assignment) -> float | None:
        network = self.networks.configure(assignment)
        if network is None or not self.n_batchnorms:
            return None
        index = batchnorm_indices(network)[0]
        batchnorm, layers = network.layers[index], list(network.layers)[:index]
        assert isinstance(batchnorm, BatchNorm)
        unit = prior_std(assignment.prior)
        z, labels = self._draw(replace(assignment, latent_std=unit), self.costs[0].max_latents)
        self.state.spend(len(SCALE_GRID) * len(z) * (self.costs[0].macs_before + self.costs[0].macs_last))
        variances = []
        with torch.no_grad(), enable_dropout(nn.Sequential(*layers)):
            for scale in SCALE_GRID:
                x = self._combine(assignment, scale * z, labels)
                for layer in layers:
                    x = layer(x)
                variances.append(channel_moments(x)[1])
        log_scales = interpolate_log_scales(torch.stack(variances), bias_corrected_statistics(batchnorm)[1])
        usable = log_scales[log_scales.isfinite()]
        return unit * math.exp(float(usable.median())) if 2 * len(usable) >= len(log_scales) else None

    def required_depth(self, last_batchnorm: int) -> int:
        """Number of BatchNorm layers a pass visits: up to `last_batchnorm`, and further where that is cheap."""
        affordable = sum(cost.max_latents >= MIN_LATENTS for cost in self.costs)
        return min(self.n_batchnorms, max(last_batchnorm + 1, min(affordable, _MAX_DEPTH)))

    def _draw(self, assignment: Assignment, n: int) -> tuple[Tensor, Tensor | None]:
        """Latents (n, D) at the assignment's std, and labels (n,)."""
        layout = self.input_layouts[0]
        z = sample_prior(n, (layout.latent_dim,), assignment.prior, seed=0)
        return z * (assignment.latent_std / prior_std(assignment.prior)), paired_labels(n, layout.classes)

    def _draw_input(self, assignment: Assignment, n: int) -> Tensor:
        return self._combine(assignment, *self._draw(assignment, n))

    def _combine(self, assignment: Assignment, z: Tensor, labels: Tensor | None) -> Tensor:
        """Latents and labels to the first layer's input, (n, D) or (n, D, 1, 1)."""
        x = self.input_layouts[assignment.layout_index].combine(z, labels)
        return x.reshape(len(z), -1, *(1, 1) * self._latent_is_1x1)


def describe_assignment(assignment: Assignment) -> str:
    """An assignment as text that no other one has."""
    values = (getattr(assignment, entry.name) for entry in fields(assignment))
    return "/".join(f"{value}" for value in values)


def _name_search(spec: SequentialSpec, network: SequentialGenerator, input_layouts: Sequence[InputLayout]) -> str:
    """A short name of a spec with its input layouts, which tells it from the others of the same weights."""
    inputs = [
        (entry.latent_dim, entry.classes, entry.label_position, entry.continuous_codes, entry.embedding_name)
        for entry in input_layouts
    ]
    options = [(choice.setting, choice.options) for choice in spec.open_choices]
    text = repr((spec.structure, network.layer_names, repr(network.layers), inputs, options))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def informative_layers(mismatches: Iterable[tuple[float, ...]]) -> list[int]:
    """Indices of the BatchNorm layers at which assignments differ; earlier ones receive the same input from all."""
    rows = [row for row in mismatches if row and math.isfinite(row[0])]
    length = min((len(row) for row in rows), default=0)
    return [
        index for index in range(length) if max(row[index] for row in rows) - min(row[index] for row in rows) > 1e-9
    ]
