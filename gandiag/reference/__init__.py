"""The reference trainer: small GANs with and without remedies, from a seed, for comparison."""
