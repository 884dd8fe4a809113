"""A Record as text, page or data. Torch-free."""
