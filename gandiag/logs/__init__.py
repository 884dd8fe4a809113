"""Training logs: every format to series, their oscillation spectrum, and what the losses say of stability. Torch-free."""
