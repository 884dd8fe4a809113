"""Differentiates a generator's loss through K Adam steps of the discriminator."""
