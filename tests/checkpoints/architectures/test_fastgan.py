"""FastGAN checkpoints against the forward pass of Liu et al. 2021, written out over plain tensors."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import save

from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

LATENT = 6
WIDTHS = {4: 16, 8: 8, 16: 6, 32: 4, 64: 4, 128: 2, 256: 2, 512: 2, 1024: 2}
NOISY = (8, 32, 128, 512)  # resolutions with two convolutions and noise; all of them in projected-gan


def draw_tensors(
    resolution: int = 256, *, projected: bool = False, last: int | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """A state dict in the order of registration. `last`: the image size, if there are larger maps that are not used."""
    rng = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add_spectral_conv(path: str, *shape: int, transposed: bool = False) -> None:
        """A weight under spectral norm, with the vectors of one power iteration."""
        weight = torch.randn(*shape, generator=rng)
        matrix = (weight.transpose(0, 1) if transposed else weight).flatten(1)
        v = F.normalize(matrix.T @ torch.randn(matrix.shape[0], generator=rng), dim=0)
        state[f"{path}.weight_orig"], state[f"{path}.weight_u"], state[f"{path}.weight_v"] = (
            weight,
            F.normalize(matrix @ v, dim=0),
            v,
        )

    def add_batchnorm(path: str, width: int) -> None:
        for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            state[f"{path}.{name}"] = low + torch.rand(width, generator=rng)
        state[f"{path}.num_batches_tracked"] = torch.tensor(7)

    add_spectral_conv("init.init.0", LATENT, 2 * WIDTHS[4], 4, 4, transposed=True)
    add_batchnorm("init.init.1", 2 * WIDTHS[4])
    for size in [size for size in WIDTHS if 4 < size <= resolution]:
        into, out = WIDTHS[size // 2], WIDTHS[size]
        noisy = size in NOISY or projected
        add_spectral_conv(f"feat_{size}.1", 2 * out, into, 3, 3)
        if noisy:
            state[f"feat_{size}.2.weight"] = torch.rand(1, generator=rng)
        add_batchnorm(f"feat_{size}.{3 if noisy else 2}", 2 * out)
        if noisy:
            add_spectral_conv(f"feat_{size}.5", 2 * out, out, 3, 3)
            state[f"feat_{size}.6.weight"] = torch.rand(1, generator=rng)
            add_batchnorm(f"feat_{size}.7", 2 * out)
    for size in [size for size in (64, 128, 256, 512) if size <= resolution]:
        add_spectral_conv(f"se_{size}.main.1", WIDTHS[size], WIDTHS[size // 16], 4, 4)
        add_spectral_conv(f"se_{size}.main.3", WIDTHS[size], WIDTHS[size], 1, 1)
    if not projected:
        add_spectral_conv("to_128", 3, WIDTHS[128], 1, 1)
    add_spectral_conv("to_big", 3, WIDTHS[last or resolution], 3, 3)
    return state | ({"to_big.bias": torch.rand(3, generator=rng)} if projected else {})


def forward(
    t: dict[str, Tensor], z: Tensor, resolution: int, *, projected: bool = False, noise: dict[str, Tensor] | None = None
) -> Tensor:
    def weight(path: str) -> Tensor:
        w, u, v = (t[f"{path}.weight_{part}"] for part in ("orig", "u", "v"))
        matrix = (w.transpose(0, 1) if path == "init.init.0" else w).flatten(1)
        return w / (u @ matrix @ v)

    def gated(path: str, x: Tensor) -> Tensor:
        mean, var, gain, bias = (
            t[f"{path}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        a, b = ((x - mean) / (var + 1e-5).sqrt() * gain + bias).chunk(2, 1)
        return a * b.sigmoid()

    def add_noise(path: str, x: Tensor) -> Tensor:
        return x if noise is None else x + t[f"{path}.weight"] * noise[path]

    z = z / z.pow(2).mean(1, keepdim=True).sqrt() if projected else z
    maps = {4: gated("init.init.1", torch.einsum("bi,iohw->bohw", z, weight("init.init.0")))}
    for size in [size for size in WIDTHS if 4 < size <= resolution]:
        path, noisy = f"feat_{size}", size in NOISY or projected
        x = F.conv2d(maps[size // 2].repeat_interleave(2, 2).repeat_interleave(2, 3), weight(f"{path}.1"), padding=1)
        x = gated(f"{path}.3", add_noise(f"{path}.2", x)) if noisy else gated(f"{path}.2", x)
        x = gated(f"{path}.7", add_noise(f"{path}.6", F.conv2d(x, weight(f"{path}.5"), padding=1))) if noisy else x
        if f"se_{size}.main.1.weight_orig" in t:
            small = maps[size // 16]
            pooled = small.unflatten(2, (4, -1)).unflatten(4, (4, -1)).mean((3, 5))  # type: ignore[no-untyped-call]
            hidden = torch.einsum("bchw,ochw->bo", pooled, weight(f"se_{size}.main.1"))
            x = x * (F.silu(hidden) @ weight(f"se_{size}.main.3")[:, :, 0, 0].T).sigmoid()[:, :, None, None]
        maps[size] = x
    out = F.conv2d(maps[resolution], weight("to_big"), t.get("to_big.bias"), padding=1)
    return out.tanh() if resolution == 1024 and not projected else out


def z(n: int = 3) -> Tensor:
    return torch.randn(n, LATENT, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("resolution", [256, 512, 1024])
def test_outputs_match_the_paper(tmp_path: Path, resolution: int) -> None:
    tensors = draw_tensors(resolution)
    network = load_generator(
        save({f"module.{name}": entry for name, entry in tensors.items()}, tmp_path, "G.pth"), AuditConfig(noise="none")
    )
    assert (network.subject["family"], network.latent.dim, network.output.shape) == (
        "FastGAN",
        LATENT,
        (3, resolution, resolution),
    )
    samples = network.forward(z(1))
    assert samples.flatten(2).std(2).min() > 1e-3
    assert torch.allclose(samples, forward(tensors, z(1), resolution), atol=1e-5)
    output_range = find_assumption(network, "output_range")
    assert (output_range.value, output_range.source, output_range.origin) == ((-1.0, 1.0), "family", "FastGAN")
    assert output_range.note == ("tanh" if resolution == 1024 else "without tanh, which it has at 1024 pixels only")


def test_noise_enters_where_the_paper_adds_it(tmp_path: Path) -> None:
    tensors = draw_tensors()
    network = load_generator(save(tensors, tmp_path, "G.pth"))
    noise: dict[str, Tensor] = {}
    for part in network.module.modules():
        if isinstance(part, NoiseInput):
            part.register_forward_hook(lambda part, _, image: noise.__setitem__(part.name, image))
    samples = network.forward(z())
    assert sorted(noise) == sorted(
        name.removesuffix(".weight") for name, entry in tensors.items() if entry.shape == (1,) and "feat_" in name
    )
    assert torch.allclose(samples, forward(tensors, z(), 256, noise=noise), atol=1e-5)


@pytest.mark.parametrize("resolution, last", [(256, 256), (256, 128)])
def test_projected_gan_normalizes_z_and_has_no_tanh(tmp_path: Path, resolution: int, last: int) -> None:
    tensors = draw_tensors(resolution, projected=True, last=last)
    tensors |= {} if last == resolution else halve_unused_map(tensors, "feat_256", WIDTHS[256] // 2)
    state = {f"synthesis.{name}": entry for name, entry in tensors.items()}
    network = load_generator(save(state, tmp_path, "G_ema.pth"), AuditConfig(noise="none"))
    assert (network.subject["family"], network.output.shape) == ("FastGAN (projected-gan)", (3, last, last))
    assert torch.allclose(network.forward(z()), forward(tensors, z(), last, projected=True), atol=1e-5)
    assert torch.allclose(network.forward(5 * z()), network.forward(z()), atol=1e-5)


def halve_unused_map(tensors: dict[str, Tensor], path: str, width: int) -> dict[str, Tensor]:
    """The map that is not used, with half the channels, as at every further upsampling."""
    conv_shapes = {
        f"{path}.1.weight_orig": (2 * width, WIDTHS[128], 3, 3),
        f"{path}.1.weight_u": (2 * width,),
        f"{path}.5.weight_orig": (2 * width, width, 3, 3),
        f"{path}.5.weight_u": (2 * width,),
        f"{path}.5.weight_v": (9 * width,),
        "se_256.main.1.weight_orig": (width, WIDTHS[16], 4, 4),
        "se_256.main.1.weight_u": (width,),
        "se_256.main.3.weight_orig": (width, width, 1, 1),
        "se_256.main.3.weight_u": (width,),
        "se_256.main.3.weight_v": (width,),
    }
    norm_shapes = {
        name: (2 * width,)
        for name in tensors
        if name.startswith((f"{path}.3.", f"{path}.7.")) and tensors[name].ndim == 1
    }
    return {name: torch.ones(shape) for name, shape in {**conv_shapes, **norm_shapes}.items()}


def save_checkpoint(folder: Path, *, with_ema: bool) -> str:
    """`all_N.pth` (the average as a list of parameters) or `N.pth` (the average already in g) of the repository."""
    tensors = draw_tensors()
    critic = {"down_from_big.0.weight_orig": torch.ones(8, 3, 3, 3), "rf_big.3.weight_orig": torch.ones(1, 8, 4, 4)}
    content = {"g": {f"module.{name}": entry for name, entry in tensors.items()}, "d": critic}
    if with_ema:
        learned = [
            entry
            for name, entry in tensors.items()
            if not name.endswith(("_u", "_v", "running_mean", "running_var", "num_batches_tracked"))
        ]
        state = {"state": {0: {"exp_avg": torch.ones(2, 2)}}, "param_groups": [{"lr": 2e-4}]}
        content |= {"g_ema": [1.1 * entry for entry in learned], "opt_g": state, "opt_d": state}  # type: ignore[dict-item]
    return save(content, folder, "all_50000.pth" if with_ema else "50000.pth")


def test_an_unnamed_average_is_mapped_by_order(tmp_path: Path) -> None:
    network = load_generator(save_checkpoint(tmp_path, with_ema=True), AuditConfig(noise="none"))
    assert network.subject["weights"].startswith("g_ema (EMA copy; the raw g is there too")
    assert any(
        "g_ema is a list of" in note and "matched by order with g, whose buffers are used" in note
        for note in network.notes
    )
    learned = {
        name: entry
        for name, entry in draw_tensors().items()
        if not name.endswith(("_u", "_v", "running_mean", "running_var", "num_batches_tracked"))
    }
    assert torch.allclose(
        network.forward(z()),
        forward(draw_tensors() | {name: 1.1 * entry for name, entry in learned.items()}, z(), 256),
        atol=1e-5,
    )
    assert network.subject["parameters"] == sum(entry.numel() for entry in learned.values())
    raw = load_generator(save_checkpoint(tmp_path, with_ema=True), AuditConfig(noise="none", weights="raw"))
    assert torch.allclose(raw.forward(z()), forward(draw_tensors(), z(), 256), atol=1e-5)


def test_power_iteration_vectors_are_not_counted_as_parameters() -> None:
    spectral, weighted = (
        make(nn.Linear(3, 4)) for make in (nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm)
    )
    modern = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4))
    for module in (spectral, weighted, modern):
        assert Weights(dict(module.state_dict())).n_parameters == sum(entry.numel() for entry in module.parameters())


def test_assumptions_state_the_repository_s_conventions(tmp_path: Path) -> None:
    network = load_generator(save_checkpoint(tmp_path, with_ema=False))
    averaging, mode = find_assumption(network, "averaging"), find_assumption(network, "bn")
    assert (averaging.value, averaging.source, averaging.origin) == ("ema", "file", "no g_ema")
    assert averaging.note.startswith("the repository copies the average into g")
    assert (mode.value, mode.source) == ("eval", "gandiag") and mode.note.endswith("batch statistics: --bn batch")
    assert find_assumption(network, "noise").value == "const"
    network = load_generator(save_checkpoint(tmp_path, with_ema=True))
    assert "averaging" not in {entry.setting for entry in network.assumptions}


def test_unsupported_and_inconsistent_files_are_refused(tmp_path: Path) -> None:
    conditional = {f"synthesis.{name}": entry for name, entry in draw_tensors(projected=True).items()} | {
        "synthesis.embed.weight": torch.ones(10, LATENT)
    }
    with pytest.raises(LoadError, match="class-conditional FastGAN of projected-gan") as caught:
        load_generator(save(conditional, tmp_path, "G.pth"))
    assert "--model" in caught.value.hint
    with pytest.raises(LoadError, match=r"feat_8\.9\.weight is not part of it|feat_8 does not end with a BatchNorm"):
        load_generator(save(draw_tensors() | {"feat_8.9.weight": torch.ones(1)}, tmp_path, "G.pth"))
    state = draw_tensors()
    mean = next(name for name in state if name.startswith("feat_8.") and name.endswith("running_mean"))
    with pytest.raises(LoadError, match=rf"{re.escape(mean)} is \(\)"):
        load_generator(save(state | {mean: torch.ones(())}, tmp_path, "G.pth"))
    with pytest.raises(LoadError, match="which do not double from 4 on"):
        load_generator(
            save(
                {name: entry for name, entry in draw_tensors().items() if not name.startswith("feat_32.")},
                tmp_path,
                "G.pth",
            )
        )


def test_a_pickled_snapshot_of_projected_gan_is_read_without_its_code(tmp_path: Path) -> None:
    root = nn.Module()
    for name, entry in draw_tensors(projected=True).items():
        part = root
        for step in ("synthesis." + name).split(".")[:-1]:
            if step not in part._modules:
                part.add_module(step, nn.Module())
            part = part.get_submodule(step)
        part.register_buffer(name.rsplit(".", 1)[1], entry)
    (tmp_path / "network-snapshot.pkl").write_bytes(
        pickle.dumps({"G": root, "G_ema": root, "D": None, "training_set_kwargs": {}})
    )
    network = load_generator(tmp_path / "network-snapshot.pkl", AuditConfig(noise="none"))
    assert torch.allclose(
        network.forward(z()), forward(draw_tensors(projected=True), z(), 256, projected=True), atol=1e-5
    )
