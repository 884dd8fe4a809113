"""Checks generator output: finite, of the declared shape, within the declared range, no constant channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.errors import OutputError
from gandiag.interfaces import Batch, OutputSpec
from gandiag.record import FACT_REASON, Measurement


def require_finite_samples(samples: Tensor) -> None:
    """OutputError unless every value of (B, …) is finite."""
    if bool(torch.isfinite(samples.sum())):
        return
    n_bad = int((~torch.isfinite(samples)).flatten(1).any(1).sum())
    if n_bad:  # the sum of finite values can overflow
        raise OutputError(
            f"{n_bad} of {len(samples)} samples contain NaN or infinity",
            "the weights diverged or were rebuilt wrongly: audit an earlier checkpoint, or check `gandiag inspect`",
        )


def require_output_shape(samples: Tensor, output: OutputSpec, n_samples: int) -> None:
    """OutputError unless the batch is (n_samples, *output.shape)."""
    expected = (n_samples, *output.shape)
    if tuple(samples.shape) != expected:
        raise OutputError(
            f"the generator returned shape {tuple(samples.shape)}, expected {expected}",
            "check --image-size, --channels and --latent-dim",
        )


@dataclass(frozen=True, slots=True)
class OutputSummary:
    """Facts about the samples of one source.

    `saturated_fraction`: share of values that 8 bits would round to an end of the declared range, or that lie beyond
    it; `out_of_range_fraction`: share beyond it by more than that; both 0 where no range is declared.
    `constant_channels`: channels (or vector coordinates) that never change, over all samples and positions, out of
    `n_channels`.
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
    """Collect an OutputSummary over the raw samples."""

    range: tuple[float, float] | None = None
    view: str = "samples"

    def start(self) -> OutputCheckAccumulator:
        return OutputCheckAccumulator(self)


class OutputCheckAccumulator:
    """Extremes and counts per channel; exact under any batching, order and sharding."""

    def __init__(self, spec: OutputCheck) -> None:
        self.spec = spec
        self._n = self._n_values = self._n_saturated = self._n_outside = 0
        self._low: Tensor | None = None  # (C,)
        self._high: Tensor | None = None  # (C,)

    def update(self, batch: Batch) -> None:
        if not len(batch.samples):
            return
        flat = batch.samples.flatten(2) if batch.samples.dim() > 2 else batch.samples[:, :, None]  # (B, C, P)
        self._extend_bounds(flat.amin((0, 2)).cpu(), flat.amax((0, 2)).cpu())
        self._n += len(flat)
        self._n_values += flat.numel()
        if self.spec.range is not None:
            low, high = self.spec.range
            half_step = (high - low) / 510  # 255 steps in 8 bits
            self._n_saturated += int(((flat <= low + half_step) | (flat >= high - half_step)).sum())
            self._n_outside += int(((flat < low - half_step) | (flat > high + half_step)).sum())

    def merge(self, other: OutputCheckAccumulator) -> None:
        if other._low is None or other._high is None:
            return
        self._extend_bounds(other._low, other._high)
        self._n += other._n
        self._n_values += other._n_values
        self._n_saturated += other._n_saturated
        self._n_outside += other._n_outside

    def result(self) -> OutputSummary:
        if self._low is None or self._high is None:
            return OutputSummary(0, float("nan"), float("nan"), 0.0, 0.0, (), 0)
        low, high = float(self._low.min()), float(self._high.max())
        span = (self.spec.range[1] - self.spec.range[0]) if self.spec.range else max(high - low, 1e-30)
        constant = (self._high - self._low <= 1e-6 * span).nonzero().flatten().tolist() if self._n > 1 else []
        return OutputSummary(
            n=self._n,
            minimum=low,
            maximum=high,
            saturated_fraction=self._n_saturated / self._n_values,
            out_of_range_fraction=self._n_outside / self._n_values,
            constant_channels=tuple(constant),
            n_channels=len(self._low),
        )

    def _extend_bounds(self, low: Tensor, high: Tensor) -> None:
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)


def output_measurements(summary: OutputSummary) -> dict[str, Measurement]:
    """The summary as measurements: output_min, output_max, saturated, constant_channels. Facts have no floor."""
    n, reason = summary.n, FACT_REASON
    if not n:
        keys = ("output_min", "output_max", "saturated", "constant_channels")
        return {key: Measurement.missing("no samples were drawn") for key in keys}
    n_constant = float(len(summary.constant_channels))
    return {
        "output_min": Measurement(summary.minimum, n=n, reason=reason),
        "output_max": Measurement(summary.maximum, n=n, reason=reason),
        "saturated": Measurement(summary.saturated_fraction, unit="share of values", n=n, reason=reason),
        "constant_channels": Measurement(
            n_constant, unit=f"of {summary.n_channels}", better="lower", n=n, reason=reason
        ),
    }
