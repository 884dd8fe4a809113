"""StyleGAN2 in rosinality's layout against the papers' forward pass."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from assumption_lookup import find_assumption
from stylegan2_reference import (
    W_DIM,
    Tensors,
    assert_close,
    draw,
    equalized_linear,
    normalize,
    rosinality_forward,
    rosinality_tensors,
    save,
    scaled_leaky_relu,
)

from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError


def test_outputs_match_the_paper(tmp_path: Path) -> None:
    ema, z = rosinality_tensors(), draw(9)(4, W_DIM)
    content = {
        "g": rosinality_tensors(5),
        "d": {"convs.0.0.weight": torch.zeros(4, 3, 1, 1)},
        "g_ema": ema,
        "g_optim": {"state": {}, "param_groups": []},
        "args": argparse.Namespace(size=16, latent=W_DIM),
        "ada_aug_p": 0.2,
    }
    network = load_generator(save(content, tmp_path / "000100.pt"))
    assert network.subject["family"] == "StyleGAN2 (rosinality)" and network.subject["weights"].startswith(
        "g_ema (EMA copy; the raw g is there too"
    )
    assert (network.latent.dim, network.output.shape, network.output.range, network.classes) == (
        W_DIM,
        (3, 16, 16),
        (-1.0, 1.0),
        None,
    )
    noise_size = sum(entry.numel() for name, entry in ema.items() if name.startswith("noises."))
    filter_size = sum(entry.numel() for name, entry in ema.items() if name.endswith(".kernel"))
    assert network.subject["parameters"] == sum(entry.numel() for entry in ema.values()) - noise_size - filter_size
    assert_close(network.forward(z), rosinality_forward(ema, z))
    with override_sampling(network.module, noise_mode="none"):
        assert_close(
            network.forward(z),
            rosinality_forward(ema, z, noise=[torch.zeros(4, 1, size, size).double() for size in (4, 8, 8, 16, 16)]),
        )
    raw = load_generator(tmp_path / "000100.pt", AuditConfig(weights="raw"))
    assert_close(raw.forward(z), rosinality_forward(rosinality_tensors(5), z))


def test_truncation_is_towards_the_mean_of_the_file_or_a_computed_one(tmp_path: Path) -> None:
    tensors, z, mean = rosinality_tensors(), draw(9)(4, W_DIM), draw(3)(W_DIM)
    network = load_generator(
        save({"g_ema": tensors, "latent_avg": mean}, tmp_path / "official.pt"), AuditConfig(psi=0.5)
    )
    w_avg, psi = find_assumption(network, "w_avg"), find_assumption(network, "psi")
    assert (w_avg.value, w_avg.source) == ("latent_avg", "file") and "stds from the mean of 512" in w_avg.note
    assert (psi.value, psi.source) == (0.5, "flag")
    assert_close(network.forward(z), rosinality_forward(tensors, z, psi=0.5, mean=mean.double()))
    without_mean = load_generator(save({"g_ema": tensors}, tmp_path / "own.pt"), AuditConfig(psi=0.0))
    w_avg = find_assumption(without_mean, "w_avg")
    assert (w_avg.value, w_avg.source) == ("mean of 4,096 mapped latents", "gandiag")
    w = normalize(draw(7)(20_000, W_DIM).double())
    for index in (1, 2, 3):
        w = scaled_leaky_relu(
            equalized_linear(
                w, tensors[f"style.{index}.weight"].double(), tensors[f"style.{index}.bias"].double(), 0.01
            )
        )
    assert (without_mean.module._mean_w(z) - w.mean(0)).abs().max() < 5 * w.std(0).max() / 4_096**0.5  # type: ignore[operator]
    samples = without_mean.forward(z)
    assert torch.allclose(samples, samples[:1].expand_as(samples), atol=1e-5)


@pytest.mark.parametrize("multiplier", [0.01, 0.1, 1.0])
def test_the_learning_rate_multiplier_is_inferred_from_the_weights(tmp_path: Path, multiplier: float) -> None:
    tensors = rosinality_tensors()
    changed = {
        name: entry * 0.01 / multiplier if name.startswith("style.") else entry for name, entry in tensors.items()
    }
    network, z = load_generator(save({"g_ema": changed}, tmp_path / "m.pt")), draw(9)(2, W_DIM)
    inferred = find_assumption(network, "lr_multiplier")
    assert (inferred.value, inferred.source) == (multiplier, "file")
    assert inferred.note.startswith("3 layers; their weights have std")
    assert_close(network.forward(z), rosinality_forward(tensors, z))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda t: t.pop("convs.2.noise.weight"), "convs.2.noise.weight is missing"),
        (lambda t: t.pop("convs.0.conv.blur.kernel"), "convs.0.conv.blur.kernel is missing"),
        (lambda t: t.update({"convs.1.gate": torch.zeros(2, 2)}), "convs.1.gate is not part of it"),
        (
            lambda t: t.update({"noises.noise_3": torch.zeros(1, 1, 8, 8)}),
            r"noises.noise_3 is \(1, 1, 8, 8\), not \(1, 1, 16, 16\)",
        ),
    ],
)
def test_inconsistent_tensors_are_refused(tmp_path: Path, damage: Callable[[Tensors], Any], reason: str) -> None:
    tensors = rosinality_tensors()
    damage(tensors)
    with pytest.raises(LoadError, match=f"rosinality: {reason}"):
        load_generator(save({"g_ema": tensors}, tmp_path / "m.pt"))
