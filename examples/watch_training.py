"""Watch a training loop, and stop it when the generator collapses. Your own loop goes where the comment says.

python examples/watch_training.py
"""

from __future__ import annotations

import torch
from torch import nn

import gandiag


def main(steps: int = 400, every: int = 100) -> gandiag.Monitor:
    real = torch.randn(2_000, 2, generator=torch.Generator().manual_seed(0))
    generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    monitor = gandiag.Monitor(real=real, every=every, latent_dim=8, n=256, stop=True, budget=None)
    for step in range(1, steps + 1):
        # one step of your training
        monitor(step, generator)
        if monitor.stopped:
            break
    return monitor


if __name__ == "__main__":
    main()
