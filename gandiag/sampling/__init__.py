"""Turns generators, image folders, arrays and datasets into batches of samples."""
