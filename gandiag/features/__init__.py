"""Samples to feature vectors, by view name; the cache of the real pass."""
