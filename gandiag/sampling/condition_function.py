"""Samples from a function of a condition: fn(condition, seeds) -> one sample per seed.

    def fn(prompt, seeds):
        return pipe([prompt] * len(seeds), generator=[torch.Generator().manual_seed(seed) for seed in seeds]).images

Anything that takes a condition fits: text-to-image pipelines, class-conditional networks, image-to-image translation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gandiag.errors import ConfigError, GandiagError, OutputError, SourceError
from gandiag.sampling.sampler import Sampler
from gandiag.sampling.sources import SampleSet, open_samples

ConditionFunction = Callable[[Any, list[int]], Any]
DEFAULT_PER_GROUP = 8


def is_condition_function(x: Any) -> bool:
    """Whether x is called with conditions: a function or callable object that is no network, Sampler or dataset."""
    return callable(x) and not isinstance(x, (nn.Module, Sampler, type)) and not hasattr(x, "__getitem__")


def sample_conditions(
    function: ConditionFunction,
    conditions: Sequence[Any],
    per_group: int | None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[SampleSet, list[str | None]]:
    """`per_group` samples (8 by default) of every condition, with the seeds `seed`, `seed` + 1, …, and their groups.

    All samples are kept in memory. OutputError where the function fails or returns another number of samples.
    """
    seeds = [seed + index for index in range(per_group or DEFAULT_PER_GROUP)]
    names = name_conditions(conditions)
    parts = []
    for number, condition in enumerate(conditions):
        if progress is not None:
            progress(number, len(conditions))
        parts.append(_call_function(function, condition, seeds, names[number]))
    groups: list[str | None] = [name for name in names for _ in seeds]
    return open_samples(join_parts(parts)), groups


def name_conditions(conditions: Sequence[Any]) -> list[str]:
    """A name for each condition: text and numbers as they are, everything else by its position.

    ConfigError for none, or for names that repeat.
    """
    if isinstance(conditions, (str, bytes)) or not hasattr(conditions, "__len__"):
        raise ConfigError(f"groups is a {type(conditions).__name__}", "pass a list of conditions")
    if not len(conditions):
        raise ConfigError("groups is empty", "pass the conditions to sample, such as a list of prompts")
    simple = (str, int, float, bool, np.integer, np.floating)
    names = [
        str(entry) if isinstance(entry, simple) else f"condition {index}" for index, entry in enumerate(conditions)
    ]
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if repeated is not None:
        raise ConfigError(f"the condition {repeated!r} is listed twice", "list each condition once")
    return names


def _call_function(function: ConditionFunction, condition: Any, seeds: list[int], name: str) -> list[Any] | Tensor:
    try:
        with torch.no_grad():
            samples = function(condition, list(seeds))
    except GandiagError:
        raise
    except (Exception, SystemExit) as problem:  # its exit code would pass for a verdict
        raise OutputError(
            f"the function failed on {name!r}: {type(problem).__name__}: {problem}",
            "it is called as fn(condition, seeds) and returns one sample per seed",
        ) from problem
    samples = getattr(samples, "images", samples)  # of a pipeline's output
    if isinstance(samples, np.ndarray):
        samples = list(samples)
    if not isinstance(samples, (list, tuple, Tensor)):
        raise OutputError(
            f"the function returned a {type(samples).__name__}", "return a tensor, an array or a list of images"
        )
    if len(samples) != len(seeds):
        raise OutputError(
            f"the function returned {len(samples)} samples of {name!r} for {len(seeds)} seeds", "return one per seed"
        )
    return samples.detach().cpu() if isinstance(samples, Tensor) else list(samples)


def join_parts(parts: list[list[Any] | Tensor]) -> Any:
    """One tensor or array where all samples have one shape, else a list. OutputError for arrays of several shapes."""
    _require_one_shape(parts)
    if all(isinstance(part, Tensor) for part in parts) and len({part.shape for part in parts}) == 1:  # type: ignore[union-attr]
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    items = [item for part in parts for item in part]
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    if len(arrays) == len(items) and len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    if any(item is None for item in items):
        raise SourceError("the function returned None in place of a sample", "return a tensor, an array or an image")
    return items


def _require_one_shape(parts: list[list[Any] | Tensor]) -> None:
    shapes = {tuple(item.shape): None for part in parts for item in part if isinstance(item, (Tensor, np.ndarray))}
    if len(shapes) > 1:
        first, second = list(shapes)[:2]
        raise OutputError(
            f"the function returned samples of several shapes, such as {first} and {second}",
            "return samples of one shape",
        )
