"""Evidence in BatchNorm running statistics about a generator's latents, labels and layers."""
