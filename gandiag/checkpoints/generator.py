"""LoadedGenerator: a network that maps latents (and labels) to samples, with everything that had to be assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gandiag.checkpoints.module_adapter import call_generator, extract_samples
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Another network that the same file may hold. `settings`: every open setting with its value here, in words."""

    settings: Mapping[str, str]
    generator: LoadedGenerator


@dataclass(frozen=True, slots=True, eq=False)
class OpenReadings:
    """What a file leaves open.

    `settings`: its open settings with the value taken, in words; `make`: other readings, the likeliest first; `total`:
    how many there are, which may be more than are made.
    """

    settings: Mapping[str, str]
    make: Callable[[], Iterator[Reading]]
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class LoadedGenerator:
    """A generator on the CPU, in eval mode, without gradients.

    `subject`: path as given, sha256, loader, family, parameters, weights. `assumptions`: settings that the file does
    not fully state. `notes`: what else the user should know. `labels_first`: with condition "concat", one-hot labels
    come before the latents. `trained_scale`: the latent scale of the training if the file states it, in units of the
    prior. `open_readings`: the other networks that the file may hold, None where nothing is open; no verdict rests on
    one of them alone.
    """

    module: nn.Module
    latent: LatentSpec
    output: OutputSpec
    classes: int | None = None
    condition: LabelEncoding | None = None
    subject: Mapping[str, Any] = field(default_factory=dict)
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[str, ...] = ()
    labels_first: bool = False
    trained_scale: float | None = None
    open_readings: OpenReadings | None = None

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples (B, *output.shape) float32 for latents z (B, *latent.shape) and, if conditional, labels (B,) int64.

        Of lists, tuples and dicts the largest tensor is used; flat images are reshaped. LoadError for missing labels,
        and for outputs of another size.
        """
        if (labels is None) != (self.condition is None):
            if labels is None:
                raise LoadError(
                    f"the generator needs labels: it has {self.classes} classes", "pass labels: int64, shape (B,)"
                )
            raise LoadError("the generator takes no labels", "call it without labels")
        conditioning = (self.condition, self.classes)
        output = call_generator(self.module, z, labels, conditioning, labels_first=self.labels_first)
        samples = extract_samples(output)
        try:
            return samples.reshape(len(z), *self.output.shape).float()  # (B, *shape)
        except RuntimeError:
            raise LoadError(
                f"the generator returned {tuple(samples.shape)} for {len(z)} latents, not {self.output.shape} each",
                "check --latent-dim",
            ) from None
