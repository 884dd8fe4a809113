"""Reads training logs and analyzes their losses."""
