"""Sampler, the public generator: draws checked samples by index and leaves the network exactly as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.errors import ConfigError, GandiagError, OutputError, close_match_hint
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec
from gandiag.sampling.device import default_batch_size, fixed_call_rows, is_on_device, is_out_of_memory, select_device
from gandiag.sampling.latents import chunk_slices, derive_seed, make_labels, make_noise_sampler, sample_latents
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
from gandiag.sampling.stream_names import NETWORK_NOISE, STANDING_STATISTICS

BATCHNORM_MODES = ("eval", "batch", "standing")
BATCHNORM_GROUP_SIZE = 64  # samples that share statistics where BatchNorm uses the batch's own
STANDING_BATCHES = 16
MIN_GROUP_SIZE = 16  # a smaller last group is merged into the one before it


class GeneratorLike(Protocol):
    """A rebuilt module and how to call it, as the loader returns it."""

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
    """A generator on a device. Sample i depends on (seed, i) alone, not on batch size, order or device.

    `device`: "auto" (CUDA, then MPS, then CPU) or a torch device. `batch_size`: None is automatic; on a CPU it is
    rounded up to whole calls of the network (`fixed_call_rows`); when memory runs out it is halved and the batch
    repeated. The network passed in is never moved or changed: on another device a copy runs; on its own device flags,
    buffers and random state are restored after every call.
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
        self.assumptions: Sequence[Any] = generator.assumptions
        self.notes = generator.notes
        self._on_device, self.device = to_device(generator, select_device(device))
        self._call_rows = fixed_call_rows(generator.output, self.device)
        step = self._call_rows or 1
        self.batch_size = -(-(batch_size or default_batch_size(generator.output, self.device)) // step) * step
        self._standing: tuple[tuple[int, float], list[Tensor]] | None = None

    def __repr__(self) -> str:
        conditional = f", {self.classes} classes" if self.classes else ""
        latent = f"z {self.latent.shape} {self.latent.prior}"
        return f"Generator({latent} -> {self.output.kind} {self.output.shape}{conditional}, on {self.device})"

    @property
    def module(self) -> nn.Module:
        """The network that runs on `device`; `override_sampling` changes its truncation and noise temporarily."""
        return self._on_device.module

    @property
    def n_batchnorm_layers(self) -> int:
        """How many BatchNorm layers keep running statistics."""
        return len(find_batchnorm_layers(self.generator.module))

    def sample(self, n: int, seed: int = 0, scale: float = 1.0, labels: int | Tensor | None = None) -> Tensor:
        """Draw samples 0 … n-1 of the stream `seed`: CPU tensor (n, *shape) float32 in data units.

        `scale` multiplies the latents. `labels`: one class, or (n,) int64; by default the classes in turn.
        """
        chosen = torch.full((n,), labels) if isinstance(labels, int) else labels
        return self.sample_indices(torch.arange(n), seed=seed, scale=scale, labels=chosen)

    def sample_indices(
        self, indices: Tensor, *, seed: int, scale: float = 1.0, labels: Tensor | None = None, bn: str = "eval"
    ) -> Tensor:
        """Draw the samples `indices` (B,) of the stream `seed`: (B, *shape) float32 on the CPU.

        `bn`: "eval" uses the stored statistics, "batch" those of groups of 64 in the order of `indices` (the only mode
        in which samples depend on their neighbors), "standing" those re-estimated over 16 batches of 64 latents.
        OutputError for NaN, infinity or a shape other than declared. A generator that draws its own noise is seeded by
        `seed`.
        """
        self._require_batchnorm_mode(bn)
        classes = self._check_labels(indices, labels)
        standing = self._standing_statistics(seed, scale) if bn == "standing" else None
        parts = []
        for rows in self._split_rows(len(indices), bn):
            z = sample_latents(self.latent, indices[rows], seed=seed, scale=scale)
            row_classes = None if classes is None else classes[rows]
            parts += self._generate_rows(z, row_classes, bn, standing, seed, indices[rows])
        samples = torch.cat(parts) if parts else torch.empty(0, *self.output.shape)
        require_finite_samples(samples)
        return samples  # (B, *shape)

    def generate(
        self, z: Tensor, labels: Tensor | None = None, *, bn: str = "eval", keep_graph: bool = False
    ) -> Tensor:
        """Call the network once on given latents: (B, *latent.shape) -> (B, *shape) on the device, not checked for NaN.

        `keep_graph=True` keeps the autograd graph, for Jacobian products with respect to `z`. The batch is not split;
        `bn` is "eval" or "batch".
        """
        self._require_batchnorm_mode(bn)
        if bn == "standing":
            raise ConfigError(
                "standing statistics need a seed and a scale, which `generate` does not take",
                'use sample_indices(…, bn="standing")',
            )
        module = self._on_device.module
        with preserve_module_state(module), torch.set_grad_enabled(keep_graph):
            if bn == "batch":
                use_batch_statistics(module)
            samples = self._forward(z, labels)
        require_output_shape(samples, self.output, len(z))
        return samples.float()

    def run(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The old name of `generate`."""
        warnings.warn(
            "Sampler.run is now called generate; the old name goes away in the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.generate(z, labels)

    def _require_batchnorm_mode(self, bn: str) -> None:
        if bn not in BATCHNORM_MODES:
            raise ConfigError(f"there is no BatchNorm mode called {bn!r}", close_match_hint(bn, BATCHNORM_MODES))
        if bn != "eval":
            require_standard_batchnorm(self.generator.module)

    def _check_labels(self, indices: Tensor, labels: Tensor | None) -> Tensor | None:
        """The labels to use for `indices`, or None for an unconditional generator.

        ConfigError for labels that do not fit.
        """
        if self.classes is None:
            if labels is not None:
                raise ConfigError(
                    "labels were passed, but this generator has no classes", "leave them out, or pass --classes"
                )
            return None
        if labels is None:
            return make_labels(indices, self.classes)
        if len(labels) != len(indices):
            raise ConfigError(
                f"{len(labels)} labels were passed for {len(indices)} samples", "pass one label per sample"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ConfigError(
                f"labels run from {int(labels.min())} to {int(labels.max())}",
                f"choose classes from 0 to {self.classes - 1}",
            )
        return labels.to("cpu", torch.int64)

    def _split_rows(self, count: int, bn: str) -> list[slice]:
        """Rows that run together. With batch statistics the groups are part of the result, so their size is fixed."""
        step = BATCHNORM_GROUP_SIZE if bn == "batch" else max(self.batch_size, 1)
        starts = list(range(0, count, step))
        if bn == "batch" and len(starts) > 1 and count - starts[-1] < MIN_GROUP_SIZE:
            starts.pop()
        return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]

    def _generate_rows(
        self,
        z: Tensor,
        classes: Tensor | None,
        bn: str,
        standing: list[Tensor] | None,
        seed: int,
        indices: Tensor,
    ) -> list[Tensor]:
        """Samples of one group of rows, in as many pieces as memory requires.

        Noise inputs draw by `seed` and `indices`.
        """
        pieces, start = [], 0
        module = self._on_device.module
        with preserve_module_state(module), torch.no_grad():
            if bn == "batch":
                use_batch_statistics(module)
            if standing is not None:
                set_standing_statistics(module, standing)
            while start < len(z):
                size = len(z) if bn == "batch" else min(self._call_rows or self.batch_size, self.batch_size)
                rows = slice(start, start + size)
                try:
                    with (
                        isolated_rng(_network_noise_seed(seed, int(indices[start]))),
                        override_sampling(module, noise_sampler=make_noise_sampler(seed, indices[rows])),
                    ):
                        samples = self._forward(z[rows], None if classes is None else classes[rows])
                except (RuntimeError, MemoryError) as problem:
                    self._shrink_batch(problem, bn)
                    continue
                require_output_shape(samples, self.output, len(z[rows]))
                pieces.append(samples.float().cpu())
                start += len(samples)
        return pieces

    def _forward(self, z: Tensor, classes: Tensor | None) -> Tensor:
        """Run the network on its device. Its exceptions become OutputError; out-of-memory errors pass through."""
        try:
            return self._on_device.forward(z.to(self.device), None if classes is None else classes.to(self.device))
        except GandiagError:
            raise
        except Exception as problem:
            if is_out_of_memory(problem):
                raise
            first_line = str(problem).strip().split("\n")[0]
            raise OutputError(
                f"the generator failed on latents {tuple(z.shape)}: {type(problem).__name__}: {first_line}",
                "check --latent-dim, --classes and --condition against the training code",
            ) from problem

    def _shrink_batch(self, problem: BaseException, bn: str) -> None:
        """Halve the batch size after an out-of-memory error; OutputError where it cannot shrink.

        Reraises other errors.
        """
        if not is_out_of_memory(problem):
            raise problem
        if self.batch_size <= 1 or bn == "batch":
            batch_size = BATCHNORM_GROUP_SIZE if bn == "batch" else 1
            raise OutputError(
                f"memory ran out on {self.device} with a batch of {batch_size}",
                "use --device cpu, or a larger machine",
            ) from problem
        self.batch_size = max(1, self.batch_size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _standing_statistics(self, seed: int, scale: float) -> list[Tensor]:
        """Standing statistics at this scale, cached for one (seed, scale)."""
        if self._standing is None or self._standing[0] != (seed, scale):
            values = self._estimate_standing_statistics(derive_seed(seed, STANDING_STATISTICS), scale)
            self._standing = ((seed, scale), values)
        return self._standing[1]

    def _estimate_standing_statistics(self, seed: int, scale: float) -> list[Tensor]:
        module = self._on_device.module

        def forward() -> None:
            for rows in chunk_slices(STANDING_BATCHES * BATCHNORM_GROUP_SIZE, BATCHNORM_GROUP_SIZE):
                indices = torch.arange(rows.start, rows.stop)
                classes = None if self.classes is None else make_labels(indices, self.classes)
                self._forward(sample_latents(self.latent, indices, seed=seed, scale=scale), classes)

        with isolated_rng(seed), preserve_module_state(module), torch.no_grad():
            return estimate_standing_statistics(module, forward)


def _network_noise_seed(seed: int, index: int) -> int:
    """The seed of a network's own noise in the call that begins with sample `index`."""
    return derive_seed(seed, NETWORK_NOISE if index == 0 else f"{NETWORK_NOISE} {index}")


def to_device(generator: GeneratorLike, device: torch.device) -> tuple[GeneratorLike, torch.device]:
    """The generator itself or a copy on `device`, and the device; itself where it is if it cannot be copied."""
    if is_on_device(generator.module, device):
        return generator, device
    try:
        clone = copy.deepcopy(generator)
    except (
        RuntimeError,
        TypeError,
        NotImplementedError,
    ):  # as for old weight_norm, which recomputes weights on every call
        return generator, next(iter([*generator.module.parameters(), *generator.module.buffers()])).device
    clone.module.to(device)
    return clone, device
