"""One module per remedy against mode collapse."""
