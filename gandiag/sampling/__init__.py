"""From a generator, a folder or an array to batches of samples."""
