"""Where a monitor's numbers go: any f(dict, step=int), and what the usual trackers look like.

wandb.log · accelerator.log · mlflow.log_metrics · trackio.log          called as they are
a TensorBoard SummaryWriter                                              add_scalar, one number at a time
a Lightning logger                                                       log_metrics(dict, step)
an Accelerate tracker, a W&B run                                         log(dict, step=step)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gandiag.errors import ConfigError

LogFunction = Callable[..., Any]


def make_log_function(target: Any) -> LogFunction:
    """A function f(dict, step=int) from a function, a writer, a logger, a tracker, or several of them. ConfigError for anything else."""
    if target is None:
        return lambda values, step: None
    if isinstance(target, (list, tuple)):
        return _every([make_log_function(entry) for entry in target])
    if hasattr(target, "add_scalar"):
        return lambda values, step: _scalars(target, values, step)
    for name in ("log_metrics", "log"):
        if callable(getattr(target, name, None)):
            method = getattr(target, name)
            return lambda values, step: method(values, step=step)
    if callable(target):
        return lambda values, step: target(values, step=step)
    raise ConfigError(
        f"the sink is a {type(target).__name__}",
        "give a function f(dict, step=int), a SummaryWriter, a logger or a tracker",
    )


def _every(sinks: Iterable[LogFunction]) -> LogFunction:
    def log(values: Mapping[str, float], step: int) -> None:
        for sink in sinks:
            sink(values, step=step)

    return log


def _scalars(writer: Any, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, step)
