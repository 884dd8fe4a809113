"""The monitor as an Ignite handler.

watch = gandiag.Monitor(real="photos/", latent_dim=128, sink=SummaryWriter())
attach(trainer, watch, generator)
"""

from __future__ import annotations

from typing import Any

from torch import nn

from gandiag.errors import ConfigError
from gandiag.monitor.monitor import Monitor

try:
    from ignite.engine import Engine, Events
except ImportError:
    raise ConfigError("the Ignite handler needs Ignite, which is not installed", "pip install pytorch-ignite") from None


def attach(trainer: Engine, monitor: Monitor, generator: nn.Module) -> None:
    """Call the monitor after every iteration of `trainer`; the run ends when `monitor.stopped` is True."""

    def evaluate(engine: Any) -> None:
        monitor(engine.state.iteration, generator)
        if monitor.stopped:
            engine.terminate()

    trainer.add_event_handler(Events.ITERATION_COMPLETED, evaluate)
