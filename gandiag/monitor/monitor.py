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
from gandiag.monitor.state_rules import infer_state, is_confirmed
from gandiag.monitor.status import Evaluation, evaluation_from_dict, evaluation_to_dict
from gandiag.monitor.time_budget import MIN_SAMPLES, TimeBudget

MIN_PATIENCE = 2  # one evaluation can be chance


class Monitor:
    """Monitors a generator during training and warns before collapse is complete. Training stays bit-identical.

    real       what the generator learns: path, array, tensor, Dataset or DataLoader (its dataset is read once)
    every      steps between evaluations, if the budget allows them; step 0 is never evaluated
    sink       f(dict, step=int), a SummaryWriter, a Lightning logger, an Accelerate tracker, or a list of them
    after      no collapse is reported before this step. Without it too, none is reported before the samples have passed
               for real once, or variety that was clearly gained is lost again
    budget     seconds of monitoring per second of training, at most; an evaluation that does not fit is skipped, and
               that is said once. None: no limit. Setting up, at the first call, is not part of it: its seconds are
               announced
    n          samples of an evaluation, if time does not limit them
    on_alarm   called with the Evaluation when the state turns to "losing" or "collapsed"; an exception that it raises
               ends the training
    stop       set `.stopped` to True, in every process, after `patience` (at least 2) evaluations in a row whose
               score shows collapse
    status     True: one line for the set-up and one per evaluation on stderr; or a text stream; or False
    settings   fields of AuditConfig: latent_dim, classes, condition, scale, prior, features, bn, limit, seed …

    At most steps a call costs one comparison. A quick check (samples, their features, underrepresented modes) costs a
    copy of the module and n samples; a full evaluation adds the score and verdict of an audit, O(n² D). Samples come
    from a copy in eval mode: weights, buffers, flags, gradients and random states of the training are untouched. A
    module that cannot be copied is sampled in place and put back, all but what lies outside of it (hooks that count).
    Modules inside `torch.compile` and DDP are found. With several processes, call it in all of them; rank 0 evaluates,
    and with `stop` the others wait for its decision every `every` steps.
    Reads low while the running statistics of BatchNorm lag behind the weights (bn="batch" uses the batch's own).
    An evaluation that fails warns once, and training continues; settings that can never work raise at the first call.
    """

    def __init__(
        self,
        *,
        real: Any,
        every: int = 1_000,
        sink: Any = None,
        after: int = 0,
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
        _require(after >= 0, f"after is {after}", "give a step, or 0")
        _require(
            patience >= MIN_PATIENCE, f"patience is {patience}", f"give at least {MIN_PATIENCE}: one look can be chance"
        )
        with naming_keywords():
            self.config: AuditConfig = resolve_config(settings).config
        self.every, self.after, self.patience, self.stop = every, after, patience, stop
        self.evaluations: list[Evaluation] = []
        self.stopped = False
        self.time_budget = TimeBudget(math.inf if budget is None else budget, n)
        self._real, self._sink, self._on_alarm = real, make_log_function(sink), on_alarm
        self._status: TextIO | None = sys.stderr if status is True else status or None
        self._sampler: SnapshotSampler | None = None
        self._statistics: RealStatistics | None = None
        self._last_bucket = 0
        self._said: set[str] = set()

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
        with torch.autocast("cpu", enabled=False), torch.autocast(device, enabled=False):
            if self._sampler is None:
                with self.time_budget.measure_setup():
                    statistics = self._prepare(generator)
                self._say(
                    f"gandiag monitor: set-up took {self.time_budget.setup_seconds:.1f} s "
                    f"({statistics.describe()}), which the budget does not count"
                )
            with self.time_budget.measure():
                evaluation = self._evaluate_or_warn(step, generator) if due else None
                if evaluation is not None:
                    self._report(evaluation)
                return evaluation

    def _prepare(self, generator: nn.Module) -> RealStatistics:
        """Find out how the generator is called, read the real data, and measure what an evaluation costs.

        GandiagError for what can never work.
        """
        try:
            sampler = SnapshotSampler(generator, self.config)
            statistics = RealStatistics(self._real, sampler.output, self.config, self.time_budget.max_samples)
            self._rehearse(generator, sampler, statistics)
        except GandiagError:
            raise
        except Exception as error:
            raise LoadError(
                f"Monitor: {type(generator).__name__} cannot be sampled: {type(error).__name__}: {error}",
                "pass a module that is called as generator(z), such as your EMA copy",
            ) from error
        self._sampler, self._statistics = sampler, statistics
        self.time_budget.max_samples = statistics.max_samples
        return statistics

    def _rehearse(self, generator: nn.Module, sampler: SnapshotSampler, statistics: RealStatistics) -> None:
        """Learn the cost of both kinds of evaluation, where a budget asks for it."""
        if self.time_budget.fraction == math.inf:
            return
        n = min(MIN_SAMPLES, statistics.max_samples)
        start = time.perf_counter()
        statistics.quick_check(statistics.embed(sampler.sample(generator, n)))
        self.time_budget.learn_cost("quick", n, time.perf_counter() - start)
        self.time_budget.learn_cost("full", n, statistics.time_judgment(n))

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
        if not n:
            self._say_once_that_looks_are_skipped(step)
        if not n or self._sampler is None or statistics is None:
            return None
        start = time.perf_counter()
        fake = statistics.embed(self._sampler.sample(generator, n))
        check = statistics.quick_check(fake)
        checked = time.perf_counter()
        budget.record_cost("quick", n, checked - start)
        n_judged = budget.allowed_samples("full", n)
        judgment = statistics.judge({name: rows[:n_judged] for name, rows in fake.items()}) if n_judged else None
        end = time.perf_counter()
        if judgment is not None:
            budget.record_cost("full", n_judged, end - checked)
        state = infer_state(check, judgment, self.evaluations, is_early=step < self.after)
        return Evaluation(step, n, state, check, judgment, end - start)

    def _report(self, evaluation: Evaluation) -> None:
        """Record an evaluation, then tell sink, status stream and alarm."""
        is_new_state = not self.evaluations or self.evaluations[-1].state != evaluation.state
        self.evaluations.append(evaluation)
        if self.stop:
            self.stopped = is_confirmed(self.evaluations, self.patience)
        try:
            self._sink(evaluation.scalars(), step=evaluation.step)
        except Exception as error:
            self._warn_once("the sink failed", error)
        self._say(f"{evaluation}, monitor {100 * self.overhead:.1f} % of the time")
        if evaluation.is_alarm and is_new_state and self._on_alarm is not None:
            self._on_alarm(evaluation)

    def _say(self, line: str) -> None:
        """Write one line to the status stream."""
        if self._status is None:
            return
        try:
            self._status.write(line + "\n")
            self._status.flush()
        except Exception as error:  # a closed stream or a full disk, which must not end the training
            self._status = None
            self._warn_once("the status stream failed", error)

    def _say_once_that_looks_are_skipped(self, step: int) -> None:
        if "skipped" in self._said:
            return
        self._said.add("skipped")
        budget = self.time_budget
        cost = budget.estimate_cost("quick", min(MIN_SAMPLES, budget.max_samples))
        self._say(
            f"gandiag step {step:,}  skipped  a look takes about {cost:.2g} s, which does not fit into "
            f"{100 * budget.fraction:g} % of {budget.training_seconds:.0f} s of training; looks are made when they fit"
        )

    def _warn_once(self, problem: str, error: Exception) -> None:
        """Warn once for each kind of failure, so that it does not flood the training log."""
        if problem not in self._said:
            self._said.add(problem)
            warnings.warn(
                f"gandiag.Monitor: {problem}, and training continues: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


def _require(condition: bool, problem: str, hint: str) -> None:
    if not condition:
        raise ConfigError(f"Monitor: {problem}", hint)
