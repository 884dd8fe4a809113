"""Names of random streams, which `derive_seed` hashes into seeds.

Never change one: every sample that depends on it would change.
"""

from __future__ import annotations

NETWORK_NOISE = "network noise"  # global random numbers while a generator runs
STANDING_STATISTICS = "standing statistics"  # latents that BatchNorm statistics are re-estimated on
NOISE_INPUT = "noise input {name}"  # noise inputs of a rebuilt generator, one stream for each input
DATASET_ITEM = "dataset item"  # random augmentation of one item of a torch Dataset
DEGRADATION = "frosted glass"  # noise added to degraded images
REAL_ORDER = "order of real samples"  # which samples of a set are compared, and in which half
GENERATED_ORDER = "order of generated samples"  # the same for a set that is judged
HELDOUT_ORDER = "order of held-out samples"  # the same for rows that a generator was not trained on
