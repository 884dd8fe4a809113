"""Whether outputs follow z, or only noise of the network's own: the same noise under other latents."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult
from gandiag.record import Measurement
from gandiag.stats.resampling import DEFAULT_REPLICATES, draw_halves, replicate_half_width

N_LATENTS = 64
KEY = "latent_response"
NO_FLOOR = "real data have no latent"


def measure_latent_response(forward: Callable[[Tensor], Tensor], latents: Tensor, *, seed: int = 0) -> MetricResult:
    """How far another z moves an output, relative to the distance between outputs: `latent_response`, in [0, 1].

    `forward`: latents (N, *shape) -> outputs (N, ...), three times with the same rows of noise where the network draws
    any. 1 where z alone decides; 0 where the variety is the network's own noise. What two calls with the same z differ
    by is subtracted. Cost: 3 N samples.
    """
    outputs, again = (forward(latents).flatten(1).double() for _ in range(2))
    swapped = forward(latents.roll(1, 0)).flatten(1).double()
    moved = (swapped - outputs).square().sum(1) - (again - outputs).square().sum(1)  # (N,)
    apart = (outputs.roll(1, 0) - outputs).square().sum(1)
    if not float(apart.mean()) > 0:
        return MetricResult({KEY: Measurement.missing("every output is the same, whatever z")})

    def ratio(rows: Tensor) -> Tensor:
        return (moved[rows].mean().clamp_min(0) / apart[rows].mean().clamp_min(1e-300)).sqrt().clamp_max(1.0)

    generator = torch.Generator().manual_seed(seed)
    halves = [draw_halves((len(latents),), generator)[0] for _ in range(DEFAULT_REPLICATES)]
    value = float(ratio(torch.arange(len(latents))))
    error = float(replicate_half_width(torch.stack([ratio(half) for half in halves])))
    low, high = max(0.0, value - error), min(1.0, value + error)
    unit = "of the distance between outputs"
    return MetricResult({KEY: Measurement(value, low, high, None, unit, "higher", len(latents), reason=NO_FLOOR)})
