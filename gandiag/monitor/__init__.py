"""Watching a generator while it trains: probes, a reference computed once, a time budget, and sinks. Training stays bit-identical."""
