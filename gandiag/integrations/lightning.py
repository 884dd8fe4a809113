"""The monitor as a Lightning callback.

watch = gandiag.Monitor(real="photos/", latent_dim=128)
Trainer(callbacks=[GandiagCallback(watch, generator="netG")])
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from gandiag.errors import ConfigError
from gandiag.monitor.monitor import Monitor

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback  # type: ignore[no-redef, unused-ignore]
    except ImportError:
        raise ConfigError(
            "the Lightning callback needs Lightning, which is not installed", "pip install lightning"
        ) from None

if TYPE_CHECKING:
    from torch import nn


class GandiagCallback(Callback):  # type: ignore[misc]
    """Calls the monitor after every training batch. The fit ends when `monitor.stopped` is True.

    `generator`: the attribute of the LightningModule that holds the generator ("netG", "model.generator"). Steps are
    those of `trainer.global_step`, which counts the steps of every optimizer. Numbers go to the trainer's loggers and
    to the monitor's own sink; the evaluations are saved in checkpoints.
    """

    def __init__(self, monitor: Monitor, generator: str = "generator") -> None:
        self.monitor = monitor
        self.generator = generator

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Call the monitor, log its numbers and stop the trainer if it says so."""
        evaluation = self.monitor(trainer.global_step, self._get_generator(pl_module))
        if evaluation is not None:
            for logger in trainer.loggers:
                logger.log_metrics(evaluation.scalars(), step=evaluation.step)
        if self.monitor.stopped:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """The state of the monitor, for the checkpoint."""
        return self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.monitor.load_state_dict(state_dict)

    def _get_generator(self, module: Any) -> nn.Module:
        try:
            generator: nn.Module = attrgetter(self.generator)(module)
        except AttributeError:
            children = ", ".join(name for name, _ in module.named_children()) or "none"
            raise ConfigError(
                f"{type(module).__name__} has no {self.generator!r}",
                f"name the generator; the children of the module are: {children}",
            ) from None
        return generator
