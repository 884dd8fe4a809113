"""What came out of the generator: finite, of the right shape, in the declared range, alive in every channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.errors import OutputError
from gandiag.interfaces import Batch, OutputSpec
from gandiag.record import Measurement


def require_finite_samples(samples: Tensor) -> None:
    """OutputError unless every value of (B, …) is finite."""
    if bool(torch.isfinite(samples.sum())):
        return
    bad = int((~torch.isfinite(samples)).flatten(1).any(1).sum())
    if bad:
        raise OutputError(
            f"{bad} of {len(samples)} samples hold NaN or infinity",
            "the weights diverged, or were rebuilt wrongly: audit an earlier checkpoint, or see `gandiag inspect`",
        )


def require_output_shape(samples: Tensor, output: OutputSpec, n_samples: int) -> None:
    """OutputError unless the batch is (count, *output.shape)."""
    if tuple(samples.shape) != (n_samples, *output.shape):
        raise OutputError(
            f"the generator made {tuple(samples.shape)} where {(n_samples, *output.shape)} was declared",
            "check --image-size, --channels and --latent-dim",
        )


@dataclass(frozen=True, slots=True)
class OutputSummary:
    """What the samples of one source look like; facts, not judgements.

    `low`, `high`: extremes. `saturated`: share of values that 8 bits would round to an end of the declared range, or that lie
    beyond it; `outside`: share beyond it by more than that; both 0 where no range is declared. `constant`: channels (or
    vector coordinates) that never change, over all samples and positions; `channels`: of how many.
    """

    n: int
    minimum: float
    maximum: float
    saturated_fraction: float
    out_of_range_fraction: float
    constant_channels: tuple[int, ...]
    n_channels: int


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """Collect OutputFacts over the raw samples: the spec."""

    range: tuple[float, float] | None = None
    view: str = "samples"

    def start(self) -> OutputCheckAccumulator:
        return OutputCheckAccumulator(self)


class OutputCheckAccumulator:
    """Extremes and counts per channel; exact under any batching, order and sharding."""

    def __init__(self, spec: OutputCheck) -> None:
        self.spec = spec
        self._n = self._values = self._saturated = self._outside = 0
        self._low: Tensor | None = None  # (C,)
        self._high: Tensor | None = None  # (C,)

    def update(self, batch: Batch) -> None:
        if not len(batch.samples):
            return
        flat = batch.samples.flatten(2) if batch.samples.dim() > 2 else batch.samples[:, :, None]  # (B, C, P)
        self._extend(flat.amin((0, 2)).cpu(), flat.amax((0, 2)).cpu())
        self._n += len(flat)
        self._values += flat.numel()
        if self.spec.range is not None:
            low, high = self.spec.range
            step = (high - low) / 510  # half of one of 255 steps
            self._saturated += int(((flat <= low + step) | (flat >= high - step)).sum())
            self._outside += int(((flat < low - step) | (flat > high + step)).sum())

    def merge(self, other: OutputCheckAccumulator) -> None:
        if other._low is None or other._high is None:
            return
        self._extend(other._low, other._high)
        self._n += other._n
        self._values += other._values
        self._saturated += other._saturated
        self._outside += other._outside

    def result(self) -> OutputSummary:
        if self._low is None or self._high is None:
            return OutputSummary(0, float("nan"), float("nan"), 0.0, 0.0, (), 0)
        low, high = float(self._low.min()), float(self._high.max())
        span = (self.spec.range[1] - self.spec.range[0]) if self.spec.range else max(high - low, 1e-30)
        still = (self._high - self._low <= 1e-6 * span).nonzero().flatten().tolist() if self._n > 1 else []
        return OutputSummary(
            self._n,
            low,
            high,
            self._saturated / self._values,
            self._outside / self._values,
            tuple(still),
            len(self._low),
        )

    def _extend(self, low: Tensor, high: Tensor) -> None:
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)


def output_measurements(summary: OutputSummary) -> dict[str, Measurement]:
    """The facts as measurements: output_min, output_max, saturated, constant_channels. They have no floor: facts of the file."""
    if not summary.n:
        return {
            key: Measurement.missing("no samples were drawn")
            for key in ("output_min", "output_max", "saturated", "constant_channels")
        }
    return {
        "output_min": Measurement(summary.minimum, n=summary.n, reason="a fact of the file"),
        "output_max": Measurement(summary.maximum, n=summary.n, reason="a fact of the file"),
        "saturated": Measurement(
            summary.saturated_fraction, unit="share of values", n=summary.n, reason="a fact of the file"
        ),
        "constant_channels": Measurement(
            float(len(summary.constant_channels)),
            unit=f"of {summary.n_channels}",
            better="lower",
            n=summary.n,
            reason="a fact of the file",
        ),
    }
