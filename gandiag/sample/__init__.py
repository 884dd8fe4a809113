"""Latents from seed and index; streams of batches from generators, folders, archives and datasets."""
