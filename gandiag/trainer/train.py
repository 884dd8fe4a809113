"""Runs the training loop of one configuration, with log, mode coverage and snapshots, resumable at any step."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gandiag.errors import ConfigError, OutputError
from gandiag.trainer.export import serialize_generator
from gandiag.trainer.gan_trainer import GANTrainer, make_trainer
from gandiag.trainer.mode_coverage import ModeCoverage, measure_coverage
from gandiag.trainer.run_config import RunConfig
from gandiag.trainer.run_folder import LOCK_FILE, RunFolder, lock_folder
from gandiag.trainer.toy_data import DATASETS

LOG_FILE, LOG_COLUMNS = "log.csv", ("step", "loss_d", "loss_g")
COVERAGE_FILE = "coverage.csv"
NUM_COVERAGE_SAMPLES = 2_500  # as in the papers
EVALUATION_SEED = 7_919  # seed of the latents for coverage, the same at every step
LOG_INTERVAL = 5  # steps
NUM_EVALUATIONS = 100  # coverage evaluations per run
SAVE_INTERVAL_SECONDS = 10.0  # at most this much work is lost when a run is interrupted


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """Progress of a run. `losses` are (D's, G's) logged since the last save, oldest first."""

    step: int
    total_steps: int
    losses: tuple[tuple[float, float], ...]
    coverage: ModeCoverage | None


StatusCallback = Callable[[TrainingStatus], None]
TrainerFactory = Callable[[RunConfig], GANTrainer]


def make_default_trainer(config: RunConfig) -> GANTrainer:
    """Return a trainer for the configuration's dataset and recipe."""
    return make_trainer(
        config.recipe,
        DATASETS.get(config.dataset)(),
        config.remedy,
        seed=config.seed,
        unroll_steps=config.unroll_steps,
        z_scale=config.z_scale,
    )


def train(
    config: RunConfig,
    out: Path,
    on_status: StatusCallback = lambda status: None,
    trainer_factory: TrainerFactory | None = None,
) -> RunFolder:
    """Run a configuration in the folder `out`, or finish the run there; afterwards it holds generator.safetensors.

    The same configuration gives the same files bit for bit, however often the run is interrupted. `trainer_factory`
    replaces `make_default_trainer`. Raises OutputError if training diverges (the last good snapshot is kept),
    ConfigError if the folder holds another run, and RecordError if the disk is full.
    """
    trainer = (trainer_factory or make_default_trainer)(config)
    run = _Run(trainer, config, RunFolder(out))
    run.folder.create()
    with lock_folder(out, LOCK_FILE) as is_locked:
        if not is_locked:
            raise ConfigError(f"another run is writing to {out}", "wait for it, or choose another --out")
        run.resume()
        while trainer.steps < config.steps:
            run.advance(on_status)
        run.folder.write(run.folder.generator_file.name, run.serialize())
    return run.folder


@dataclass(slots=True)
class _Run:
    """A run in progress: its trainer and folder, and the rows that are not on disk yet."""

    trainer: GANTrainer
    config: RunConfig
    folder: RunFolder
    log: list[tuple[int, float, float]] = field(default_factory=list)
    coverage: list[tuple[int, ModeCoverage]] = field(default_factory=list)
    last_save: float = field(default_factory=time.monotonic)

    def resume(self) -> None:
        """Restore the state in the folder, or evaluate the start of a new run."""
        self.folder.open(self.config.to_dict())
        state = self.folder.load_state()
        if state is not None:
            self.trainer.load_state_dict(state)
        if self.trainer.steps > self.config.steps:
            raise ConfigError(
                f"{self.folder.path} holds a run of {self.trainer.steps:,} steps, more than --steps "
                f"{self.config.steps:,}",
                "raise --steps, or choose another --out",
            )
        for table in (LOG_FILE, COVERAGE_FILE):
            self.folder.truncate_table(table, self.trainer.steps if state is not None else -1)
        if state is None:
            self.evaluate()

    def advance(self, on_status: StatusCallback) -> None:
        """Take one step, and log, evaluate and save when due."""
        step_losses = self.trainer.step()
        step = self.trainer.steps
        if not all(map(math.isfinite, step_losses)):
            raise self._divergence_error()
        if step % LOG_INTERVAL == 0 or step == self.config.steps:
            self.log.append((step, *step_losses))
        is_evaluation = step % max(1, self.config.steps // NUM_EVALUATIONS) == 0 or self._is_snapshot()
        if is_evaluation:
            losses = tuple(entry[1:] for entry in self.log)
            self.evaluate()
            coverage = self.coverage[-1][1] if self.coverage else None
            on_status(TrainingStatus(step, self.config.steps, losses, coverage))
        if self._is_snapshot() or (is_evaluation and time.monotonic() - self.last_save > SAVE_INTERVAL_SECONDS):
            self.save()

    def evaluate(self) -> None:
        """Measure mode coverage, and write a snapshot if one is due. Does not affect the training state."""
        trainer = self.trainer
        if not bool(torch.isfinite(trainer.generator.state.theta).all()):
            raise self._divergence_error()
        if trainer.setup.data.assign_modes is not None:
            samples = trainer.generate_samples(NUM_COVERAGE_SAMPLES, EVALUATION_SEED)
            coverage = measure_coverage(trainer.setup.data, samples)
            assert coverage is not None
            self.coverage.append((trainer.steps, coverage))
        if self._is_snapshot():
            self.folder.save_snapshot(trainer.steps, self.serialize())

    def save(self) -> None:
        """Write the tables, then the state: rows that the state does not cover are dropped when the run is resumed."""
        self.folder.append_rows(LOG_FILE, LOG_COLUMNS, self.log)
        columns = ["step", *(column.name for column in dataclasses.fields(ModeCoverage))]
        rows: list[list[Any]] = [[step, *dataclasses.astuple(coverage)] for step, coverage in self.coverage]
        if rows:
            self.folder.append_rows(COVERAGE_FILE, columns, rows)
        self.folder.save_state(self.trainer.state_dict())
        self.log, self.coverage, self.last_save = [], [], time.monotonic()

    def serialize(self) -> bytes:
        """Return the current generator as a file."""
        trainer = self.trainer
        return serialize_generator(trainer.generator.net, self.config, trainer.setup.data, trainer.steps)

    def _is_snapshot(self) -> bool:
        step = self.trainer.steps
        return step % self.config.snapshot_interval == 0 or step == self.config.steps

    def _divergence_error(self) -> OutputError:
        config, step = self.config, self.trainer.steps
        snapshots = [path for at, path in self.folder.list_snapshots().items() if at < step]
        last_good = f"; the last good snapshot is {snapshots[-1]}" if snapshots else ""
        return OutputError(
            f"training diverged at step {step:,}: a loss or a weight is NaN or infinite{last_good}",
            "lower the learning rates, try another seed, or use --remedy r1 "
            f"(this run: recipe {config.recipe.name}, remedy {config.remedy.name}, seed {config.seed})",
        )
