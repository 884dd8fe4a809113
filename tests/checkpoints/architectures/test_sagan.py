"""SAGAN, with the names of its PyTorch version, against the forward pass of Zhang et al. 2019 over plain tensors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from torch import Tensor
from toy_generators import DCGAN, calibrated, normal, save

from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

LATENT, WIDTHS = 10, (64, 32, 16, 8)


def checkpoint(seed: int = 0) -> dict[str, Tensor]:
    """A state dict in the order of registration: l4 first, attention last."""
    rng = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, into, out in (
        ("l4", WIDTHS[2], WIDTHS[3]),
        ("l1", LATENT, WIDTHS[0]),
        ("l2", WIDTHS[0], WIDTHS[1]),
        ("l3", WIDTHS[1], WIDTHS[2]),
    ):
        weight = torch.randn(into, out, 4, 4, generator=rng)
        u = F.normalize(torch.randn(into, generator=rng), dim=0)
        state |= {
            f"{name}.0.module.bias": torch.randn(out, generator=rng),
            f"{name}.0.module.weight_u": u,
            f"{name}.0.module.weight_v": F.normalize(weight.flatten(1).T @ u, dim=0),
            f"{name}.0.module.weight_bar": weight,
        }
        state |= {
            f"{name}.1.{leaf}": low + torch.rand(out, generator=rng)
            for leaf, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5))
        }
        state[f"{name}.1.num_batches_tracked"] = torch.tensor(7)
    state |= {
        "last.0.weight": torch.randn(WIDTHS[3], 3, 4, 4, generator=rng),
        "last.0.bias": torch.randn(3, generator=rng),
    }
    for name, width in (("attn1", WIDTHS[2]), ("attn2", WIDTHS[3])):
        state[f"{name}.gamma"] = torch.randn(1, generator=rng)
        for part, out in (("query", width // 8), ("key", width // 8), ("value", width)):
            state[f"{name}.{part}_conv.weight"] = torch.randn(out, width, 1, 1, generator=rng)
            state[f"{name}.{part}_conv.bias"] = torch.randn(out, generator=rng)
    return state


def paper_forward(state: dict[str, Tensor], z: Tensor) -> Tensor:
    """z (B, D) to images; attention by equations 1 to 3 of the paper, position by position."""
    x = z[:, :, None, None]
    for name, stride, padding in (
        ("l1", 1, 0),
        ("l2", 2, 1),
        ("l3", 2, 1),
        ("attn1", 0, 0),
        ("l4", 2, 1),
        ("attn2", 0, 0),
    ):
        if name.startswith("attn"):
            f, g, h = (
                torch.einsum("oc,bcyx->boyx", state[f"{name}.{part}_conv.weight"][:, :, 0, 0], x).flatten(2)
                + state[f"{name}.{part}_conv.bias"][:, None]
                for part in ("query", "key", "value")
            )
            weights = torch.einsum("bci,bcj->bij", f, g).exp()
            weights = weights / weights.sum(2, keepdim=True)
            x = state[f"{name}.gamma"] * torch.einsum("bij,bcj->bci", weights, h).reshape(x.shape) + x
            continue
        matrix = state[f"{name}.0.module.weight_bar"].flatten(1)
        v = F.normalize(matrix.T @ state[f"{name}.0.module.weight_u"], dim=0)
        sigma = F.normalize(matrix @ v, dim=0) @ matrix @ v
        x = F.conv_transpose2d(
            x, state[f"{name}.0.module.weight_bar"] / sigma, state[f"{name}.0.module.bias"], stride, padding
        )
        moments = state[f"{name}.1.running_mean"], state[f"{name}.1.running_var"]
        x = F.batch_norm(x, *moments, state[f"{name}.1.weight"], state[f"{name}.1.bias"]).relu()
    return F.conv_transpose2d(x, state["last.0.weight"], state["last.0.bias"], 2, 1).tanh()


def test_outputs_match_the_paper(tmp_path: Path) -> None:
    state = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in checkpoint().items()}
    network = load_generator(save(checkpoint(), tmp_path, "900_G.pth"))
    z = torch.randn(6, LATENT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        samples, expected = network.forward(z), paper_forward(state, z.double())
    assert (samples - expected).abs().max() < 1e-5 and float(expected.std()) > 0.1
    assert network.subject["family"] == "SAGAN" and network.output.shape == (3, 64, 64) and network.latent.dim == LATENT
    mode = find_assumption(network, "bn")
    assert (mode.value, mode.source) == ("eval", "gandiag") and "--bn batch" in mode.note


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attn1.gamma": None}, "attn1.gamma is missing"),
        (
            {"attn2.value_conv.weight": torch.ones(8, 4, 1, 1)},
            r"attn2.value_conv.weight is \(8, 4, 1, 1\), and its input is \(8, 32, 32\) per sample",
        ),
        ({"l3.1.extra": torch.ones(3)}, "l3.1.extra is not part of it"),
    ],
)
def test_inconsistent_tensors_are_named(tmp_path: Path, change: dict[str, Tensor | None], reason: str) -> None:
    state = {name: tensor for name, tensor in {**checkpoint(), **change}.items() if tensor is not None}
    with pytest.raises(LoadError, match=reason):
        load_generator(save(state, tmp_path))


def test_the_spectral_norm_wrapper_in_a_sequential_network(tmp_path: Path) -> None:
    """weight_bar / |W v| with v one step further: the largest singular value, if the power iteration has converged."""
    net = calibrated(DCGAN(bias=True), normal(12))
    state, wrapped = dict(net.state_dict()), {}
    for name, tensor in state.items():
        head = re.fullmatch(r"(main\.(?:0|3|6))\.(weight|bias)", name)
        if head is None:
            wrapped[name] = tensor
        elif head[2] == "bias":
            wrapped[f"{head[1]}.module.bias"] = tensor
        else:
            u, s, vh = torch.linalg.svd(tensor.flatten(1), full_matrices=False)
            wrapped |= {
                f"{head[1]}.module.weight_u": u[:, 0],
                f"{head[1]}.module.weight_v": vh[0],
                f"{head[1]}.module.weight_bar": 3 * tensor,
            }
            state[name] = tensor / s[0]
    net.load_state_dict(state)
    network = load_generator(save(wrapped, tmp_path), AuditConfig(activation="relu", bn_eps=1e-5, image_size=32))
    z = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network.forward(z[:, :, None, None]), net(z), atol=1e-5)
