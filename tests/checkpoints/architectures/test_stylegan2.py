"""What all layouts of StyleGAN2 share: containers, --strict, truncation and noise in audits, damaged files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from safetensors.torch import save_file
from stylegan2_reference import (
    W_DIM,
    Z_DIM,
    Tensors,
    assert_close,
    draw,
    nvidia_forward,
    nvidia_tensors,
    rosinality_forward,
    rosinality_tensors,
    save,
)
from torch import Tensor

from gandiag.api import audit
from gandiag.checkpoints.architectures import stylegan2_lucidrains, stylegan2_nvidia, stylegan2_rosinality
from gandiag.checkpoints.architectures.layers.linear_attention import LinearAttention
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.state_dict import Weights, cast_to_float32, find_generator_weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

LUCIDRAINS = Path(__file__).resolve().parents[3] / "fixtures" / "families" / "stylegan2" / "model_3.pt"


@pytest.mark.parametrize(
    "tensors, forward", [(rosinality_tensors, rosinality_forward), (nvidia_tensors, nvidia_forward)]
)
def test_bare_wrapped_sorted_and_half_precision_files_give_the_same_outputs(
    tmp_path: Path, tensors: Callable[[], Tensors], forward: Callable[..., Tensor]
) -> None:
    state = tensors()
    z = draw(9)(2, W_DIM if tensors is rosinality_tensors else Z_DIM)
    save_file({name: entry.clone() for name, entry in state.items()}, tmp_path / "a.safetensors")
    paths = [
        save(state, tmp_path / "b.pt"),
        save({f"module.{name}": entry for name, entry in state.items()}, tmp_path / "c.pt"),
        tmp_path / "a.safetensors",
    ]
    for path in paths:
        assert_close(load_generator(path).forward(z), forward(state, z))
    half = {name: entry.half() for name, entry in state.items()}
    assert_close(
        load_generator(save(half, tmp_path / "d.pt")).forward(z),
        forward({name: entry.float() for name, entry in half.items()}, z),
    )


@pytest.mark.parametrize("tensors", [rosinality_tensors, nvidia_tensors])
def test_strict_requires_what_neither_file_nor_flag_states(tmp_path: Path, tensors: Callable[[], Tensors]) -> None:
    path = save({"g_ema": tensors()}, tmp_path / "m.pt")
    with pytest.raises(LoadError, match=r"allows no assumptions: .*output range") as caught:
        load_generator(path, AuditConfig(strict=True))
    assert caught.value.hint == "give --prior, --output-range"
    (tmp_path / "config.json").write_text('{"conv_clamp": 256, "lr_mlp": 0.01}')
    network = load_generator(path, AuditConfig(strict=True, output_range=(0.0, 1.0), prior="uniform"))
    output_range, prior = find_assumption(network, "output_range"), find_assumption(network, "prior")
    assert network.output.range == output_range.value == (0.0, 1.0) and output_range.source == "flag"
    assert network.latent.prior == prior.value == "uniform" and prior.note.startswith("only its direction matters")


# whole audits


def test_an_audit_sweeps_psi_and_measures_the_noise(tmp_path: Path) -> None:
    path = save({"g_ema": rosinality_tensors(), "latent_avg": draw(3)(W_DIM)}, tmp_path / "m.pt")
    record = audit(path, n=128, features="pixels", psi=0.7, noise="random", device="cpu")
    assert record.response["axis"] == "psi" and "z is normalized" in record.response["reason"]
    points = {point["psi"]: point for point in record.response["points"]}
    assert points[1.0]["spread"] == 1.0 and points[0.25]["spread"] < points[0.5]["spread"] < points[0.7]["spread"] < 1
    share = record.measurements["noise_share"]
    assert share.value is not None and 0 < share.value < 1 and share.better == "lower"
    assert record.subject["latent"]["psi"] == 0.7 and record.subject["latent"]["noise"] == "random"
    sources = {entry["setting"]: entry["source"] for entry in record.subject["assumptions"]}
    assert sources["psi"] == sources["noise"] == "flag"
    assert "noise inputs alone, at a fixed latent" in str(record) and "psi" in str(record)


def test_samples_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    from gandiag.sampling.sampler import Sampler

    network = load_generator(save({"g_ema": rosinality_tensors()}, tmp_path / "m.pt"), AuditConfig(noise="random"))
    whole = Sampler(network, device="cpu").sample(6, seed=2)
    assert torch.allclose(Sampler(network, device="cpu", batch_size=2).sample(6, seed=2), whole, atol=1e-5)
    assert (whole - Sampler(network, device="cpu").sample(6, seed=3)).abs().max() > 0.1


# damaged files


def lucidrains_tensors() -> Tensors:
    return dict(cast_to_float32(find_generator_weights(torch.load(LUCIDRAINS, weights_only=True))).tensors)


FAMILIES = {
    "rosinality": (stylegan2_rosinality.rebuild, rosinality_tensors),
    "nvidia": (stylegan2_nvidia.rebuild, lambda: nvidia_tensors("resnet", 3)),
    "lucidrains": (stylegan2_lucidrains.rebuild, lucidrains_tensors),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_tensors_raise_architecture_mismatch(family: str) -> None:
    """Each tensor in turn missing, empty, flattened, integer, or duplicated under a large index: no other error."""
    rebuild, tensors = FAMILIES[family]
    whole = tensors()
    for name in [name for name in whole if name != "mapping.w_avg"][:: max(1, len(whole) // 10)]:
        rest, entry = {key: value for key, value in whole.items() if key != name}, whole[name]
        far = re.sub(r"\d+", "99999999", name)
        others = [torch.zeros(0), entry.long(), *([entry.flatten()] if entry.ndim != 1 else [])]
        for damaged in [
            rest,
            *({**rest, name: other} for other in others),
            *([{**whole, far: entry}] if far != name else []),
        ]:
            with pytest.raises(ArchitectureMismatch):
                rebuild(Weights(damaged), AuditConfig())


# attention of the package stylegan2-pytorch


def test_linear_attention_matches_the_equation() -> None:
    torch.manual_seed(0)
    layer, x = LinearAttention(6, 128), torch.randn(2, 6, 5, 4)
    heads = []
    depthwise, pointwise = layer.to_kv.net
    keys_values, queries = pointwise(depthwise(x)), layer.to_q(x)
    for head in range(2):
        part = slice(64 * head, 64 * head + 64)
        q, k, v = (
            entry.flatten(2).transpose(1, 2)
            for entry in (queries[:, part], keys_values[:, :128][:, part], keys_values[:, 128:][:, part])
        )  # (B, N, 64)
        heads.append(q.softmax(2) / 8 @ (k.softmax(1).transpose(1, 2) @ v))
    expected = layer.to_out(F.gelu(torch.cat(heads, 2).transpose(1, 2).reshape(2, 128, 5, 4)))
    assert torch.allclose(layer(x), expected, atol=1e-6)
