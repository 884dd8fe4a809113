"""Settings as keyword arguments of the Python API: their types, their help, and errors that name them."""
