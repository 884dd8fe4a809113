"""Monitors a generator during training."""
