"""Image datasets, and a user's own networks under several remedies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gandiag.cli.main import cli
from PIL import Image
from torch import nn

import gandiag.api
from gandiag.errors import ConfigError, SourceError
from gandiag.trainer.custom_models import RemedyResult, describe_best_remedy, expand_first_layer
from gandiag.trainer.digit_classifier import predict_digits, validation_accuracy
from gandiag.trainer.export import serialize_generator
from gandiag.trainer.gan_trainer import make_trainer
from gandiag.trainer.image_data import load_dataset, load_digit_images
from gandiag.trainer.mode_coverage import measure_coverage
from gandiag.trainer.recipes import load_recipes
from gandiag.trainer.remedies.registry import get_remedy
from gandiag.trainer.run_config import make_run_config
from gandiag.trainer.toy_data import DATASETS

HERE = Path(__file__).parent


def test_the_shipped_classifier_reads_digits() -> None:
    images, labels = load_digit_images()
    assert validation_accuracy() >= 0.985  # held out, mean of five folds
    assert float((predict_digits(images) == labels).float().mean()) >= 0.995  # trained on these


def test_stacked_digits_have_a_thousand_modes_and_a_floor() -> None:
    data = DATASETS.get("stacked-digits")()
    samples = data.draw(2_500, torch.Generator().manual_seed(0))
    assert samples.shape == (2_500, 3, 8, 8) and float(samples.min()) == -1.0 and float(samples.max()) == 1.0
    coverage = measure_coverage(data, samples)
    # A perfect generator covers 1000 (1 - (1 - 1/1000)^2500) = 918 modes, sd about 7; its KL is slightly more than
    # (K - 1) / 2n = 0.20.
    assert coverage is not None and abs(coverage.modes - 918) < 40
    assert coverage.kl is not None and 0.18 < coverage.kl < 0.30
    single = measure_coverage(data, samples[:1].repeat(50, 1, 1, 1))
    assert single is not None and single.modes == 1 and single.kl == pytest.approx(6.908, abs=1e-3)


@pytest.mark.parametrize("name", [name for name, entry in load_recipes().items() if entry.dataset not in ("cifar10",)])
def test_every_recipe_trains_and_its_generator_is_rebuilt(name: str, tmp_path: Path) -> None:
    config = make_run_config(load_recipes()[name].dataset, {"recipe": name, "steps": 1})
    data = DATASETS.get(config.dataset)()
    trainer = make_trainer(config.recipe, data, get_remedy("none"), seed=0, unroll_steps=0)
    trainer.step()
    trainer.generator.net.eval()
    file = tmp_path / "generator.safetensors"
    file.write_bytes(serialize_generator(trainer.generator.net, config, data, 1))
    sampler = gandiag.api.load(file)
    z = trainer.sample_latents(5, torch.Generator().manual_seed(1))
    samples = sampler.generator.forward(z.reshape(5, *sampler.latent.shape))  # type: ignore[attr-defined]
    torch.testing.assert_close(samples, trainer.generator.net(z).detach(), rtol=1e-5, atol=1e-6)


def test_conv_recipes_unroll() -> None:
    config = make_run_config("stacked-digits", {"remedy": "unrolled", "unroll": 2, "steps": 1})
    trainer = make_trainer(config.recipe, DATASETS.get("stacked-digits")(), config.remedy, seed=0, unroll_steps=2)
    before = [entry.clone() for entry in trainer.discriminator.net.buffers()]
    losses = trainer.step()
    assert all(np.isfinite(losses))
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.discriminator.net.buffers(), strict=True)), (
        "unrolling must not update BatchNorm statistics"
    )


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG but no more")
    with pytest.raises(SourceError, match=r"bad\.png"):
        load_dataset(str(tmp_path))


def test_files_of_torchvision_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANDIAG_DATA", str(tmp_path))
    with pytest.raises(SourceError, match="files of MNIST are not in") as caught:
        DATASETS.get("mnist")()
    assert "download=True" in caught.value.hint


def test_packing_widens_the_first_layer_or_names_what_it_needs() -> None:
    conv = expand_first_layer(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(1)), 2)
    assert conv[0].in_channels == 6  # type: ignore[index]
    assert expand_first_layer(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), 3)[1].in_features == 12  # type: ignore[index]
    with pytest.raises(ConfigError, match="does not start with"):
        expand_first_layer(nn.Sequential(nn.Conv3d(1, 1, 1)), 2)


def test_the_best_remedy_is_named_with_a_caveat_if_intervals_overlap() -> None:
    def result(name: str, value: float, half: float) -> RemedyResult:
        return RemedyResult(
            name, {"score": {"value": value, "low": value - half, "high": value + half}, "verdict": "collapsed"}
        )

    assert (
        describe_best_remedy([result("none", 0.8, 0.05), result("r1", 0.2, 0.05)])
        == "r1 helps most: score 0.20 against 0.80 without a remedy"
    )
    assert "overlap" in describe_best_remedy([result("none", 0.8, 0.3), result("r1", 0.6, 0.3)])
    assert "no remedy lowers" in describe_best_remedy([result("none", 0.1, 0.1), result("r1", 0.6, 0.3)])


@pytest.mark.slow
def test_custom_networks_under_remedies(tmp_path: Path) -> None:
    real = DATASETS.get("ring8")().draw(600, torch.Generator().manual_seed(0))
    np.save(tmp_path / "real.npy", real.numpy())
    nets = HERE / "custom_networks.py"
    arguments = [
        "train",
        "--data",
        str(tmp_path / "real.npy"),
        "--generator",
        f"{nets}:generator",
        "--discriminator",
        f"{nets}:Discriminator",
        "--remedy",
        "packing,minibatch",
        "--steps",
        "2",
        "--snapshots",
        "2",
        "--out",
        str(tmp_path / "comparison"),
        "-q",
    ]
    outcome = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert outcome.exception is None and outcome.return_value == 0
    assert "needs D's features, which cannot be found in Discriminator" in outcome.stdout
    rows = {row["remedy"]: row for row in json.loads((tmp_path / "comparison/compared.json").read_text())}
    assert (
        set(rows) == {"none", "packing", "minibatch"}
        and rows["minibatch"]["audit"] is None
        and rows["packing"]["audit"]["score"]["value"] is not None
    )
    assert [row["step"] for row in rows["packing"]["earlier"]] == [
        1
    ] and f"1: {rows['packing']['earlier'][0]['score']['value']:.2f}" in outcome.stdout
    missing = CliRunner().invoke(cli, ["train", "--data", "x", "--out", str(tmp_path / "no")], standalone_mode=False)
    assert (
        isinstance(missing.exception, ConfigError)
        and "--generator and --discriminator missing" in missing.exception.message
    )
