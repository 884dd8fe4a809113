"""One module per architecture that a state dict can be rebuilt into."""
