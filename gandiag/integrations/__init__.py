"""The monitor in other people's training loops: Lightning and Ignite. Each file imports its framework, and nothing else does."""
