"""The monitor: two lines in a training script.

watch = gandiag.Monitor(real="photos/", every=2_000, sink=wandb.log, latent_dim=128)
for step, batch in enumerate(data):
    train(batch)
    watch(step, generator)
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TextIO

import torch
from torch import nn

from gandiag.config import AuditConfig, resolve_config
from gandiag.errors import ConfigError
from gandiag.monitor.distributed import broadcast_decision, is_distributed, is_rank_zero
from gandiag.monitor.loggers import make_log_function
from gandiag.monitor.real_statistics import RealStatistics
from gandiag.monitor.snapshot_sampler import SnapshotSampler
from gandiag.monitor.status import Evaluation, evaluation_from_dict, infer_state
from gandiag.monitor.time_budget import TimeBudget


class Monitor:
    """Watches a generator while it trains, warns before the collapse is complete, and leaves the training bit-identical.

    real       what the generator learns: path, array, tensor, Dataset or DataLoader (its dataset is read, once)
    every      steps between looks, if the budget allows them; step 0 is never looked at
    sink       f(dict, step=int), a SummaryWriter, a Lightning logger, an Accelerate tracker, or a list of them
    budget     seconds of the monitor per second of training, at most; the first look is always taken, and paid off. None: no limit
    n          samples of a look, where time does not limit them (the budget starts with 256)
    on_alarm   called with the Look when the state turns to "losing" or "collapsed"; what it raises ends the training
    stop       after `patience` collapsed looks in a row `.stopped` is True, in every process
    status     True: one line a look on stderr; a text stream; or False
    settings   fields of AuditConfig: latent_dim, classes, condition, scale, prior, features, bn, limit, seed …

    At most steps a call costs a comparison. A glance (samples, their features, which modes starve) costs a copy of the module and
    n samples; a full look adds the collapse score, O(n² D). Samples are drawn from a copy in eval mode, so that weights, buffers,
    flags, gradients and random numbers of the training are untouched; modules inside `torch.compile` and DDP are found.
    With several processes all call it; the first one looks. With `stop`, all wait for its decision every `every` steps.
    Reads low where the running statistics of batch norm lag behind the weights (bn="batch" uses the batch's own).
    A look that fails warns once and training goes on; what cannot work at all is said at the first call.
    """

    def __init__(
        self,
        *,
        real: Any,
        every: int = 1_000,
        sink: Any = None,
        budget: float | None = 0.02,
        n: int = 1_024,
        on_alarm: Callable[[Evaluation], Any] | None = None,
        stop: bool = False,
        patience: int = 2,
        status: bool | TextIO = True,
        **settings: Any,
    ) -> None:
        _demand(every >= 1, f"every is {every}", "give at least 1 step")
        _demand(
            budget is None or 0 < budget <= 1,
            f"budget is {budget}",
            "give a share of the training time, such as 0.02, or None",
        )
        _demand(n >= 100, f"n is {n}", "give at least 100 samples")
        _demand(patience >= 1, f"patience is {patience}", "give at least 1 look")
        self.config: AuditConfig = resolve_config(settings).config
        self.every, self.patience, self.stop = every, patience, stop
        self.evaluations: list[Evaluation] = []
        self.stopped = False
        self.time_budget = TimeBudget(math.inf if budget is None else budget, n)
        self._real, self._sink, self._on_alarm = real, make_log_function(sink), on_alarm
        self._status: TextIO | None = sys.stderr if status is True else status or None
        self._probe: SnapshotSampler | None = None
        self._reference: RealStatistics | None = None
        self._last = 0
        self._warned: set[str] = set()

    def __call__(self, step: int, generator: nn.Module) -> Evaluation | None:
        """Tell the monitor where the training is. The Look, at steps where one was taken in this process; else None."""
        bucket = step // self.every
        due, self._last = bucket > self._last, bucket  # lower where a run is taken up again at an earlier step
        look = self._turn(step, generator, due) if (due or self._probe is None) and is_rank_zero() else None
        if due and self.stop and is_distributed():
            self.stopped = broadcast_decision(self.stopped, generator)
        return look

    @property
    def overhead(self) -> float:
        """Seconds spent in here per second of training so far; in other processes than the first, 0."""
        return self.time_budget.overhead

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the looks so far, as numbers and strings that `torch.load(weights_only=True)` takes."""
        return {"looks": [asdict(look) for look in self.evaluations], "last": self._last, "stopped": self.stopped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.evaluations = [evaluation_from_dict(look) for look in state["looks"]]
        self._last, self.stopped = int(state["last"]), bool(state["stopped"])

    def _turn(self, step: int, generator: nn.Module, due: bool) -> Evaluation | None:
        self.time_budget.start()
        device = next(generator.parameters(), torch.empty(0)).device.type
        with self.time_budget.measure(), torch.autocast("cpu", enabled=False), torch.autocast(device, enabled=False):
            if self._probe is None:
                self._probe = SnapshotSampler(generator, self.config)
                self._reference = RealStatistics(
                    self._real, self._probe.output, self.config, self.time_budget.max_samples
                )
                self.time_budget.max_samples = self._reference.max_samples
            look = self._look_or_warn(step, generator) if due else None
            if look is not None:
                self._tell(look)
            return look

    def _look_or_warn(self, step: int, generator: nn.Module) -> Evaluation | None:
        try:
            return self._look(step, generator)
        except Exception as problem:
            self._warn("the look failed", problem)
            return None

    def _look(self, step: int, generator: nn.Module) -> Evaluation | None:
        n = self.time_budget.allowed_samples("glance", self.time_budget.max_samples)
        if not n or self._probe is None or self._reference is None:
            return None
        start = time.perf_counter()
        fake = self._reference.embed(self._probe.sample(generator, n))
        glance = self._reference.quick_check(fake)
        drawn = time.perf_counter()
        self.time_budget.record_cost("glance", n, drawn - start)
        scored = self.time_budget.allowed_samples("full", n)
        score = self._reference.score({name: rows[:scored] for name, rows in fake.items()}) if scored else None
        done = time.perf_counter()
        if score is not None:
            self.time_budget.record_cost("full", scored, done - drawn)
        return Evaluation(
            step, n, infer_state(glance, score, self.evaluations, self.config.limit), glance, score, done - start
        )

    def _tell(self, look: Evaluation) -> None:
        turned = look.is_alarm and (not self.evaluations or self.evaluations[-1].state != look.state)
        self.evaluations.append(look)
        if self.stop:
            last = self.evaluations[-self.patience :]
            self.stopped = len(last) == self.patience and all(entry.state == "collapsed" for entry in last)
        self._attempt("the sink failed", lambda: self._sink(look.scalars(), step=look.step))
        if self._status is not None:
            self._status.write(f"{look}, monitor {100 * self.overhead:.1f} % of the time\n")
            self._status.flush()
        if turned and self._on_alarm is not None:
            self._on_alarm(look)

    def _attempt(self, what: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as problem:
            self._warn(what, problem)

    def _warn(self, what: str, problem: Exception) -> None:
        """Once for each thing that can fail: a training log is no place for the same line a thousand times."""
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(
                f"gandiag.Monitor: {what}, and training goes on: {type(problem).__name__}: {problem}",
                RuntimeWarning,
                stacklevel=2,
            )


def _demand(holds: bool, what: str, hint: str) -> None:
    if not holds:
        raise ConfigError(f"Monitor: {what}", hint)
