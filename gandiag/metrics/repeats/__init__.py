"""Outputs that are the same: exactly, up to noise, or up to a small shift."""
