"""The public generator: indices in, checked samples out, and the network left exactly as it was."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.errors import ConfigError, GandiagError, OutputError, close_match_hint
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec
from gandiag.sampling.device import default_batch_size, is_on_device, is_out_of_memory, select_device
from gandiag.sampling.latents import derive_seed, make_labels, make_noise_sampler, sample_latents
from gandiag.sampling.module_state import (
    estimate_standing_statistics,
    find_batchnorm_layers,
    isolated_rng,
    preserve_module_state,
    require_standard_batchnorm,
    set_standing_statistics,
    use_batch_statistics,
)
from gandiag.sampling.output_checks import require_finite_samples, require_output_shape

BATCHNORM_MODES = ("eval", "batch", "standing")
BATCHNORM_GROUP_SIZE = 64  # samples that share their statistics where batch norm uses the batch's own
STANDING_BATCHES = 16
_FEWEST_IN_GROUP = 16


class GeneratorLike(Protocol):
    """What the loader hands over: a rebuilt module and how to call it."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def latent(self) -> LatentSpec: ...
    @property
    def output(self) -> OutputSpec: ...
    @property
    def classes(self) -> int | None: ...
    @property
    def condition(self) -> LabelEncoding | None: ...
    @property
    def subject(self) -> Mapping[str, Any]: ...
    @property
    def assumptions(self) -> Sequence[Assumption]: ...
    @property
    def notes(self) -> Sequence[Any]: ...
    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor: ...


class Sampler:
    """A generator on a device. Sample i is a function of (seed, i) alone: no batch size, order or device changes it.

    `device`: "auto" (CUDA, then MPS, then CPU) or a torch device. `batch_size`: None is automatic; when memory runs out it is
    halved and the batch tried again. The network that was passed in is never moved and never changed: on another device a
    copy is used, on its own one flags, buffers and random numbers are restored after every call.
    """

    def __init__(
        self, generator: GeneratorLike, *, device: str | torch.device = "auto", batch_size: int | None = None
    ) -> None:
        self.generator = generator
        self.latent = generator.latent
        self.output = generator.output
        self.classes = generator.classes
        self.condition = generator.condition
        self.subject = generator.subject
        self.assumptions = generator.assumptions
        self.notes = generator.notes
        self._placed, self.device = to_device(generator, select_device(device))
        self.batch_size = batch_size or default_batch_size(generator.output, self.device)
        self._standing: tuple[tuple[int, float], list[Tensor]] | None = None

    def __repr__(self) -> str:
        conditional = f", {self.classes} classes" if self.classes else ""
        return f"Generator(z {self.latent.shape} {self.latent.prior} -> {self.output.kind} {self.output.shape}{conditional}, on {self.device})"

    @property
    def module(self) -> nn.Module:
        """The network where it runs, whose knobs (truncation, noise) `load.rebuild.knobs.turned` turns for a while."""
        return self._placed.module

    @property
    def n_batchnorm_layers(self) -> int:
        """How many batch-norm layers keep running statistics."""
        return len(find_batchnorm_layers(self.generator.module))

    def sample(self, n: int, seed: int = 0, scale: float = 1.0, labels: int | Tensor | None = None) -> Tensor:
        """Samples 0 … n-1 of the stream `seed`: CPU tensor (n, *shape) float32 in data units.

        `scale` multiplies the latents. `labels`: one class, or (n,) int64; by default every class in turn.
        """
        chosen = torch.full((n,), labels) if isinstance(labels, int) else labels
        return self.sample_indices(torch.arange(n), seed=seed, scale=scale, labels=chosen)

    def sample_indices(
        self, indices: Tensor, *, seed: int, scale: float = 1.0, labels: Tensor | None = None, bn: str = "eval"
    ) -> Tensor:
        """The samples `indices` (B,) of the stream `seed`: (B, *shape) float32 on the CPU.

        `bn`: "eval" uses the stored statistics, "batch" those of groups of 64 in the order of `indices` (the one mode in
        which samples depend on their neighbours), "standing" those re-estimated over 16 batches of 64 latents. OutputError
        for NaN, infinity or another shape than declared. A generator that draws noise of its own gets it from `seed`.
        """
        self._demand_mode(bn)
        classes = self._labels(indices, labels)
        values = self._values(seed, scale) if bn == "standing" else None
        parts = []
        with isolated_rng(derive_seed(seed, "network noise")):
            for rows in self._groups(len(indices), bn):
                z = sample_latents(self.latent, indices[rows], seed=seed, scale=scale)
                parts += self._generate(
                    z, None if classes is None else classes[rows], bn, values, (seed, indices[rows])
                )
        samples = torch.cat(parts) if parts else torch.empty(0, *self.output.shape)
        require_finite_samples(samples)
        return samples  # (B, *shape)

    def generate(
        self, z: Tensor, labels: Tensor | None = None, *, bn: str = "eval", keep_graph: bool = False
    ) -> Tensor:
        """The bare network on latents of the caller's own: (B, *latent.shape) -> (B, *shape), on the device, unchecked for NaN.

        `grad=True` keeps the graph, for Jacobian products with respect to `z`. One call, no splitting into batches; `bn` is
        "eval" or "batch".
        """
        self._demand_mode(bn)
        if bn == "standing":
            raise ConfigError(
                "standing statistics belong to a seed and a scale, which a bare call has not",
                'use at(…, bn="standing")',
            )
        network = self._placed
        with preserve_module_state(network.module), torch.set_grad_enabled(keep_graph):
            if bn == "batch":
                use_batch_statistics(network.module)
            made = self._call(network, z.to(self.device), None if labels is None else labels.to(self.device))
        require_output_shape(made, self.output, len(z))
        return made.float()

    def _demand_mode(self, bn: str) -> None:
        if bn not in BATCHNORM_MODES:
            raise ConfigError(f"there is no batch-norm mode called {bn!r}", close_match_hint(bn, BATCHNORM_MODES))
        if bn != "eval":
            require_standard_batchnorm(self.generator.module)

    def _labels(self, indices: Tensor, given: Tensor | None) -> Tensor | None:
        if self.classes is None:
            if given is not None:
                raise ConfigError(
                    "labels were given, and this generator has no classes", "leave them out, or pass --classes"
                )
            return None
        if given is None:
            return make_labels(indices, self.classes)
        if len(given) != len(indices):
            raise ConfigError(f"{len(given)} labels were given for {len(indices)} samples", "give one label a sample")
        if len(given) and not 0 <= int(given.min()) <= int(given.max()) < self.classes:
            raise ConfigError(
                f"labels run from {int(given.min())} to {int(given.max())}",
                f"choose classes from 0 to {self.classes - 1}",
            )
        return given.to("cpu", torch.int64)

    def _groups(self, count: int, bn: str) -> list[slice]:
        """Rows that go through the network together. With batch statistics the group is part of the result, so it is fixed."""
        step = BATCHNORM_GROUP_SIZE if bn == "batch" else max(self.batch_size, 1)
        starts = list(range(0, count, step))
        if bn == "batch" and len(starts) > 1 and count - starts[-1] < _FEWEST_IN_GROUP:
            starts.pop()
        return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]

    def _generate(
        self, z: Tensor, classes: Tensor | None, bn: str, values: list[Tensor] | None, who: tuple[int, Tensor]
    ) -> list[Tensor]:
        """One group, in as many pieces as memory asks for. `who`: seed and indices of its samples, which noise inputs draw by."""
        pieces, start = [], 0
        network = self._placed
        with preserve_module_state(network.module), torch.no_grad():
            if bn == "batch":
                use_batch_statistics(network.module)
            if values is not None:
                set_standing_statistics(network.module, values)
            while start < len(z):
                rows = slice(start, len(z) if bn == "batch" else start + self.batch_size)
                try:
                    with override_sampling(network.module, noise_sampler=make_noise_sampler(who[0], who[1][rows])):
                        made = self._call(
                            network, z[rows].to(self.device), None if classes is None else classes[rows].to(self.device)
                        )
                except (RuntimeError, MemoryError) as problem:
                    self._shrink(problem, bn)
                    continue
                require_output_shape(made, self.output, len(z[rows]))
                pieces.append(made.float().cpu())
                start += len(made)
        return pieces

    def _call(self, network: GeneratorLike, z: Tensor, classes: Tensor | None) -> Tensor:
        """The network, its own errors told as ours; running out of memory passes through."""
        try:
            return network.forward(z, classes)
        except GandiagError:
            raise
        except Exception as problem:
            if is_out_of_memory(problem):
                raise
            first = str(problem).strip().split("\n")[0]
            raise OutputError(
                f"the generator failed on latents {tuple(z.shape)}: {type(problem).__name__}: {first}",
                "check --latent-dim, --classes and --condition against the way it was trained",
            ) from problem

    def _shrink(self, problem: BaseException, bn: str) -> None:
        """Halve the batch after running out of memory, or say that nothing more can be done."""
        if not is_out_of_memory(problem):
            raise problem
        if self.batch_size <= 1 or bn == "batch":
            held = BATCHNORM_GROUP_SIZE if bn == "batch" else 1
            raise OutputError(
                f"memory ran out on {self.device} with a batch of {held}", "use --device cpu, or a larger machine"
            ) from problem
        self.batch_size = max(1, self.batch_size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _values(self, seed: int, scale: float) -> list[Tensor]:
        """Standing statistics at this scale; kept until another seed or scale is asked for."""
        if self._standing is None or self._standing[0] != (seed, scale):
            self._standing = ((seed, scale), self._estimate(derive_seed(seed, "standing statistics"), scale))
        return self._standing[1]

    def _estimate(self, seed: int, scale: float) -> list[Tensor]:
        network = self._placed

        def forward() -> None:
            for start in range(0, STANDING_BATCHES * BATCHNORM_GROUP_SIZE, BATCHNORM_GROUP_SIZE):
                indices = torch.arange(start, start + BATCHNORM_GROUP_SIZE)
                classes = None if self.classes is None else make_labels(indices, self.classes).to(self.device)
                self._call(
                    network, sample_latents(self.latent, indices, seed=seed, scale=scale).to(self.device), classes
                )

        with isolated_rng(seed), preserve_module_state(network.module), torch.no_grad():
            return estimate_standing_statistics(network.module, forward)


def to_device(generator: GeneratorLike, device: torch.device) -> tuple[GeneratorLike, torch.device]:
    """The network where it runs: itself, or a copy on another device; itself again where it cannot be copied."""
    if is_on_device(generator.module, device):
        return generator, device
    try:
        clone = copy.deepcopy(generator)
    except (
        RuntimeError,
        TypeError,
        NotImplementedError,
    ):  # weights recomputed on every call (old weight_norm) cannot be copied
        return generator, next(iter([*generator.module.parameters(), *generator.module.buffers()])).device
    clone.module.to(device)
    return clone, device
