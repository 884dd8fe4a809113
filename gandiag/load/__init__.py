"""Bytes on disk to a network that maps latents to samples. Nothing in a file runs without --trust."""
