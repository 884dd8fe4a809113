"""Streaming accumulators and the geometry shared by the metrics."""
