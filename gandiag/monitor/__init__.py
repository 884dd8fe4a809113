"""Watches a generator during training."""
