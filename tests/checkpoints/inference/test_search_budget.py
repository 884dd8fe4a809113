"""The search over readings: counted in multiplications, kept by content, and never believed where it is damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_generators import DCGAN, calibrated, normal, save

from gandiag.checkpoints.confidence import assess_confidence
from gandiag.checkpoints.inference import candidate_scorer
from gandiag.checkpoints.inference.open_settings import MAX_READINGS, OpenSetting, count_readings, iter_readings
from gandiag.checkpoints.inference.search_state import OutOfBudget, SearchState, search_budget
from gandiag.checkpoints.inference.search_store import SearchStore
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig


@pytest.fixture
def dcgan_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANDIAG_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    return save(calibrated(DCGAN(), normal(12), batches=5).state_dict(), tmp_path)


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    passes = [0]
    run = candidate_scorer.CandidateScorer._run

    def counted(*args: object, **kwargs: object) -> object:
        passes[0] += 1
        return run(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(candidate_scorer.CandidateScorer, "_run", counted)
    return passes


def test_a_file_read_again_is_not_searched_again(dcgan_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(monkeypatch)
    first = load_generator(dcgan_file)
    assert passes[0] > 20
    passes[0] = 0
    again = load_generator(dcgan_file, inspect_only=True)
    assert passes[0] == 0 and again.assumptions == first.assumptions and again.latent == first.latent


@pytest.mark.parametrize("damage", ["none", "truncated", "other numbers", "text for numbers", "negative", "not ours"])
def test_a_damaged_entry_is_not_believed(tmp_path: Path, damage: str) -> None:
    store = SearchStore(tmp_path / "searches" / "a.json", 10.0)
    state = store.restore()
    state.recall("pass", lambda: (0.5, math.inf))
    store.keep(state)
    document = json.loads(store.path.read_text())  # type: ignore[union-attr]
    if damage == "other numbers":
        document["passes"]["pass"][1] = 0.123
    elif damage == "text for numbers":
        document["passes"]["pass"] = "0.1"
    elif damage == "negative":
        document["passes"]["pass"][0] = -1e30
    text = "[1, 2]" if damage == "not ours" else json.dumps(document)
    store.path.write_text(text[: 40 if damage == "truncated" else None])  # type: ignore[union-attr]
    assert store.restore().results == ({"pass": (0.0, 0.5, math.inf)} if damage == "none" else {})


def test_an_entry_is_that_of_weights_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANDIAG_CACHE", str(tmp_path))
    tensors = {"0.weight": torch.ones(4, 3), "0.bias": torch.zeros(4)}
    weights = [Weights(tensors), Weights({**tensors, "0.bias": torch.ones(4)}), Weights(tensors, ("0", "1"))]
    configs = [AuditConfig(), AuditConfig(activation="relu")]
    stores = [SearchStore.of_weights(one, config, inspect_only=False) for one in weights for config in configs]
    assert len({store.path for store in stores}) == 6
    assert SearchStore.of_weights(Weights(dict(tensors)), AuditConfig(n=7), inspect_only=True).path == stores[0].path
    monkeypatch.setenv("GANDIAG_CACHE", "off")
    assert SearchStore.of_weights(weights[0], configs[0], inspect_only=False).path is None


def test_a_recalled_pass_costs_what_it_did() -> None:
    state = SearchState(10.0)

    def compute() -> tuple[float, ...]:
        state.spend(4.0)
        return (0.5,)

    assert state.recall("a", compute) == (0.5,) and state.remaining == 6.0
    assert state.recall("a", compute) == (0.5,) and state.remaining == 6.0  # counted once in a search
    replay = SearchState(10.0, dict(state.results))
    assert replay.recall("a", compute) == (0.5,) and replay.remaining == 6.0 and replay.n_new == 0
    poor = SearchState(3.0, dict(state.results))
    with pytest.raises(OutOfBudget):
        poor.recall("a", compute)


def test_large_networks_are_not_ranked_to_inspect_them() -> None:
    assert search_budget(10**6, inspect_only=True) == search_budget(10**6, inspect_only=False) > 0
    assert search_budget(10**8, inspect_only=True) == 0 < search_budget(10**8, inspect_only=False)


def test_readings_beyond_the_limit_are_counted() -> None:
    many = [OpenSetting(str(index), tuple(range(12)), lambda entry, value: entry) for index in range(9)]
    initial = candidate_scorer.Assignment("relu", 1e-5, 0.0, "normal", 1.0, ())
    texts = [settings for settings, _ in iter_readings(many, initial)]
    assert count_readings(many) == 12**9 - 1 and len(texts) == MAX_READINGS
    assert all(sum(value != "0" for value in settings.values()) <= 2 for settings in texts)


def draw_pixels(rng: torch.Generator) -> torch.Tensor:
    return torch.randn(64, 12, 1, 1, generator=rng)


def gap_network(extra: nn.Module) -> nn.Sequential:
    def block(inputs: int, outputs: int, *geometry: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(inputs, outputs, 4, *geometry), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]

    return nn.Sequential(
        *block(12, 24, 1, 0), *block(24, 16, 2, 1), extra, *block(16, 12, 2, 1), nn.ConvTranspose2d(12, 3, 4, 2, 1)
    )


def test_a_layer_without_weights_is_found_by_the_norm_behind_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = calibrated(gap_network(nn.AvgPool2d(2)), draw_pixels, batches=40)
    torch.save(nn.Sequential(*net, nn.Tanh()).state_dict(), tmp_path / "net.pt")
    generator = load_generator(tmp_path / "net.pt")
    z = torch.randn(4, 12, 1, 1)
    with torch.no_grad():
        assert torch.allclose(generator.forward(z), torch.tanh(net(z)), atol=1e-4)


def test_a_layer_behind_the_last_norm_stays_open(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*gap_network(nn.Identity())[:9], nn.ConvTranspose2d(12, 3, 4, 2, 1), nn.Upsample(28), nn.Tanh())
    torch.save(calibrated(net, draw_pixels, batches=5).state_dict(), tmp_path / "net.pt")
    confidence = assess_confidence(load_generator(tmp_path / "net.pt"))
    assert confidence.word == "open" and "structure" in confidence.grounds
