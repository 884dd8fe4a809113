"""The duality gap: bounds against closed forms, the maximin player against known discriminators, D read from files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

import gandiag
from gandiag.catalogue import get_entry
from gandiag.checkpoints.architectures.discriminator import build_sequential_discriminator, rebuild_discriminator
from gandiag.checkpoints.discriminator import DiscriminatorCandidate, build_discriminator, find_discriminator
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights, find_discriminator_weights
from gandiag.interfaces import OutputSpec
from gandiag.pipeline.discriminator_probe import MEASUREMENT_KEYS, count_macs
from gandiag.probes.best_response import best_response
from gandiag.probes.duality_gap import CHANCE_PAYOFF, duality_gap
from gandiag.probes.game import GamePlayers, HeldOutOutputs, SearchBudget, compute_payoffs, output_diversity
from gandiag.record import Measurement, Record, Score
from gandiag.sampling.module_state import hash_module_state
from gandiag.verdict.judge import apply_policy

SHORT = SearchBudget(steps=80, batch_size=64, max_held_out=200)


def normals(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def players(generator: nn.Module, discriminator: nn.Module, dim: int = 2, **more: Any) -> GamePlayers:
    """A game in which latent number i is row i of a normal sample."""

    def make(module: nn.Module, indices: Tensor) -> Tensor:
        return torch.as_tensor(module(normals(len(indices), dim, int(indices[0]) % 2**31)))

    return GamePlayers(generator.eval(), make, discriminator.eval(), **more)


class Scores(nn.Module):
    """A discriminator from a function of the samples, with one parameter that shifts its logits."""

    def __init__(self, logit: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logit, self.shift = logit, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.logit(x) + self.shift


def mlp(inputs: int, out: int, seed: int, width: int = 32) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, out))


class Identity(nn.Module):
    """z is the sample, but for a shift that can be learnt."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.shift


class Slope(nn.Module):
    """A linear logit in one dimension, D(x) = sigmoid(w x + b)."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.map = nn.Linear(1, 1)
        with torch.no_grad():
            self.map.weight.fill_(w)
            self.map.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.map(x))[:, 0]


# bounds


def test_at_an_equilibrium_there_is_no_gap() -> None:
    """G has the data's distribution and D is constant: neither can gain, within the error of 200 held-out samples."""
    found = duality_gap(players(Identity(), Slope(0.0), dim=1), normals(2000, 1, 9), budget=SHORT)
    assert found.value is not None and found.gap is not None and found.floor is not None
    assert found.value.value == pytest.approx(CHANCE_PAYOFF, abs=1e-6)  # float32 of 2 log 2
    assert -0.03 < found.gap.value < 0.03 and found.gap.low <= 0.0
    assert abs(found.floor) < 0.03
    assert found.gain.value == pytest.approx(0.0, abs=1e-6)


def test_upper_bound_of_two_gaussians() -> None:
    """Real N(1, 1) against N(-1, 1): the best D is sigmoid(2 x), and the bound E log s(2x) twice, an integral."""
    x = torch.linspace(-9, 11, 20_001, dtype=torch.float64)
    density = torch.exp(-0.5 * (x - 1) ** 2) / math.sqrt(2 * math.pi)
    exact = 2 * float(torch.trapezoid(density * logsigmoid(2 * x), x))  # -0.519
    game = players(Identity(-1.0), Slope(0.0), dim=1)
    found = duality_gap(game, normals(2000, 1, 9) + 1, budget=dataclasses.replace(SHORT, steps=200))
    assert found.upper is not None
    assert (
        found.upper.low <= exact + 0.02 <= found.upper.high + 0.06
    )  # the search ends a little below, the sample lies around
    assert found.learning_rates["discriminator"] == 0.01


def test_lower_bound_where_d_has_a_corner() -> None:
    """D(x) = sigmoid(2x) on [-1, 1]: the maximin player maps every z to 1, so the bound is E log s(2x) + log s(-2)."""
    real = normals(900, 1, 4).clamp(-1, 1)
    generator = nn.Linear(1, 1)
    with torch.no_grad():
        generator.weight.fill_(0.1)
        generator.bias.zero_()
    game = players(generator, Slope(2.0), dim=1, value_range=(-1.0, 1.0))
    found = duality_gap(game, real, budget=dataclasses.replace(SHORT, steps=200))
    assert found.lower is not None and found.upper is not None and found.value is not None
    order = torch.randperm(900, generator=torch.Generator().manual_seed(0))
    exact = float((logsigmoid(2 * real[order][200:400, 0]) + logsigmoid(torch.tensor(-2.0))).mean())
    assert (
        exact <= found.lower.value <= exact + 0.02
    )  # 200 steps of 0.01 move all of it beyond the corner, where the box holds it
    assert found.lower.value <= found.value.value <= found.upper.value + 0.01
    assert found.history[-1][1].effective_outputs.value == pytest.approx(1.0, abs=0.01)


def test_relativistic_values_are_nats_and_a_critic_has_no_bound() -> None:
    zero = torch.zeros(4)
    assert compute_payoffs("relativistic", zero, zero).tolist() == pytest.approx([-math.log(2)] * 4)
    found = duality_gap(
        players(mlp(2, 2, 0), Scores(lambda x: -x.square().sum(1)), loss="wasserstein"),
        normals(600, 2, 1),
        budget=SHORT,
    )
    assert found.gap is None and found.upper is None and found.gain.value > 0
    assert found.after.mean_distance.value < found.before.mean_distance.value


# the maximin player


def test_a_peak_attracts_every_latent() -> None:
    generator = mlp(2, 2, 3)
    with torch.no_grad():
        generator[2].weight.mul_(5)
    game = players(generator, Scores(lambda x: 2 - 8 * (x - 0.5).square().sum(1)))
    found = duality_gap(game, normals(900, 2, 1), budget=dataclasses.replace(SHORT, steps=200))
    assert found.after.mean_distance.value < 0.2 * found.before.mean_distance.value
    assert found.after.effective_outputs.high < 2 < found.before.effective_outputs.low
    assert found.gain.low > 0.1 and found.history[0][0] == 0 and found.history[-1][0] == 200


def test_a_flat_discriminator_leaves_g_where_it_is() -> None:
    game = players(mlp(2, 2, 3), Scores(lambda x: 0.0 * x.sum(1)))
    found = duality_gap(game, normals(900, 2, 1), budget=SHORT)
    assert found.learning_rates["generator"] == 0.0
    assert found.after.mean_distance == found.before.mean_distance and len(found.history) == 1


def test_the_networks_and_the_random_state_do_not_change() -> None:
    generator, discriminator = mlp(2, 2, 0), nn.Sequential(mlp(2, 1, 1), nn.Flatten(0))
    generator[0].weight.requires_grad_(False)
    game = players(generator, discriminator)
    torch.manual_seed(5)
    before, state = [hash_module_state(generator), hash_module_state(discriminator)], torch.get_rng_state()
    first = duality_gap(game, normals(600, 2, 1), budget=SHORT, seed=3)
    assert [hash_module_state(generator), hash_module_state(discriminator)] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(entry.grad is None for entry in (*generator.parameters(), *discriminator.parameters()))
    again = duality_gap(game, normals(600, 2, 1), budget=SHORT, seed=3)
    assert (again.gap, again.after.effective_outputs) == (first.gap, first.after.effective_outputs)


def test_too_few_real_samples() -> None:
    with pytest.raises(ValueError, match="95 real samples are too few: 96 are needed"):
        duality_gap(players(Identity(), Slope(0.0), dim=1), normals(95, 1, 0))


@pytest.mark.parametrize("modes", [1, 4, 8])
def test_outputs_count_modes(modes: int) -> None:
    """K equally frequent points far apart are K outputs; their mean distance is that of all pairs of samples."""
    points = 100.0 * torch.stack([torch.arange(modes) % 3, torch.arange(modes) // 3], 1).float()
    x = points.repeat(80 // modes, 1)
    spread, outputs = output_diversity(x, 0.5)
    assert outputs.value == pytest.approx(modes, rel=1e-6)
    assert spread.value == pytest.approx(float(torch.pdist(x).mean()), rel=1e-5, abs=1e-6)
    assert output_diversity(1e3 * torch.arange(60.0)[:, None], 1.0)[1].value == pytest.approx(60.0)


def test_a_search_finds_the_optimum_and_does_not_take_chance_for_a_gain() -> None:
    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.at = nn.Parameter(torch.zeros(()))

    noise = normals(100, 1, 0)[:, 0]
    climbing = best_response(
        Point(),
        lambda m, k: (m.at - 1).square(),
        lambda m: HeldOutOutputs(0.1 * noise - (m.at.detach() - 1).square()),
        steps=200,
    )
    assert float(climbing.module.at.detach()) == pytest.approx(
        1.0, abs=0.05
    )  # 200 steps of 0.01 and the momentum of the last
    lucky = best_response(
        Point(), lambda m, k: -m.at, lambda m: HeldOutOutputs(noise * m.at.detach()), steps=100
    )  # held-out terms that only chance moves
    assert lucky.learning_rate == 0.0 and float(lucky.module.at.detach()) == 0.0


# the discriminator, rebuilt


def sample(shape: tuple[int, ...], n: int = 8) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(2))


def trained(net: nn.Module, x: Tensor, steps: int = 60) -> nn.Module:
    """The network in eval mode, after its BatchNorm statistics were taken from x."""
    net.train()
    with torch.no_grad():
        for _ in range(steps):
            net(x)
    return net.eval()


def conv_net(norm_first: bool) -> nn.Sequential:
    """DCGAN's D (conv, norm, activation), or PyTorch-GAN's (conv, activation, dropout, norm with eps 0.8, linear)."""
    if norm_first:
        return nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8, 16, 4, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Dropout2d(0.25),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Dropout2d(0.25),
        nn.BatchNorm2d(16, 0.8),
        nn.Conv2d(16, 16, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Dropout2d(0.25),
        nn.BatchNorm2d(16, 0.8),
        nn.Flatten(),
        nn.Linear(16 * 4, 1),
        nn.Sigmoid(),
    )


@pytest.mark.parametrize("norm_first", [True, False])
def test_convolutions_with_their_eps_and_slope(norm_first: bool) -> None:
    """Slope and eps follow from the statistics, with or without dropout; logits are the module's before its sigmoid."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = conv_net(norm_first)
        x = sample((3, 16, 16), 256)
        trained(net, x, 100)
    opponent = DiscriminatorCandidate(
        "here",
        rebuild_discriminator(
            Weights(dict(net.state_dict()), tuple(name for name, _ in net.named_modules() if name)),
            OutputSpec("image", (3, 16, 16)),
        ),
    )
    ready = build_discriminator(opponent, x, x)
    with torch.no_grad():
        assert torch.allclose(ready.module(x), net[:-1](x).flatten(), atol=1e-5)
    assumed = {entry.setting: (entry.value, entry.source) for entry in ready.assumptions}
    assert assumed["discriminator.activation"][0] == "leaky:0.2"
    # A single BatchNorm layer never shows its own eps.
    assert assumed["discriminator.bn_eps"] == ((1e-5, "default") if norm_first else (0.8, "batch-norm"))
    assert ready.mismatch is not None and ready.mismatch < 0.3


def test_a_discriminator_with_other_statistics_is_rejected() -> None:
    net = trained(conv_net(True), sample((3, 16, 16), 64))
    opponent = DiscriminatorCandidate(
        "here", rebuild_discriminator(Weights(dict(net.state_dict())), OutputSpec("image", (3, 16, 16)))
    )
    with pytest.raises(ArchitectureMismatch, match="disagrees with its own BatchNorm statistics"):
        build_discriminator(opponent, 5 + 7 * sample((3, 16, 16), 64), 5 + 7 * sample((3, 16, 16), 64))


def test_spectral_norm_is_folded() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            *(
                nn.utils.parametrizations.spectral_norm(nn.Linear(*size)) if size else nn.LeakyReLU(0.2)
                for size in ((5, 16), (), (16, 1))
            )
        )
        trained(net, sample((5,)))
    made = build_sequential_discriminator(
        rebuild_discriminator(Weights(dict(net.state_dict())), OutputSpec("vector", (5,))), "leaky:0.2", 1e-5
    )
    with torch.no_grad():
        assert torch.allclose(made(sample((5,))), net(sample((5,)))[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("net", "shape", "why"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 10)), (4,), "ends with 10 values"),
        (
            nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)),
            (5,),
            "takes 4 values, but the generator's samples have 5",
        ),
        (
            nn.Sequential(
                nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten(), nn.Linear(8 * 64, 1)
            ),
            (3, 16, 16),
            "several strides",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 25, 1)),
            (3, 16, 16),
            "no common strides",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 1, 8)),
            (3, 16, 16),
            "does not take the 3 channels",
        ),
        (nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1)), (4,), "weight has shape"),
    ],
)
def test_unsupported_discriminators_are_rejected(net: nn.Module, shape: tuple[int, ...], why: str) -> None:
    with pytest.raises(ArchitectureMismatch, match=why):
        rebuild_discriminator(
            Weights(dict(net.state_dict())), OutputSpec("image" if len(shape) == 3 else "vector", shape)
        )


def test_every_discriminator_of_a_file_is_found() -> None:
    one = {"weight": torch.zeros(1, 2)}
    assert [group.path for group in find_discriminator_weights({"netG": one, "netD": one, "optD": one})] == ["netD"]
    assert [group.path for group in find_discriminator_weights({"D_A": one, "D_B": one})] == ["D_A", "D_B"]
    assert find_discriminator_weights({"generator": one}) == []
    assert len(find_discriminator_weights(one, include_other=True)) == 1


def test_files_that_are_called_alike(tmp_path: Path) -> None:
    generator, discriminator = (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)),
    )
    torch.save(generator.state_dict(), tmp_path / "netG_epoch_3.pth")
    torch.save(discriminator.state_dict(), tmp_path / "netD_epoch_2.pth")
    assert find_discriminator(tmp_path / "netG_epoch_3.pth", OutputSpec("vector", (2,))) is None
    torch.save(discriminator.state_dict(), tmp_path / "netD_epoch_3.pth")
    found = find_discriminator(tmp_path / "netG_epoch_3.pth", OutputSpec("vector", (2,)))
    assert (
        found is not None
        and found.location == "netD_epoch_3.pth"
        and found.spec is not None
        and found.spec.n_parameters == 33
    )
    torch.save(
        {"netG": generator.state_dict(), "netD": discriminator.state_dict(), "netD_2": discriminator.state_dict()},
        tmp_path / "both.pt",
    )
    both = find_discriminator(tmp_path / "both.pt", OutputSpec("vector", (2,)))
    assert both is not None and both.spec is None and "2 discriminators (netD, netD_2)" in both.reason


@pytest.mark.parametrize(
    ("recipe", "remedy"),
    [
        ("metz-appendix", "packing"),
        ("gaussians", "relativistic"),
        ("digits", "none"),
        ("metz-stacked-quarter", "spectral"),
    ],
)
def test_the_state_of_our_own_trainer(recipe: str, remedy: str, tmp_path: Path) -> None:
    """D out of state.pt judges as the trainer's own D does, in eval mode, to float32."""
    from gandiag.trainer.recipes import get_recipe as recipe_called
    from gandiag.trainer.run_config import make_run_config
    from gandiag.trainer.train import make_default_trainer, train

    plan = make_run_config(
        recipe_called(recipe).dataset, {"recipe": recipe, "remedy": remedy, "steps": 3, "snapshots": 1}
    )
    games = []
    folder = train(plan, tmp_path, trainer_factory=lambda plan: games.append(make_default_trainer(plan)) or games[0])  # type: ignore[func-returns-value]
    output = games[0].setup.data.output
    found = find_discriminator(folder.generator_file, output)
    assert found is not None and found.spec is not None, found
    assert found.loss == ("relativistic" if remedy == "relativistic" else "bce")
    x = sample(output.shape)
    net = games[0].discriminator.net.eval()
    with torch.no_grad():
        assert torch.allclose(
            build_sequential_discriminator(found.spec, found.spec.activation_candidates[0], 1e-5)(x),
            net(x).flatten(),
            atol=1e-5,
        )
    early = find_discriminator(next(iter(folder.list_snapshots().values())), output)
    assert early is not None and "state.pt is from step 3, and this generator is from step 0" in early.reason


def test_the_state_of_a_minibatch_discriminator_is_refused(tmp_path: Path) -> None:
    from gandiag.trainer.run_config import make_run_config
    from gandiag.trainer.train import train

    folder = train(make_run_config("ring8", {"remedy": "minibatch", "steps": 2, "snapshots": 1}), tmp_path)
    found = find_discriminator(folder.generator_file, OutputSpec("vector", (2,)))
    assert found is not None and "act on a whole minibatch" in found.reason


def test_work_counts_multiplications() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 5))
    assert count_macs(net, torch.zeros(2, 3, 4, 4)) == 3 * 8 * 9 * 16 + 8 * 16 * 5


def test_a_discriminator_that_cannot_be_used_never_stops_an_audit(tmp_path: Path) -> None:
    """The generator is audited even if D's weights are NaN or its output has no sensible shape."""
    generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    state = {
        "0.weight": torch.full((8, 2), math.nan),
        "0.bias": torch.zeros(8),
        "2.weight": torch.zeros(1, 8),
        "2.bias": torch.zeros(1),
    }
    torch.save({"netG": generator.state_dict(), "netD": state}, tmp_path / "nan.pt")
    record = gandiag.audit(tmp_path / "nan.pt", normals(300, 2, 0).numpy(), n=120, exhibits=False)
    assert record.score.value is not None and record.measurements["duality_gap"].status != "ok"
    found = find_discriminator(tmp_path / "nan.pt", OutputSpec("image", (0, 3)))  # no picture at all
    assert found is not None and found.spec is None and found.reason


def test_inspect_names_the_discriminator(tmp_path: Path) -> None:
    from click.testing import CliRunner
    from gandiag.cli.inspect import inspect_command

    fixtures = Path(__file__).resolve().parents[2] / "fixtures"
    shown = CliRunner().invoke(inspect_command, [str(fixtures / "training_state.pt")], standalone_mode=False).output
    assert "discriminator" in shown and "netD: convolutions, 11,232 parameters" in shown
    told = json.loads(
        CliRunner()
        .invoke(inspect_command, [str(fixtures / "training_state.pt"), "--json"], standalone_mode=False)
        .output
    )
    assert told["reading"]["discriminator"] == {
        "where": "netD",
        "rebuilt": True,
        "family": "convolutions",
        "parameters": 11_232,
        "loss": "bce",
    }
    assert (
        json.loads(
            CliRunner().invoke(inspect_command, [str(fixtures / "healthy.pt"), "--json"], standalone_mode=False).output
        )["reading"]["discriminator"]
        is None
    )


# in an audit


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray[Any, Any]]:
    """A short run on the ring, and real samples of it."""
    from gandiag.trainer.run_config import make_run_config
    from gandiag.trainer.toy_data import DATASETS
    from gandiag.trainer.train import train

    folder = train(
        make_run_config("ring8", {"recipe": "metz-appendix", "steps": 30, "snapshots": 1}),
        tmp_path_factory.mktemp("ring"),
    )
    return folder.generator_file, DATASETS.get("ring8")().draw(600, torch.Generator().manual_seed(7)).numpy()


def test_an_audit_measures_the_gap_and_does_not_judge_by_it(
    ring: tuple[Path, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    path, real = ring
    with_d = gandiag.audit(path, real, n=200, exhibits=True)
    alone = tmp_path / "generator.safetensors"
    alone.write_bytes(path.read_bytes())
    without = gandiag.audit(alone, real, n=200)
    assert (with_d.score, with_d.verdict, with_d.kinds) == (without.score, without.verdict, without.kinds)
    assert all(with_d.measurements[key].status == "ok" for key in MEASUREMENT_KEYS)
    assert not set(MEASUREMENT_KEYS) & set(without.measurements) and not without.game
    low, value, high = (with_d.measurements[key].value or 0.0 for key in ("game_lower", "game_value", "game_upper"))
    assert low <= value + 0.01 and value <= high + 0.01
    assert with_d.measurements["duality_gap"].value == pytest.approx(high - low, abs=1e-6)
    assert with_d.game["discriminator"]["where"] == "state.pt of the same run" and with_d.game["path"][0]["step"] == 0
    assert Record.from_json(with_d.to_json()).game == json.loads(with_d.to_json())["game"]
    shown = str(with_d)
    assert "Duality gap between G and D" in shown and "duality gap" in shown and "frozen D" in shown
    assert any(exhibit.id == "maximin" for exhibit in with_d.exhibits) == (len(with_d.game["path"]) > 2)


@pytest.mark.parametrize(
    ("settings", "real", "why"),
    [({"budget": "quick"}, True, "is skipped with --budget quick"), ({}, False, "the duality gap needs --real")],
)
def test_a_skipped_probe_has_a_reason(
    ring: tuple[Path, np.ndarray[Any, Any]], settings: dict[str, Any], real: bool, why: str
) -> None:
    record = gandiag.audit(ring[0], ring[1] if real else None, n=200, exhibits=False, **settings)
    assert record.measurements["duality_gap"].status == "not_measured"
    assert why in (record.measurements["duality_gap"].reason or "") and why in " ".join(str(record).split())


def played(**values: tuple[float, float, float]) -> Record:
    """A healthy record with these (value, low, high)."""
    units = {"maximin_outputs": "outputs", "maximin_spread": "ratio"}
    found = {
        key: Measurement(value, low, high, unit=units.get(key, "nats"), n=400)
        for key, (value, low, high) in values.items()
    }
    return apply_policy(
        Record("healthy", (), Score(0.02, 0.0, 0.05, n_fake=500, n_real=1000), {}, found, game={"steps": 200})
    )


def test_findings_are_notes_and_the_verdict_stays() -> None:
    pointed = {
        "maximin_outputs": (1.0, 1.0, 1.1),
        "maximin_spread": (0.01, 0.0, 0.02),
        "maximin_gain": (0.04, 0.03, 0.05),
    }
    wide = {
        "duality_gap": (1.3, 1.2, 1.4),
        "game_value": (-1.38, -1.4, -1.36),
        "game_upper": (-0.1, -0.2, 0.0),
        "game_lower": (-1.4, -1.5, -1.3),
    }
    found = {finding.rule: finding for finding in played(**pointed, **wide).findings}
    assert {code: found[code].level for code in ("GD707", "GD708")} == {"GD707": "note", "GD708": "note"}
    assert found["GD707"].remedies[0]["key"] == "unrolled" and "1.0 effective" in found["GD707"].text
    assert "D could gain 1.28 nats against this G" in found["GD708"].text
    assert played(**pointed, **wide).verdict == "healthy"


@pytest.mark.parametrize(
    "change",
    [{"maximin_outputs": (1.9, 1.7, 2.1)}, {"maximin_gain": (0.03, 0.01, 0.05)}, {"duality_gap": (0.3, 0.1, 0.5)}],
)
def test_uncertain_values_give_no_finding(change: dict[str, tuple[float, float, float]]) -> None:
    base = {
        "maximin_outputs": (1.0, 1.0, 1.1),
        "maximin_spread": (0.01, 0.0, 0.02),
        "maximin_gain": (0.04, 0.03, 0.05),
        "duality_gap": (1.3, 1.2, 1.4),
        "game_value": (-1.38, -1.4, -1.36),
        "game_upper": (-0.1, -0.2, 0.0),
        "game_lower": (-1.4, -1.5, -1.3),
    }
    rules = {finding.rule for finding in played(**(base | change)).findings}
    assert ("GD708" if "duality_gap" in change else "GD707") not in rules and (
        "GD707" if "duality_gap" in change else "GD708"
    ) in rules


@pytest.mark.parametrize("key", [*MEASUREMENT_KEYS, "GD707", "GD708"])
def test_every_key_is_documented(key: str) -> None:
    entry = get_entry(key)
    assert entry.title and entry.formula and (key.startswith("GD") or (entry.caveats and entry.source))
