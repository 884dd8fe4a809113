"""Probes: measurements that call the generator itself."""
