"""Remedies against mode collapse, one module each."""
