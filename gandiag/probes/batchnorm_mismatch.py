"""Compares a rebuilt network's BatchNorm inputs with the statistics stored in its checkpoint.

A generator that was rebuilt wrongly looks exactly like a collapsed one; this mismatch tells the two apart.
"""

from __future__ import annotations

import math

import torch

from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.checkpoints.batchnorm.latent_scale import estimate_trained_scale
from gandiag.checkpoints.batchnorm.moments import batchnorm_mismatch, paired_labels, sample_prior
from gandiag.checkpoints.batchnorm.thresholds import GOOD_MISMATCH
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.sampling.latents import make_noise_sampler

_MAX_POSITIONS = 2**22  # pixels of one channel in one forward pass
_MIN_SAMPLES = 32


def statistics_mismatch(
    generator: LoadedGenerator, *, seed: int = 0, n: int = 256, scale: float | None = None
) -> float | None:
    """Mean over BatchNorm layers of |Δmean| / sigma + |log variance ratio|, inputs against stored running statistics.

    0 is exact, below 0.15 a correct rebuild, above 1 a wrong one; None without BatchNorm. `scale`: the trained latent
    scale; estimated where it is not given. Noise inputs are drawn anew for every sample, as in training.

    Reads high when the weights are an average and the statistics are not. Blind to everything after the last BatchNorm.
    Stored statistics are averages over train-mode batches, in which every layer used the batch's own; where rare
    latents carry much of a variance, eval mode differs from that by itself. So above 0.15 the comparison is repeated
    with batch statistics inside, and the smaller value counts.

    Cost: one forward pass of n samples, or two; n is reduced above 128 pixels, where maps have more positions to
    average.
    """
    n = min(n, max(_MIN_SAMPLES, _MAX_POSITIONS // math.prod(generator.output.shape[1:])))
    if scale is None:
        estimate = estimate_trained_scale(generator)
        scale = 1.0 if estimate is None else estimate.value
    z = sample_prior(n, generator.latent.shape, generator.latent.prior, seed) * scale
    labels = paired_labels(n, None if generator.condition is None else generator.classes or 1)
    noise_sampler = make_noise_sampler(seed, torch.arange(n))
    with override_sampling(generator.module, noise_mode="random", noise_sampler=noise_sampler):
        mismatch = batchnorm_mismatch(generator.forward, generator.module, z, labels)
        if mismatch is None or mismatch < GOOD_MISMATCH:
            return mismatch
        in_train_mode = batchnorm_mismatch(generator.forward, generator.module, z, labels, use_batch_stats=True)
    return mismatch if in_train_mode is None else min(mismatch, in_train_mode)
