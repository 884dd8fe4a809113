"""Measurements that call the generator itself."""
