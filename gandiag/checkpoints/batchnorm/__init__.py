"""What BatchNorm running statistics say about a generator's inputs and layers."""
