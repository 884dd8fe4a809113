"""Does a function of a prompt still vary within each prompt, compared with its teacher?

python examples/groups.py
"""

from __future__ import annotations

import torch
from torch import Tensor

import gandiag

PROMPTS = [f"prompt {i}" for i in range(12)]


def teacher(prompt: str, seeds: list[int]) -> Tensor:
    """Stands for your base model: one sample per seed."""
    center = torch.randn(8, generator=torch.Generator().manual_seed(PROMPTS.index(prompt)))
    noise = torch.stack([torch.randn(8, generator=torch.Generator().manual_seed(1_000 + seed)) for seed in seeds])
    return 3 * center + noise


def student(prompt: str, seeds: list[int]) -> Tensor:
    """Stands for a distilled model that ignores most of the seed."""
    return teacher(prompt, [0] * len(seeds)) + 0.1 * (teacher(prompt, seeds) - teacher(prompt, [0] * len(seeds)))


def main() -> gandiag.Record:
    reference = torch.cat([teacher(prompt, list(range(8))) for prompt in PROMPTS])
    names = [prompt for prompt in PROMPTS for _ in range(8)]
    record = gandiag.audit(student, groups=PROMPTS, against=reference, against_groups=names, per_group=8)
    print(record.summary())
    return record


if __name__ == "__main__":
    main()
