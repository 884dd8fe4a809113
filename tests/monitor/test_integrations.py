"""Sinks and callbacks, each with the real library; tests of libraries that are not installed are skipped."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from test_monitor import REAL, Ring, monitor
from torch import nn

from gandiag.errors import ConfigError
from gandiag.monitor.loggers import make_log_function

pytestmark = pytest.mark.filterwarnings("default")  # third-party libraries warn


def evaluate(sink: Any) -> None:
    """Evaluate a healthy generator and at step 4 a collapsed one; a warning of gandiag is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="gandiag")
        watch = monitor(sink=sink)
        assert watch(3, Ring()) is not None and watch(4, Ring(2)) is not None


def test_any_function_is_a_sink() -> None:
    logged: list[Any] = []
    evaluate(
        [lambda values, step: logged.append(step), lambda values, *, step: logged.append(values["gandiag/lost"] > 0.5)]
    )
    assert logged == [3, False, 4, True]
    make_log_function(None)({}, step=1)
    with pytest.raises(ConfigError, match="Ring"):
        make_log_function(object.__new__(type("Ring", (), {})))


def test_tensorboard(tmp_path: Path) -> None:
    board = pytest.importorskip("torch.utils.tensorboard")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with board.SummaryWriter(tmp_path) as writer:
        evaluate(writer)
    found = accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    *_, event = found.Scalars("gandiag/score")
    assert event.step == 4 and event.value > 0.5


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.set_tracking_uri(f"{tmp_path.as_uri()}/runs")
    mlflow.set_experiment("gandiag")
    with mlflow.start_run() as run:
        evaluate(mlflow.log_metrics)
    assert mlflow.get_run(run.info.run_id).data.metrics["gandiag/collapsed"] == 1.0


def test_accelerate_and_its_trackers(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    tracking = pytest.importorskip("accelerate.tracking")
    logged: list[tuple[int, dict[str, float]]] = []

    class RecordingTracker(tracking.GeneralTracker):
        name, requires_logging_directory, tracker = "recording", False, None

        def __init__(self) -> None:
            super().__init__()

        def store_init_configuration(self, values: dict[str, Any]) -> None: ...

        def log(self, values: dict[str, float], step: int | None = None, **kwargs: Any) -> None:
            logged.append((step or 0, values))

    accelerator = accelerate.Accelerator(cpu=True, log_with=[RecordingTracker()])
    accelerator.init_trackers("gandiag")
    net = accelerator.prepare(Ring(2))
    for sink in (accelerator.log, accelerator, accelerator.trackers[0]):
        watch = monitor(sink=sink)
        assert watch(4, net) is not None
    assert [step for step, _ in logged] == [4, 4, 4] and all(values["gandiag/lost"] > 0.5 for _, values in logged)


def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    csv = pytest.importorskip("lightning.pytorch.loggers").CSVLogger(tmp_path)
    from gandiag.integrations.lightning import GandiagCallback

    class Gan(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.netG = Ring(1)

        def training_step(self, batch: Any, index: int) -> Any:
            return self.netG(torch.randn(8, 4)).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-6)

    def fit(watch: Any, name: str = "netG") -> Any:
        quiet = {
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "accelerator": "cpu",
            "default_root_dir": tmp_path,
            "log_every_n_steps": 1,
        }
        trainer = lightning.Trainer(max_steps=20, callbacks=[GandiagCallback(watch, name)], logger=csv, **quiet)
        trainer.fit(Gan(), torch.utils.data.DataLoader(REAL[:80], batch_size=4))
        return trainer

    watch = monitor(every=2, stop=True, patience=2)
    trainer = fit(watch)
    assert watch.stopped and trainer.global_step == 6 and [entry.step for entry in watch.evaluations] == [2, 4, 6]
    csv.save()
    assert "gandiag/score" in (Path(csv.log_dir) / "metrics.csv").read_text()
    with pytest.raises(ConfigError, match="netX") as caught:
        fit(monitor(), "netX")
    assert "netG" in caught.value.hint


def test_ignite() -> None:
    ignite = pytest.importorskip("ignite.engine")
    from gandiag.integrations.ignite import attach

    net: nn.Module = Ring(1)
    trainer = ignite.Engine(lambda engine, batch: None)
    watch = monitor(every=2, stop=True, patience=2)
    attach(trainer, watch, net)
    trainer.run(range(50), max_epochs=1)
    assert watch.stopped and trainer.state.iteration == 6 and [entry.step for entry in watch.evaluations] == [2, 4, 6]
