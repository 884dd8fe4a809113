"""Makes a function f(dict, step=int) of whatever logs a monitor's numbers.

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
    """f(dict, step=int) for a function, writer, logger or tracker, or a list of them; ConfigError for anything else."""
    if target is None:
        return lambda values, step: None
    if isinstance(target, (list, tuple)):
        return _make_fan_out([make_log_function(entry) for entry in target])
    if hasattr(target, "add_scalar"):
        return lambda values, step: _write_scalars(target, values, step)
    for name in ("log_metrics", "log"):
        method = getattr(target, name, None)
        if callable(method):
            return _pass_step_by_name(method)
    if callable(target):
        return _pass_step_by_name(target)
    raise ConfigError(
        f"the sink is a {type(target).__name__}",
        "give a function f(dict, step=int), a SummaryWriter, a logger or a tracker",
    )


def _pass_step_by_name(function: Callable[..., Any]) -> LogFunction:
    return lambda values, step: function(values, step=step)


def _make_fan_out(functions: Iterable[LogFunction]) -> LogFunction:
    def log(values: Mapping[str, float], step: int) -> None:
        for function in functions:
            function(values, step=step)

    return log


def _write_scalars(writer: Any, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, step)
