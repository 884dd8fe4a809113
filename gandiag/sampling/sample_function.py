"""Samples from a function fn(n, seed) -> n samples: generators of any framework, remote ones, whole pipelines.

    def fn(n, seed):
        z = jax.random.normal(jax.random.key(seed), (n, 128))
        return np.asarray(model.apply(params, z))

It is called several times, each time with another seed, so that no call has to hold all samples.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gandiag.errors import ConfigError, GandiagError, OutputError
from gandiag.sampling.condition_function import is_condition_function, join_parts
from gandiag.sampling.sources import SampleSet, open_samples

SampleFunction = Callable[[int, int], Any]
DEFAULT_BLOCK = 64  # samples of one call


def is_sample_function(x: Any) -> bool:
    """Whether x is called for samples: a function or callable object that is no network, Sampler or dataset."""
    return is_condition_function(x)


def name_function(function: SampleFunction) -> str:
    """ "pkg.mod:fn", for the record."""
    inner = function.func if isinstance(function, functools.partial) else function
    name = getattr(inner, "__qualname__", None) or type(inner).__name__
    module = getattr(inner, "__module__", None)
    return f"{module}:{name}" if module and module != "__main__" else str(name)


def draw_samples(
    function: SampleFunction,
    n: int,
    *,
    seed: int = 0,
    block: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSet:
    """`n` samples, at most `block` (64) a call, with the seeds `seed`, `seed` + 1, …; all are kept in memory.

    Every call asks for the same number, so that compiled functions compile once; what the last returns too many is cut.
    ConfigError for a function that does not take two arguments, OutputError where it fails, returns another number of
    samples, or the same samples for different seeds.
    """
    _require_two_arguments(function)
    n_calls = -(-n // (block or DEFAULT_BLOCK))
    size = -(-n // n_calls)
    parts: list[Any] = []
    for number in range(n_calls):
        if progress is not None:
            progress(number * size, n)
        parts.append(_call_function(function, size, seed + number)[: n - number * size])
        if number == 1:
            _require_other_samples(function, parts[0], parts[1], seed)
    return open_samples(join_parts(parts))


def _require_two_arguments(function: SampleFunction) -> None:
    try:
        inspect.signature(function).bind(1, 0)
    except TypeError:
        raise ConfigError(
            f"{name_function(function)} cannot be called as fn(n, seed)",
            "write a function of two arguments that returns n samples; with groups=…, of (condition, seeds)",
        ) from None
    except ValueError:  # a builtin without a signature: the call will tell
        return


def _call_function(function: SampleFunction, n: int, seed: int) -> list[Any] | Tensor:
    name = name_function(function)
    try:
        with torch.no_grad():
            samples = function(n, seed)
    except GandiagError:
        raise
    except (Exception, SystemExit) as problem:  # its exit code would pass for a verdict
        raise OutputError(
            f"{name}({n}, {seed}) failed: {type(problem).__name__}: {problem}",
            "it is called as fn(n, seed) and returns n samples",
        ) from problem
    samples = getattr(samples, "images", samples)  # of a pipeline's output
    if not isinstance(samples, (list, tuple, Tensor)):
        samples = _to_list(samples, name)
    if len(samples) != n:
        raise OutputError(f"{name}({n}, {seed}) returned {len(samples)} samples", f"return {n}")
    return samples.detach().cpu() if isinstance(samples, Tensor) else list(samples)


def _to_list(samples: Any, name: str) -> list[Any]:
    """The rows of an array of any framework (JAX, TensorFlow, MLX …)."""
    array = np.asarray(samples) if hasattr(samples, "__array__") else None
    if array is None or array.ndim < 1 or array.dtype == object:
        raise OutputError(
            f"{name} returned a {type(samples).__name__}", "return a tensor, an array or a list of images"
        )
    return list(array)


def _require_other_samples(function: SampleFunction, first: Sequence[Any], second: Sequence[Any], seed: int) -> None:
    """OutputError where two seeds give the same samples, unless every sample is the same: that is collapse."""
    first_rows, second_rows = ([_to_bytes(row) for row in part] for part in (first, second))
    if first_rows[: len(second_rows)] == second_rows and len(set(first_rows)) > 1:
        raise OutputError(
            f"{name_function(function)} returned the same samples for the seeds {seed} and {seed + 1}",
            "seed its random numbers with the second argument",
        )


def _to_bytes(sample: Any) -> bytes:
    if isinstance(sample, Tensor):
        sample = sample.float().numpy()
    return np.asarray(sample).tobytes()
