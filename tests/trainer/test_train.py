"""Training is reproducible however often it is interrupted, and its files can be audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from gandiag.cli.main import cli
from safetensors.torch import load_file, save_file

import gandiag
from gandiag.api import load
from gandiag.checkpoints.metadata import FileMetadata, read_file_metadata
from gandiag.errors import ConfigError, OutputError, PluginError, RecordError
from gandiag.trainer.gan_trainer import make_trainer
from gandiag.trainer.mode_coverage import measure_coverage
from gandiag.trainer.run_config import RunConfig, make_run_config
from gandiag.trainer.toy_data import DATASETS, REAL_HIGH_QUALITY_FRACTION
from gandiag.trainer.train import TrainingStatus, train


class Killed(Exception):
    pass


def make_config(**options: Any) -> RunConfig:
    return make_run_config("ring8", {"recipe": "metz-appendix", "steps": 24, "snapshots": 4, **options})


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kill_at(step: int) -> Any:
    def on_status(status: TrainingStatus) -> None:
        if status.step >= step:
            raise Killed

    return on_status


@pytest.mark.parametrize("remedy", ["none", "unrolled"])
def test_an_interrupted_run_ends_with_the_same_files_to_the_bit(
    remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(remedy=remedy, unroll=3 if remedy == "unrolled" else None)
    train(config, tmp_path / "whole")
    monkeypatch.setattr("gandiag.trainer.train.SAVE_INTERVAL_SECONDS", 0.0)
    for step in (1, 7, 8, 19):  # after a save, before one, and at a snapshot
        with pytest.raises(Killed):
            train(config, tmp_path / "pieces", kill_at(step))
    train(config, tmp_path / "pieces")
    whole, pieces = read_files(tmp_path / "whole"), read_files(tmp_path / "pieces")
    assert whole.keys() == pieces.keys()
    assert [name for name in whole if whole[name] != pieces[name]] == []


def test_snapshots_and_evaluations_do_not_affect_training(tmp_path: Path) -> None:
    train(make_config(snapshots=1), tmp_path / "few")
    train(make_config(snapshots=24), tmp_path / "many")
    few, many = (load_file(tmp_path / name / "generator.safetensors") for name in ("few", "many"))
    assert all(torch.equal(few[key], many[key]) for key in few)


def test_a_longer_run_resumes_a_shorter_one(tmp_path: Path) -> None:
    train(make_config(steps=12), tmp_path / "grown")
    train(make_config(steps=24), tmp_path / "grown")
    train(make_config(steps=24), tmp_path / "whole")
    grown, whole = (load_file(tmp_path / name / "generator.safetensors") for name in ("grown", "whole"))
    assert all(torch.equal(grown[key], whole[key]) for key in whole)


def test_seeds_pair_runs_and_leave_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    data = DATASETS.get("ring8")()
    trainers = {
        name: make_trainer(make_config().recipe, data, make_config(remedy=name).remedy, seed=seed, unroll_steps=0)
        for name, seed in (("none", 3), ("unrolled", 3))
    }
    assert torch.equal(trainers["none"].generator.state.theta, trainers["unrolled"].generator.state.theta)
    assert torch.equal(trainers["none"].rng.get_state(), trainers["unrolled"].rng.get_state())
    other = make_trainer(make_config().recipe, data, make_config().remedy, seed=4, unroll_steps=0)
    assert not torch.equal(trainers["none"].generator.state.theta, other.generator.state.theta)
    trainers["none"].step()
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_generator_is_audited_without_options(tmp_path: Path) -> None:
    config = make_config(z_scale=0.25, recipe="metz-notebook")
    folder = train(config, tmp_path / "run")
    sampler = load(folder.generator_file)
    assert sampler.latent.dim == 256 and sampler.latent.prior == "normal" and sampler.generator.trained_scale == 0.25
    trainer = make_trainer(config.recipe, DATASETS.get("ring8")(), config.remedy, seed=0, unroll_steps=0)
    trainer.generator.net.load_state_dict(load_file(folder.generator_file))
    z = torch.randn(7, 256, generator=torch.Generator().manual_seed(1))
    assert torch.equal(
        sampler.generator.forward(z), trainer.generator.net(z).detach()
    )  # tanh, which cannot be read from the weights
    record = gandiag.audit(
        folder.generator_file, DATASETS.get("ring8")().draw(400, torch.Generator().manual_seed(2)), n=200
    )
    assert record.subject["latent"]["trained_scale"]["value"] == 0.25 and "wrong_scale" in record.kinds
    assert {entry["source"] for entry in record.subject["assumptions"] if "--activation" in entry["what"]} == {"file"}


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    train(make_config(), tmp_path / "run")
    with pytest.raises(ConfigError, match="seed 0"):
        train(make_config(seed=1), tmp_path / "run")


def test_a_diverged_run_stops_with_its_step_and_keeps_its_snapshots(tmp_path: Path) -> None:
    config = make_config(steps=24)
    object.__setattr__(config.recipe.adam_generator, "lr", 1e30)
    try:
        with pytest.raises(OutputError, match=r"diverged at step \d+.*step-0000000") as caught:
            train(config, tmp_path / "run")
    finally:
        object.__setattr__(config.recipe.adam_generator, "lr", 1e-4)
    assert "--remedy r1" in caught.value.hint
    assert (tmp_path / "run/snapshots/step-0000000.safetensors").exists() and not (
        tmp_path / "run/generator.safetensors"
    ).exists()


def test_a_full_disk_loses_no_finished_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    calls, real = iter(range(1000)), os.fsync

    def fail_when_full(handle: int) -> None:
        if next(calls) == 6:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr("gandiag.trainer.run_folder.os.fsync", fail_when_full)
    with pytest.raises(RecordError, match="No space left"):
        train(make_config(), tmp_path / "run")
    monkeypatch.undo()
    assert not list((tmp_path / "run").rglob("*.part"))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run/snapshots").iterdir()}
    assert kept and all(load_file(tmp_path / "run/snapshots" / name) for name in kept)
    train(make_config(), tmp_path / "run")
    train(make_config(), tmp_path / "whole")
    assert read_files(tmp_path / "run") == read_files(tmp_path / "whole")


def test_real_samples_of_the_mixtures_have_the_stated_coverage() -> None:
    for name in ("ring8", "grid25", "ring8-pacgan", "gaussians-64d"):
        data = DATASETS.get(name)()
        samples = data.draw(20_000, torch.Generator().manual_seed(5))
        coverage = measure_coverage(data, samples)
        assert coverage is not None and coverage.modes == data.n_modes
        # Binomial at the ceiling p = 0.98889: sd 0.00074 at n = 20,000; four of them.
        assert abs(coverage.good - REAL_HIGH_QUALITY_FRACTION) < 0.003, name
        # E TV of K equal shares at n is about sqrt(K / (2 pi n)): 0.014 for K = 25.
        assert coverage.variation < 0.03 and coverage.kl is not None and coverage.kl < 0.01


def test_one_point_covers_one_mode() -> None:
    data = DATASETS.get("ring8")()
    coverage = measure_coverage(data, torch.tensor([[2.0, 0.0]]).repeat(100, 1))
    assert coverage is not None and (coverage.modes, coverage.dominant, coverage.variation) == (1, 0, 0.875)
    assert coverage.kl == pytest.approx(2.0794, abs=1e-4)
    none = measure_coverage(data, torch.zeros(100, 2))
    assert none is not None and none.modes == 0 and none.kl is None


def test_invalid_names_and_numbers() -> None:
    with pytest.raises(PluginError, match="no remedy called 'unroled'") as caught:
        make_config(remedy="unroled")
    assert "did you mean unrolled" in caught.value.hint
    with pytest.raises(PluginError, match="no data set called 'rin8'"):
        DATASETS.get("rin8")
    with pytest.raises(ConfigError, match="no recipe called"):
        make_config(recipe="metz")
    with pytest.raises(ConfigError, match="--unroll 5"):
        make_config(unroll=5)
    with pytest.raises(ConfigError, match="above 0"):
        make_config(steps=0)


def test_the_command_trains_audits_and_shows(tmp_path: Path) -> None:
    out = tmp_path / "run"
    outcome = CliRunner().invoke(
        cli, ["train", "ring8", "--steps", "10", "--snapshots", "1", "--out", str(out), "-q"], standalone_mode=False
    )
    assert outcome.exception is None and outcome.return_value == 0
    assert "ring8, metz-appendix, none, seed 0" in outcome.stdout and "of 8" in outcome.stdout
    assert (out / "samples.png").read_bytes().startswith(b"\x89PNG") and "<table>" in (out / "samples.html").read_text()
    rows = json.loads((out / "audits.json").read_text())
    assert [row["step"] for row in rows] == [0, 10] and all(row["verdict"] for row in rows)


ODD = (
    '{"audit": {"prior": ["normal"], "latent_dim": true, "activation": "relu:__import__", '
    '"model": "os:system", "trust": true}}'
)


@pytest.mark.parametrize(
    "header",
    ["[", "[]", '"x"', '{"audit": 3}', ODD, '{"trained_scale": -1}', '{"trained_scale": 1e999, "run": 7}', "[" * 5000],
)
def test_a_malformed_header_is_ignored(header: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.safetensors"
    save_file({"0.weight": torch.zeros(2, 3)}, file, {"gandiag": header})
    assert read_file_metadata(file) == FileMetadata()


def test_options_take_precedence_over_the_header(tmp_path: Path) -> None:
    folder = train(make_config(steps=1), tmp_path / "run")
    assert load(folder.generator_file, prior="uniform").latent.prior == "uniform"
