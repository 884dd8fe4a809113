"""How sure a reading of a file is, in one word with its grounds: exact, settled or open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.inference.forward_cost import count_multiplications
from gandiag.errors import GandiagError
from gandiag.interfaces import UNDECIDED

ConfidenceWord = Literal["exact", "settled", "open"]
SAME_OUTPUTS = 0.02  # in standard deviations of the samples: below, two readings are the same generator
_COMPARED = 8  # latents
_BUDGET = 1e10  # multiplications of all readings that are compared: about half a second
_MAX_COMPARED = 200  # readings
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_MAX_PARAMETERS = 2e7  # of a network that is run here


@dataclass(frozen=True, slots=True)
class Confidence:
    """`word`: "exact" (the structure is in the file, or given), "settled" (by statistics), "open"; `grounds`: why."""

    word: ConfidenceWord
    grounds: str


def assess_confidence(generator: LoadedGenerator) -> Confidence:
    """The confidence in a loaded generator. Draws a few samples of each reading, as far as they cost little."""
    undecided = [entry.setting for entry in generator.assumptions if entry.source == UNDECIDED]
    unseen_forward = any(entry.setting == "forward" and entry.source == "default" for entry in generator.assumptions)
    readings = generator.open_readings
    if readings is not None:
        names = ", ".join(name.replace("_", " ") for name in {**readings.settings, **dict.fromkeys(undecided)})
        count, difference = _compare_readings(generator)
        is_small = difference is not None and difference <= SAME_OUTPUTS and not undecided
        return Confidence("settled" if is_small else "open", f"{_describe_difference(count, difference)}: {names}")
    if undecided:
        listed = ", ".join(dict.fromkeys(name.replace("_", " ") for name in undecided))
        return Confidence("open", f"neither file nor statistics tell: {listed}")
    fits = [entry.fit for entry in generator.assumptions if entry.source == "batch-norm" and entry.fit is not None]
    if fits:
        ratios = [fit.ratio for fit in fits if fit.ratio is not None]
        margin = f"; the next best fits {min(ratios):.1f} times worse" if ratios else ""
        also = "; what forward() does beside its parts is not seen" if unseen_forward else ""
        return Confidence("settled", f"by BatchNorm statistics{margin}{also}")
    if unseen_forward:
        return Confidence("settled", "structure from the file; what forward() does beside its parts is not seen")
    return Confidence("exact", "structure from the file or as given")


def _compare_readings(generator: LoadedGenerator) -> tuple[int, float | None]:
    """How many readings there are, and how far their samples are from the first one's, in standard deviations.

    None where not all were compared, infinity where samples have other shapes.
    """
    assert generator.open_readings is not None
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(_COMPARED, *generator.latent.shape, generator=rng)
    labels = None if generator.classes is None else torch.arange(_COMPARED) % generator.classes
    n_parameters = int(generator.subject.get("parameters") or 0)
    total = 1 + generator.open_readings.total
    if n_parameters > _MAX_PARAMETERS:
        return total, None
    draws: list[Tensor | None] = []
    cost = count_multiplications(generator.module, lambda: draws.append(_run(generator, z, labels)))
    own = draws[0]
    if own is None or total > _MAX_COMPARED or cost * total > _BUDGET:
        return total, None
    largest, n_made = 0.0, 1
    for reading in generator.open_readings.make():
        classes = reading.generator.classes
        other = _run(reading.generator, z, None if classes is None else torch.arange(_COMPARED) % classes)
        largest, n_made = max(largest, _difference(own, other)), n_made + 1
    return n_made, largest if n_made == total else None


def _difference(own: Tensor, other: Tensor | None) -> float:
    """Root mean square difference in standard deviations of the samples; infinite where shapes differ."""
    if other is None or other.shape != own.shape:
        return math.inf
    spread = max(1e-12, float((own - own.mean(0)).square().mean().sqrt()))
    return float((own - other).square().mean().sqrt()) / spread


def _describe_difference(count: int, difference: float | None) -> str:
    readings = f"{_NUMBERS[count] if count < len(_NUMBERS) else count} readings fit"
    if difference is None:
        return readings
    if difference == float("inf"):
        return f"{readings}; they make samples of other shapes"
    nearly = " and are nearly the same; " if difference <= SAME_OUTPUTS else "; "
    return f"{readings}{nearly}they differ by up to {difference:.2g} standard deviations"


def _run(generator: LoadedGenerator, z: Tensor, labels: Tensor | None) -> Tensor | None:
    """Samples (N, D) of these latents; None where the network cannot run."""
    try:
        with torch.no_grad():
            return generator.forward(z.reshape(len(z), *generator.latent.shape), labels).flatten(1)
    except (GandiagError, RuntimeError):
        return None
