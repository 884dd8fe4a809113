"""StyleGAN2 in NVIDIA's layout, as tensors and as network pickles, against the papers' forward pass."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from stylegan2_reference import (
    SOURCE,
    Z_DIM,
    Tensors,
    assert_close,
    draw,
    make_network_pickle,
    nvidia_forward,
    nvidia_tensors,
    save,
)

from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.summary import summarize_file
from gandiag.errors import LoadError


@pytest.mark.parametrize("kind", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("classes", [0, 3])
def test_outputs_match_the_paper(tmp_path: Path, kind: str, classes: int) -> None:
    tensors, z = nvidia_tensors(kind, classes), draw(9)(4, Z_DIM)
    labels = torch.arange(4) % classes if classes else None
    onehot = None if labels is None else F.one_hot(labels, classes)
    network = load_generator(save({"G_ema": tensors}, tmp_path / "G.pt"))
    synthesis = find_assumption(network, "synthesis")
    assert network.subject["family"] == "StyleGAN2 (NVIDIA)"
    assert (synthesis.value, synthesis.source, synthesis.note) == (kind, "shapes", "to 16 pixels")
    assert (network.latent.dim, network.output.shape, network.classes) == (Z_DIM, (3, 16, 16), classes or None)
    assert_close(network.forward(z, labels), nvidia_forward(tensors, z, onehot))
    with override_sampling(network.module, psi=0.6):
        assert_close(network.forward(z, labels), nvidia_forward(tensors, z, onehot, psi=0.6))


def test_a_network_pickle_states_what_its_tensors_do_not_show(tmp_path: Path) -> None:
    tensors, z = nvidia_tensors("resnet", 3), draw(9)(4, Z_DIM)
    labels = torch.arange(4) % 3
    content = {
        "G": make_network_pickle(nvidia_tensors("resnet", 3, 5)),
        "D": None,
        "G_ema": make_network_pickle(tensors, lr_multiplier=0.02, clamp=0.7),
        "augment_pipe": None,
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset"},
    }
    (tmp_path / "network-snapshot-000100.pkl").write_bytes(pickle.dumps(content))
    network = load_generator(tmp_path / "network-snapshot-000100.pkl")
    assert network.subject["family"] == "StyleGAN2 (NVIDIA)" and network.subject["weights"].startswith(
        "G_ema (EMA copy; the raw G is there too"
    )
    assert "code that was not run" in network.notes[0]
    actions = summarize_file(str(tmp_path / "network-snapshot-000100.pkl")).code_actions
    (source_line,) = (line for line in actions if "source" in line)
    assert source_line.startswith(f"carries source text ({len(SOURCE)} characters, sha256 ")
    assert "and 2 more classes" in source_line
    multiplier, clamp = find_assumption(network, "lr_multiplier"), find_assumption(network, "conv_clamp")
    assert (multiplier.value, multiplier.source, multiplier.note) == (0.02, "file", "3 layers")
    assert (clamp.value, clamp.source, clamp.note) == (0.7, "file", "float32 throughout")
    expected = nvidia_forward(tensors, z, F.one_hot(labels, 3), lr_multiplier=0.02, clamp=0.7)
    assert_close(network.forward(z, labels), expected)
    unclamped = nvidia_forward(tensors, z, F.one_hot(labels, 3), lr_multiplier=0.02)
    assert (expected - unclamped).abs().max() > 0.1  # the clamp has an effect


def test_network_pickles_without_clamp_or_with_another_activation(tmp_path: Path) -> None:
    tensors, z = nvidia_tensors(), draw(9)(2, Z_DIM)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G_ema": make_network_pickle(tensors, clamp=None)}))
    network = load_generator(tmp_path / "a.pkl")
    clamp = find_assumption(network, "conv_clamp")
    assert (clamp.value, clamp.source) == (None, "file")
    assert_close(network.forward(z), nvidia_forward(tensors, z))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"G_ema": make_network_pickle(tensors, activation="swish")}))
    with pytest.raises(LoadError, match="has the activation swish, not lrelu"):
        load_generator(tmp_path / "b.pkl")


@pytest.mark.parametrize(
    "damage, reason",
    [
        (
            lambda t: [t.pop(name) for name in list(t) if name.startswith("synthesis.b8.torgb")],
            "neither at every resolution nor at the last alone",
        ),
        (lambda t: t.pop("synthesis.b16.conv0.noise_const"), "synthesis.b16.conv0.noise_const is missing"),
        (lambda t: t.update({"synthesis.b32.extra": torch.zeros(3, 3)}), "synthesis.b32.extra is not part of it"),
    ],
)
def test_inconsistent_tensors_are_named(tmp_path: Path, damage: Callable[[Tensors], Any], reason: str) -> None:
    tensors = nvidia_tensors()
    damage(tensors)
    with pytest.raises(LoadError, match=f"nvidia: .*{reason}"):
        load_generator(save({"G_ema": tensors}, tmp_path / "G.pt"))


def test_a_mean_style_far_from_the_mapping_s_is_reported(tmp_path: Path) -> None:
    tensors = nvidia_tensors()
    styles = load_generator(save({"G_ema": tensors}, tmp_path / "a.pt")).module.mapping.sample_w(4_096)  # type: ignore[union-attr,operator]
    right, wrong = dict(tensors), dict(tensors)
    right["mapping.w_avg"], wrong["mapping.w_avg"] = styles.mean(0), styles.mean(0) + 3 * styles.std(0)
    for mean_tensors, is_far in ((right, False), (wrong, True)):
        network = load_generator(save({"G_ema": mean_tensors}, tmp_path / "b.pt"))
        assert ("which is far" in find_assumption(network, "w_avg").note) == is_far
