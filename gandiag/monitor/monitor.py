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
from typing import Any, TextIO

import torch
from torch import nn

from gandiag.config import AuditConfig, resolve_config
from gandiag.errors import ConfigError, GandiagError, LoadError
from gandiag.keywords.errors import naming_keywords
from gandiag.monitor.distributed import broadcast_decision, is_distributed, is_rank_zero
from gandiag.monitor.loggers import make_log_function
from gandiag.monitor.real_statistics import RealStatistics
from gandiag.monitor.snapshot_sampler import SnapshotSampler
from gandiag.monitor.status import Evaluation, evaluation_from_dict, evaluation_to_dict, infer_state
from gandiag.monitor.time_budget import TimeBudget


class Monitor:
    """Monitors a generator during training and warns before collapse is complete. Training stays bit-identical.

    real       what the generator learns: path, array, tensor, Dataset or DataLoader (its dataset is read once)
    every      steps between evaluations, if the budget allows them; step 0 is never evaluated
    sink       f(dict, step=int), a SummaryWriter, a Lightning logger, an Accelerate tracker, or a list of them
    budget     seconds of monitoring per second of training, at most; the first evaluation always runs and is paid off.
               None: no limit
    n          samples of an evaluation, if time does not limit them (the budget starts with 256)
    on_alarm   called with the Evaluation when the state turns to "losing" or "collapsed"; an exception that it raises
               ends the training
    stop       set `.stopped` to True, in every process, after `patience` collapsed evaluations in a row
    status     True: one line per evaluation on stderr; or a text stream; or False
    settings   fields of AuditConfig: latent_dim, classes, condition, scale, prior, features, bn, limit, seed …

    At most steps a call costs one comparison. A quick check (samples, their features, underrepresented modes) costs a
    copy of the module and n samples; a full evaluation adds the collapse score, O(n² D). Samples come from a copy in
    eval mode: weights, buffers, flags, gradients and random states of the training are untouched. A module that cannot
    be copied is sampled in place and put back, all but what lies outside of it (hooks that count). Modules inside
    `torch.compile` and DDP are found. With several processes, call it in all of them; rank 0 evaluates, and with `stop`
    the others wait for its decision every `every` steps.
    Reads low while the running statistics of BatchNorm lag behind the weights (bn="batch" uses the batch's own).
    An evaluation that fails warns once, and training continues; settings that can never work raise at the first call.
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
        _require(every >= 1, f"every is {every}", "give at least 1 step")
        _require(
            budget is None or 0 < budget <= 1,
            f"budget is {budget}",
            "give a fraction of the training time, such as 0.02, or None",
        )
        _require(n >= 100, f"n is {n}", "give at least 100 samples")
        _require(patience >= 1, f"patience is {patience}", "give at least 1 evaluation")
        with naming_keywords():
            self.config: AuditConfig = resolve_config(settings).config
        self.every, self.patience, self.stop = every, patience, stop
        self.evaluations: list[Evaluation] = []
        self.stopped = False
        self.time_budget = TimeBudget(math.inf if budget is None else budget, n)
        self._real, self._sink, self._on_alarm = real, make_log_function(sink), on_alarm
        self._status: TextIO | None = sys.stderr if status is True else status or None
        self._sampler: SnapshotSampler | None = None
        self._statistics: RealStatistics | None = None
        self._last_bucket = 0
        self._warned: set[str] = set()

    def __call__(self, step: int, generator: nn.Module) -> Evaluation | None:
        """Report the current step. Returns the Evaluation if one was made in this process, else None."""
        bucket = step // self.every
        due, self._last_bucket = bucket > self._last_bucket, bucket  # lower if a run resumes at an earlier step
        evaluation = None
        if (due or self._sampler is None) and is_rank_zero():
            evaluation = self._process_step(step, generator, due)
        if due and self.stop and is_distributed():
            self.stopped = broadcast_decision(self.stopped, generator)
        return evaluation

    @property
    def overhead(self) -> float:
        """Seconds of monitoring per second of training so far; 0 in processes other than rank 0."""
        return self.time_budget.overhead

    def state_dict(self) -> dict[str, Any]:
        """The evaluations so far, for a resumed run: plain data that `torch.load(weights_only=True)` accepts."""
        evaluations = [evaluation_to_dict(entry) for entry in self.evaluations]
        return {"looks": evaluations, "last": self._last_bucket, "stopped": self.stopped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.evaluations = [evaluation_from_dict(entry) for entry in state["looks"]]
        self._last_bucket, self.stopped = int(state["last"]), bool(state["stopped"])

    def _process_step(self, step: int, generator: nn.Module, due: bool) -> Evaluation | None:
        """Prepare at the first call; evaluate and report if an evaluation is due."""
        self.time_budget.start()
        device = next(generator.parameters(), torch.empty(0)).device.type
        with self.time_budget.measure(), torch.autocast("cpu", enabled=False), torch.autocast(device, enabled=False):
            if self._sampler is None:
                self._prepare(generator)
            evaluation = self._evaluate_or_warn(step, generator) if due else None
            if evaluation is not None:
                self._report(evaluation)
            return evaluation

    def _prepare(self, generator: nn.Module) -> None:
        """Find out how the generator is called, and read the real data. GandiagError for what can never work."""
        try:
            sampler = SnapshotSampler(generator, self.config)
            self._statistics = RealStatistics(self._real, sampler.output, self.config, self.time_budget.max_samples)
        except GandiagError:
            raise
        except Exception as error:
            raise LoadError(
                f"Monitor: {type(generator).__name__} cannot be sampled: {type(error).__name__}: {error}",
                "pass a module that is called as generator(z), such as your EMA copy",
            ) from error
        self._sampler = sampler
        self.time_budget.max_samples = self._statistics.max_samples

    def _evaluate_or_warn(self, step: int, generator: nn.Module) -> Evaluation | None:
        try:
            return self._evaluate(step, generator)
        except Exception as error:
            self._warn_once("the evaluation failed", error)
            return None

    def _evaluate(self, step: int, generator: nn.Module) -> Evaluation | None:
        """Quick check, and the score if the budget allows it; None if it allows neither."""
        budget, statistics = self.time_budget, self._statistics
        n = budget.allowed_samples("quick", budget.max_samples)
        if not n or self._sampler is None or statistics is None:
            return None
        start = time.perf_counter()
        fake = statistics.embed(self._sampler.sample(generator, n))
        check = statistics.quick_check(fake)
        checked = time.perf_counter()
        budget.record_cost("quick", n, checked - start)
        n_scored = budget.allowed_samples("full", n)
        score = statistics.score({name: rows[:n_scored] for name, rows in fake.items()}) if n_scored else None
        end = time.perf_counter()
        if score is not None:
            budget.record_cost("full", n_scored, end - checked)
        state = infer_state(check, score, self.evaluations, self.config.limit)
        return Evaluation(step, n, state, check, score, end - start)

    def _report(self, evaluation: Evaluation) -> None:
        """Record an evaluation, then tell sink, status stream and alarm."""
        is_new_state = not self.evaluations or self.evaluations[-1].state != evaluation.state
        self.evaluations.append(evaluation)
        if self.stop:
            recent = self.evaluations[-self.patience :]
            self.stopped = len(recent) == self.patience and all(entry.state == "collapsed" for entry in recent)
        try:
            self._sink(evaluation.scalars(), step=evaluation.step)
        except Exception as error:
            self._warn_once("the sink failed", error)
        if self._status is not None:
            try:
                self._status.write(f"{evaluation}, monitor {100 * self.overhead:.1f} % of the time\n")
                self._status.flush()
            except Exception as error:  # a closed stream or a full disk, which must not end the training
                self._status = None
                self._warn_once("the status stream failed", error)
        if evaluation.is_alarm and is_new_state and self._on_alarm is not None:
            self._on_alarm(evaluation)

    def _warn_once(self, problem: str, error: Exception) -> None:
        """Warn once for each kind of failure, so that it does not flood the training log."""
        if problem not in self._warned:
            self._warned.add(problem)
            warnings.warn(
                f"gandiag.Monitor: {problem}, and training continues: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


def _require(condition: bool, problem: str, hint: str) -> None:
    if not condition:
        raise ConfigError(f"Monitor: {problem}", hint)
