"""Does the network reproduce its checkpoint's batch-norm statistics? If not, it was rebuilt wrongly: a mis-rebuilt
generator looks exactly like a collapsed one."""

from __future__ import annotations

import math

import torch

from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.checkpoints.batchnorm.latent_scale import estimate_trained_scale
from gandiag.checkpoints.batchnorm.moments import batchnorm_mismatch, paired_labels, sample_prior
from gandiag.checkpoints.loader import LoadedGenerator
from gandiag.sampling.latents import make_noise_sampler

MAX_MISMATCH = 0.15
_POSITIONS, _FEWEST = 2**22, 32  # pixels of one channel that a forward may hold, and samples that it has at least


def statistics_mismatch(network: LoadedGenerator, *, seed: int = 0, n: int = 256) -> float | None:
    """How far the network's own batch-norm inputs, at the trained scale, are from the stored running statistics.

    Mean over batch norms of |Δmean| / sigma + |log variance ratio|. 0 is exact, below 0.15 a correct rebuild, above 1 a
    wrong one; None without batch norm. Reads high when the weights are averages and the statistics are not. Blind to
    everything after the last batch norm. Statistics are averages over train-mode batches, where every norm used the batch's
    own; where rare latents carry much of a variance, eval mode differs from that by itself. So above 0.15 the comparison is
    made again with batch statistics inside, and the better one counts. Noise inputs are drawn for every sample, as they were when
    the statistics were taken. Cost: one forward of n, or two; beyond 128 pixels n is less, as maps have more positions to count.
    """
    n = min(n, max(_FEWEST, _POSITIONS // math.prod(network.output.shape[1:])))
    scale = estimate_trained_scale(network)
    z = sample_prior(n, network.latent.shape, network.latent.prior, seed) * (1.0 if scale is None else scale.value)
    labels = paired_labels(n, None if network.condition is None else network.classes or 1)
    with override_sampling(
        network.module, noise_mode="random", noise_sampler=make_noise_sampler(seed, torch.arange(n))
    ):
        found = batchnorm_mismatch(network.forward, network.module, z, labels)
        if found is None or found < MAX_MISMATCH:
            return found
        again = batchnorm_mismatch(network.forward, network.module, z, labels, use_batch_stats=True)
    return found if again is None else min(found, again)
