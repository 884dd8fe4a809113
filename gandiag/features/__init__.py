"""Feature extractors: from samples to feature vectors."""
