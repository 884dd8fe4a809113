"""The collapse score: mode partition, decomposition into factors, and interval."""
