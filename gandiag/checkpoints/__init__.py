"""From a file on disk to a generator that can be sampled."""
