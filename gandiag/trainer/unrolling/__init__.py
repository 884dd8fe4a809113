"""Second-order derivatives for unrolled GANs."""
