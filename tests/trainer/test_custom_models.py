"""Images and one's own networks: what is drawn, what is read, which remedies can be tried, and what the others lack."""

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


def test_the_shipped_reader_reads_digits() -> None:
    images, labels = load_digit_images()
    assert validation_accuracy() >= 0.985  # held out, mean of five folds
    assert float((predict_digits(images) == labels).float().mean()) >= 0.995  # these it has seen


def test_stacked_digits_have_a_thousand_modes_and_a_floor() -> None:
    data = DATASETS.get("stacked-digits")()
    samples = data.draw(2_500, torch.Generator().manual_seed(0))
    assert samples.shape == (2_500, 3, 8, 8) and float(samples.min()) == -1.0 and float(samples.max()) == 1.0
    found = measure_coverage(data, samples)
    # A perfect generator: 1000 (1 - (1 - 1/1000)^2500) = 918 modes, sd about 7; KL about (K - 1) / 2n = 0.20 and a little more.
    assert found is not None and abs(found.modes - 918) < 40 and found.kl is not None and 0.18 < found.kl < 0.30
    one = measure_coverage(data, samples[:1].repeat(50, 1, 1, 1))
    assert one is not None and one.modes == 1 and one.kl == pytest.approx(6.908, abs=1e-3)


@pytest.mark.parametrize("name", [name for name, entry in load_recipes().items() if entry.dataset not in ("cifar10",)])
def test_every_recipe_plays_and_its_generator_is_rebuilt(name: str, tmp_path: Path) -> None:
    plan = make_run_config(load_recipes()[name].dataset, {"recipe": name, "steps": 1})
    data = DATASETS.get(plan.dataset)()
    game = make_trainer(plan.recipe, data, get_remedy("none"), seed=0, unroll_steps=0)
    game.step()
    game.generator.net.eval()
    file = tmp_path / "generator.safetensors"
    file.write_bytes(serialize_generator(game.generator.net, plan, data, 1))
    sampler = gandiag.api.load(file)
    z = game.sample_latents(5, torch.Generator().manual_seed(1))
    made = sampler.generator.forward(z.reshape(5, *sampler.latent.shape))  # type: ignore[attr-defined]
    torch.testing.assert_close(made, game.generator.net(z).detach(), rtol=1e-5, atol=1e-6)


def test_conv_recipes_unroll() -> None:
    plan = make_run_config("stacked-digits", {"remedy": "unrolled", "unroll": 2, "steps": 1})
    game = make_trainer(plan.recipe, DATASETS.get("stacked-digits")(), plan.remedy, seed=0, unroll_steps=2)
    before = [entry.clone() for entry in game.discriminator.net.buffers()]
    losses = game.step()
    assert all(np.isfinite(losses))
    assert all(torch.equal(one, other) for one, other in zip(before, game.discriminator.net.buffers(), strict=True)), (
        "looking ahead leaves no statistics"
    )


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG but no more")
    with pytest.raises(SourceError, match=r"bad\.png"):
        load_dataset(str(tmp_path))


def test_files_of_torchvision_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANDIAG_DATA", str(tmp_path))
    with pytest.raises(SourceError, match="files of MNIST are not in") as told:
        DATASETS.get("mnist")()
    assert "download=True" in told.value.hint


def test_packing_widens_the_first_layer_or_says_what_it_needs() -> None:
    conv = expand_first_layer(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(1)), 2)
    assert conv[0].in_channels == 6  # type: ignore[index]
    assert expand_first_layer(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), 3)[1].in_features == 12  # type: ignore[index]
    with pytest.raises(ConfigError, match="does not start with"):
        expand_first_layer(nn.Sequential(nn.Conv3d(1, 1, 1)), 2)


def test_advice_names_the_best_and_says_when_it_is_not_sure() -> None:
    def trial(name: str, value: float, half: float) -> RemedyResult:
        return RemedyResult(
            name, {"score": {"value": value, "low": value - half, "high": value + half}, "verdict": "collapsed"}
        )

    assert (
        describe_best_remedy([trial("none", 0.8, 0.05), trial("r1", 0.2, 0.05)])
        == "r1 helps most: score 0.20 against 0.80 without a remedy"
    )
    assert "overlap" in describe_best_remedy([trial("none", 0.8, 0.3), trial("r1", 0.6, 0.3)])
    assert "no remedy lowers" in describe_best_remedy([trial("none", 0.1, 0.1), trial("r1", 0.6, 0.3)])


def test_own_networks_under_remedies(tmp_path: Path) -> None:
    real = DATASETS.get("ring8")().draw(600, torch.Generator().manual_seed(0))
    np.save(tmp_path / "real.npy", real.numpy())
    nets = HERE / "custom_networks.py"
    ask = [
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
        str(tmp_path / "tried"),
        "-q",
    ]
    done = CliRunner().invoke(cli, ask, standalone_mode=False)
    assert done.exception is None and done.return_value == 0
    assert "needs D's features, and Discriminator does not say" in done.stdout
    rows = {row["remedy"]: row for row in json.loads((tmp_path / "tried/compared.json").read_text())}
    assert (
        set(rows) == {"none", "packing", "minibatch"}
        and rows["minibatch"]["audit"] is None
        and rows["packing"]["audit"]["score"]["value"] is not None
    )
    assert [row["step"] for row in rows["packing"]["earlier"]] == [
        1
    ] and f"1: {rows['packing']['earlier'][0]['score']['value']:.2f}" in done.stdout
    missing = CliRunner().invoke(cli, ["train", "--data", "x", "--out", str(tmp_path / "no")], standalone_mode=False)
    assert (
        isinstance(missing.exception, ConfigError)
        and "--generator and --discriminator missing" in missing.exception.message
    )
