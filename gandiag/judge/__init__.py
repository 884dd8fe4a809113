"""From facts to a verdict, kinds, findings and advice. Torch-free."""
