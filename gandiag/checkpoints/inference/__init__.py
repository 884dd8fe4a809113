"""Infers the layers and hyperparameters that a plain state dict does not name."""
