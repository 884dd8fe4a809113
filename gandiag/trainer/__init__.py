"""Reference GAN trainer: published recipes, remedies against mode collapse, and a benchmark of both."""
