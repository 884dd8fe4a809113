"""FastGAN against the forward of Liu et al. 2021 written out once more, over plain tensors, with the repository's checkpoints."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_generators import save

from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

LATENT = 6
WIDTHS = {4: 16, 8: 8, 16: 6, 32: 4, 64: 4, 128: 2, 256: 2, 512: 2, 1024: 2}
WIDE = (8, 32, 128, 512)  # sides with two convolutions and noise; all of them in projected-gan


def drawn(side: int = 256, *, projected: bool = False, last: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """A state dict in the order of registration; `last`: the side of the picture, where larger maps are there and not used."""
    rng = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}

    def normed(path: str, *shape: int, turned: bool = False) -> None:
        """A weight under spectral norm, its vectors as after a power iteration."""
        weight = torch.randn(*shape, generator=rng)
        matrix = (weight.transpose(0, 1) if turned else weight).flatten(1)
        v = F.normalize(matrix.T @ torch.randn(matrix.shape[0], generator=rng), dim=0)
        found[f"{path}.weight_orig"], found[f"{path}.weight_u"], found[f"{path}.weight_v"] = (
            weight,
            F.normalize(matrix @ v, dim=0),
            v,
        )

    def settled(path: str, width: int) -> None:
        for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            found[f"{path}.{name}"] = low + torch.rand(width, generator=rng)
        found[f"{path}.num_batches_tracked"] = torch.tensor(7)

    normed("init.init.0", LATENT, 2 * WIDTHS[4], 4, 4, turned=True)
    settled("init.init.1", 2 * WIDTHS[4])
    for size in [size for size in WIDTHS if 4 < size <= side]:
        into, out = WIDTHS[size // 2], WIDTHS[size]
        wide = size in WIDE or projected
        normed(f"feat_{size}.1", 2 * out, into, 3, 3)
        if wide:
            found[f"feat_{size}.2.weight"] = torch.rand(1, generator=rng)
        settled(f"feat_{size}.{3 if wide else 2}", 2 * out)
        if wide:
            normed(f"feat_{size}.5", 2 * out, out, 3, 3)
            found[f"feat_{size}.6.weight"] = torch.rand(1, generator=rng)
            settled(f"feat_{size}.7", 2 * out)
    for size in [size for size in (64, 128, 256, 512) if size <= side]:
        normed(f"se_{size}.main.1", WIDTHS[size], WIDTHS[size // 16], 4, 4)
        normed(f"se_{size}.main.3", WIDTHS[size], WIDTHS[size], 1, 1)
    if not projected:
        normed("to_128", 3, WIDTHS[128], 1, 1)
    normed("to_big", 3, WIDTHS[last or side], 3, 3)
    return found | ({"to_big.bias": torch.rand(3, generator=rng)} if projected else {})


def forward(
    t: dict[str, Tensor], z: Tensor, side: int, *, projected: bool = False, noise: dict[str, Tensor] | None = None
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

    def noisy(path: str, x: Tensor) -> Tensor:
        return x if noise is None else x + t[f"{path}.weight"] * noise[path]

    z = z / z.pow(2).mean(1, keepdim=True).sqrt() if projected else z
    maps = {4: gated("init.init.1", torch.einsum("bi,iohw->bohw", z, weight("init.init.0")))}
    for size in [size for size in WIDTHS if 4 < size <= side]:
        path, wide = f"feat_{size}", size in WIDE or projected
        x = F.conv2d(maps[size // 2].repeat_interleave(2, 2).repeat_interleave(2, 3), weight(f"{path}.1"), padding=1)
        x = gated(f"{path}.3", noisy(f"{path}.2", x)) if wide else gated(f"{path}.2", x)
        x = gated(f"{path}.7", noisy(f"{path}.6", F.conv2d(x, weight(f"{path}.5"), padding=1))) if wide else x
        if f"se_{size}.main.1.weight_orig" in t:
            small = maps[size // 16]
            pooled = small.unflatten(2, (4, -1)).unflatten(4, (4, -1)).mean((3, 5))  # type: ignore[no-untyped-call]
            hidden = torch.einsum("bchw,ochw->bo", pooled, weight(f"se_{size}.main.1"))
            x = x * (F.silu(hidden) @ weight(f"se_{size}.main.3")[:, :, 0, 0].T).sigmoid()[:, :, None, None]
        maps[size] = x
    out = F.conv2d(maps[side], weight("to_big"), t.get("to_big.bias"), padding=1)
    return out.tanh() if side == 1024 and not projected else out


def z(n: int = 3) -> Tensor:
    return torch.randn(n, LATENT, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_the_outputs_are_those_of_the_paper(tmp_path: Path, side: int) -> None:
    tensors = drawn(side)
    network = load_generator(
        save({f"module.{name}": entry for name, entry in tensors.items()}, tmp_path, "G.pth"), AuditConfig(noise="none")
    )
    assert (network.subject["family"], network.latent.dim, network.output.shape) == ("FastGAN", LATENT, (3, side, side))
    made = network.forward(z(1))
    assert made.flatten(2).std(2).min() > 1e-3
    assert torch.allclose(made, forward(tensors, z(1), side), atol=1e-5)
    bounded = next(entry.value for entry in network.assumptions if entry.what.startswith("output range"))
    assert bounded == ("[-1, 1], tanh" if side == 1024 else "[-1, 1], without tanh, which it has at 1024 pixels only")


def test_noise_enters_where_the_paper_puts_it(tmp_path: Path) -> None:
    tensors = drawn()
    network = load_generator(save(tensors, tmp_path, "G.pth"))
    pictures: dict[str, Tensor] = {}
    for part in network.module.modules():
        if isinstance(part, NoiseInput):
            part.register_forward_hook(lambda part, _, made: pictures.__setitem__(part.name, made))
    made = network.forward(z())
    assert sorted(pictures) == sorted(
        name.removesuffix(".weight") for name, entry in tensors.items() if entry.shape == (1,) and "feat_" in name
    )
    assert torch.allclose(made, forward(tensors, z(), 256, noise=pictures), atol=1e-5)


@pytest.mark.parametrize("side, last", [(256, 256), (256, 128)])
def test_projected_gan_normalises_z_and_ends_without_tanh(tmp_path: Path, side: int, last: int) -> None:
    tensors = drawn(side, projected=True, last=last)
    tensors |= {} if last == side else narrowed(tensors, "feat_256", WIDTHS[256] // 2)
    state = {f"synthesis.{name}": entry for name, entry in tensors.items()}
    network = load_generator(save(state, tmp_path, "G_ema.pth"), AuditConfig(noise="none"))
    assert (network.subject["family"], network.output.shape) == ("FastGAN (projected-gan)", (3, last, last))
    assert torch.allclose(network.forward(z()), forward(tensors, z(), last, projected=True), atol=1e-5)
    assert torch.allclose(network.forward(5 * z()), network.forward(z()), atol=1e-5)


def narrowed(tensors: dict[str, Tensor], path: str, width: int) -> dict[str, Tensor]:
    """The map that is not used, of half the width: as every further doubling has it."""
    fresh = {
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
    norms = {
        name: (2 * width,)
        for name in tensors
        if name.startswith((f"{path}.3.", f"{path}.7.")) and tensors[name].ndim == 1
    }
    return {name: torch.ones(shape) for name, shape in {**fresh, **norms}.items()}


def checkpoint(folder: Path, *, everything: bool) -> str:
    """`all_N.pth` and `N.pth` of the repository: the average as a list of parameters, or already inside g."""
    tensors = drawn()
    critic = {"down_from_big.0.weight_orig": torch.ones(8, 3, 3, 3), "rf_big.3.weight_orig": torch.ones(1, 8, 4, 4)}
    content = {"g": {f"module.{name}": entry for name, entry in tensors.items()}, "d": critic}
    if everything:
        learned = [
            entry
            for name, entry in tensors.items()
            if not name.endswith(("_u", "_v", "running_mean", "running_var", "num_batches_tracked"))
        ]
        state = {"state": {0: {"exp_avg": torch.ones(2, 2)}}, "param_groups": [{"lr": 2e-4}]}
        content |= {"g_ema": [1.1 * entry for entry in learned], "opt_g": state, "opt_d": state}  # type: ignore[dict-item]
    return save(content, folder, "all_50000.pth" if everything else "50000.pth")


def test_an_average_without_names_is_mapped_by_order(tmp_path: Path) -> None:
    network = load_generator(checkpoint(tmp_path, everything=True), AuditConfig(noise="none"))
    assert network.subject["weights"].startswith("g_ema (EMA copy; the raw g is there too")
    assert any(
        "g_ema is a list of" in note and "mapped by order onto g; its buffers come from there" in note
        for note in network.notes
    )
    learned = {
        name: entry
        for name, entry in drawn().items()
        if not name.endswith(("_u", "_v", "running_mean", "running_var", "num_batches_tracked"))
    }
    assert torch.allclose(
        network.forward(z()),
        forward(drawn() | {name: 1.1 * entry for name, entry in learned.items()}, z(), 256),
        atol=1e-5,
    )
    assert network.subject["parameters"] == sum(entry.numel() for entry in learned.values())
    raw = load_generator(checkpoint(tmp_path, everything=True), AuditConfig(noise="none", weights="raw"))
    assert torch.allclose(raw.forward(z()), forward(drawn(), z(), 256), atol=1e-5)


def test_vectors_of_power_iterations_are_no_parameters_and_those_of_weight_norm_are() -> None:
    spectral, weighted = (
        make(nn.Linear(3, 4)) for make in (nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm)
    )
    modern = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4))
    for module in (spectral, weighted, modern):
        assert Weights(dict(module.state_dict())).n_parameters == sum(entry.numel() for entry in module.parameters())


def test_the_file_explains_itself(tmp_path: Path) -> None:
    told = {entry.what: entry.value for entry in load_generator(checkpoint(tmp_path, everything=False)).assumptions}
    assert told["averaging"].startswith("the repository puts the average into g")
    assert told["batch norm (--bn)"].endswith("samples by the batch's own: --bn batch")
    assert told["noise inputs (--noise)"].startswith("const")
    assert "averaging" not in {
        entry.what for entry in load_generator(checkpoint(tmp_path, everything=True)).assumptions
    }


def test_what_is_not_rebuilt_says_so(tmp_path: Path) -> None:
    labelled = {f"synthesis.{name}": entry for name, entry in drawn(projected=True).items()} | {
        "synthesis.embed.weight": torch.ones(10, LATENT)
    }
    with pytest.raises(LoadError, match="class-conditional FastGAN of projected-gan") as caught:
        load_generator(save(labelled, tmp_path, "G.pth"))
    assert "--model" in caught.value.hint
    with pytest.raises(LoadError, match=r"feat_8\.9\.weight is not part of it|feat_8 does not end with a batch norm"):
        load_generator(save(drawn() | {"feat_8.9.weight": torch.ones(1)}, tmp_path, "G.pth"))
    state = drawn()
    mean = next(name for name in state if name.startswith("feat_8.") and name.endswith("running_mean"))
    with pytest.raises(LoadError, match=rf"{re.escape(mean)} is \(\)"):
        load_generator(save(state | {mean: torch.ones(())}, tmp_path, "G.pth"))
    with pytest.raises(LoadError, match="which do not double from 4 on"):
        load_generator(
            save({name: entry for name, entry in drawn().items() if not name.startswith("feat_32.")}, tmp_path, "G.pth")
        )


def test_a_pickled_snapshot_of_projected_gan_is_read_without_its_code(tmp_path: Path) -> None:
    root = nn.Module()
    for name, entry in drawn(projected=True).items():
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
    assert torch.allclose(network.forward(z()), forward(drawn(projected=True), z(), 256, projected=True), atol=1e-5)
