"""State dict to module, one file per family."""
