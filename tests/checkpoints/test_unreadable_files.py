"""Bad files, each actually created: a precise message, a hint, and nothing in the file is run."""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toy_generators import DCGAN, critic, mlp, save, shuffled

from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 117073189\n"


def load_error(path: str | Path, config: AuditConfig | None = None) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load_generator(path, config)
    assert caught.value.hint and "\n" not in caught.value.message
    return caught.value


def write_file(folder: Path, content: bytes, name: str = "ckpt.pt") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    "content, message, hint",
    [
        (
            LFS,
            f"ckpt.pt is a Git LFS pointer ({len(LFS)} bytes), not weights: the real file of 117073189 bytes was never "
            "downloaded",
            "git lfs pull",
        ),
        (
            b"<!DOCTYPE html><html><body>Sign in</body></html>",
            "ckpt.pt is a web page, not weights",
            "download the file again",
        ),
        (b"\n\n  <html>", "ckpt.pt is a web page", "download"),
        (
            b'{"error": "Not Found"}',
            'ckpt.pt is JSON text, not weights (it begins with "{?error?: ?Not Found?}")',
            "download",
        ),
        (b"", "ckpt.pt is empty (0 bytes)", "again"),
        (b"hello there\n", "ckpt.pt is a text file", "checkpoint"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "ckpt.pt is an HDF5 file", "samples.npy"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:" + bytes(64), "ckpt.pt is a damaged ONNX file", "export it again"),
        (b"\x93NUMPY\x01\x00" + bytes(64), "ckpt.pt is a numpy array: samples", "npz"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "ckpt.pt is an image", "checkpoint"),
        (bytes(257) + b"ustar" + bytes(300), "ckpt.pt is a tar archive", "unpack"),
        (b"\x1f\x8b\x08" + bytes(64), "ckpt.pt is gzip-compressed", "gunzip -k ckpt.pt"),
        (
            b"\xff\xfe\x00\x01" + bytes(64),
            "ckpt.pt is not a checkpoint format that gandiag knows (it starts with the bytes ff fe 00 01)",
            "safetensors",
        ),
        ((900).to_bytes(8, "little") + b'{"a":', "ckpt.pt ends early at 13 bytes", "copy"),
    ],
)
def test_files_that_are_not_checkpoints(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    error = load_error(write_file(tmp_path, content))
    assert error.message.startswith(message) and hint in error.hint


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert "does not exist" in load_error(tmp_path / "none.pt").message
    (tmp_path / "a").mkdir()
    assert "a is an empty folder" in load_error(tmp_path / "a").message
    (tmp_path / "a" / "read.me").write_text("")
    assert "is a folder without a checkpoint" in load_error(tmp_path / "a").message


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files(tmp_path: Path, share: float, zipped: bool) -> None:
    torch.save(DCGAN().state_dict(), tmp_path / "g.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "g.pt").read_bytes()
    error = load_error(write_file(tmp_path, whole[: int(share * len(whole))]))
    assert re.search("ends early|cut short|cannot be read|damaged", error.message) and "copy it again" in error.hint


def test_truncated_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(mlp().state_dict(), tmp_path / "whole.pt")
    error = load_error(write_file(tmp_path, (tmp_path / "whole.pt").read_bytes()[:-40]))
    assert "damaged safetensors" in error.message


# code


class Marker:
    """Unpickling it would create a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_beside_weights_does_not_run(tmp_path: Path, zipped: bool) -> None:
    marker, net = tmp_path / "ran", shuffled(DCGAN()).eval()
    torch.save(
        {"netG": net.state_dict(), "config": Marker(str(marker))},
        tmp_path / "g.pt",
        _use_new_zipfile_serialization=zipped,
    )
    network = load_generator(tmp_path / "g.pt")
    assert not marker.exists()
    assert network.notes == ("the file contains code that was not run: posix.system",)
    z = torch.randn(4, 12, 1, 1)
    with torch.no_grad():
        assert torch.equal(network.forward(z), net(z))


def test_code_without_weights_is_load_error(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    error = load_error(save({"config": Marker(str(marker)), "epoch": 3}, tmp_path))
    assert not marker.exists()
    assert "system" in error.message and "would run code; refused" in error.message
    assert all(option in error.hint for option in ("--model", "--trust", "export"))


def test_plain_pickles_do_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for protocol in range(2, 6):
        error = load_error(write_file(tmp_path, pickle.dumps({"G": Marker(str(marker))}, protocol=protocol)))
        assert not marker.exists() and "system" in error.message


def test_a_pickled_module_runs_its_own_code_only_under_trust(tmp_path: Path) -> None:
    net = shuffled(DCGAN()).eval()
    file = save(net, tmp_path)
    z = torch.randn(4, 12)
    network = load_generator(file, AuditConfig(trust=True, latent_dim=12))
    with torch.no_grad():
        assert torch.equal(network.forward(z), net(z))
    assert type(network.module).__name__ == "DCGAN" and any("by --trust" in note for note in network.notes)
    network = load_generator(file)
    assert type(network.module).__name__ == "SequentialGenerator" and network.notes == (
        "the file contains code that was not run: toy_generators.DCGAN",
    )
    both = save({"netG": shuffled(DCGAN(), 3), "netG_ema": net, "netD": critic()}, tmp_path)
    with torch.no_grad():
        assert torch.equal(load_generator(both, AuditConfig(trust=True)).forward(z), net(z))
        assert torch.equal(load_generator(both).forward(z[:, :, None, None]), net(z))


def test_trust_is_not_a_fallback_for_damage(tmp_path: Path) -> None:
    whole = Path(save(DCGAN().state_dict(), tmp_path)).read_bytes()
    assert "ends early" in load_error(write_file(tmp_path, whole[:-200]), AuditConfig(trust=True)).message


def test_torchscript_needs_trust_and_writes_no_marker(tmp_path: Path) -> None:
    # In another process: torch.jit announces its deprecation, and the marker must not depend on this process.
    marker, file = tmp_path / "marker.pt", tmp_path / "g.pt"
    script = f"""
import torch, warnings
warnings.simplefilter("ignore")
from torch import nn
class Sneaky(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.ones(2, 6)
    def forward(self, z):
        return z @ self.w.T
    @torch.jit.export
    def __getstate__(self):
        return (self.w, self.training)
    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.w = state[0]
        self.training = state[1]
        torch.save(state[0], {str(marker)!r})
torch.jit.script(Sneaky()).save({str(file)!r})
"""
    (tmp_path / "sneaky.py").write_text(script)  # torch.jit reads the source
    subprocess.run([sys.executable, tmp_path / "sneaky.py"], check=True, capture_output=True, timeout=120)
    error = load_error(file)
    assert error.message == "g.pt is a TorchScript program: loading it runs code from the file"
    assert "--trust" in error.hint and "sha256" in error.hint and not marker.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (
            "--latent-dim N" in load_error(file, AuditConfig(trust=True)).hint
        )  # its weight is not a parameter: nothing to infer it from
        network = load_generator(file, AuditConfig(trust=True, latent_dim=6))
    assert network.forward(torch.ones(3, 6)).tolist() == [[6.0, 6.0]] * 3
    assert marker.exists()  # the attack is real


def test_exported_programs_need_trust(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "g.pt2", "w") as archive:
        archive.writestr("g/archive_format", "pt2")
        archive.writestr("g/models/model.json", "{}")
    assert "is a torch.export program (.pt2): loading it runs code" in load_error(tmp_path / "g.pt2").message


# bombs


def test_a_stride_0_tensor_is_a_bomb(tmp_path: Path) -> None:
    bomb = {"main.0.weight": torch.zeros(1).expand(10**6, 10**6)}
    error = load_error(save(bomb, tmp_path))
    assert error.message == 'tensor "main.0.weight" claims 3.6 TiB but stores 4 bytes: malformed or hostile'


def test_meta_and_sparse_tensors_are_load_error(tmp_path: Path) -> None:
    assert (
        "claims 3.6 TiB but stores none"
        in load_error(save({"a.weight": torch.empty(10**6, 10**6, device="meta")}, tmp_path)).message
    )
    error = load_error(save({"a.weight": torch.eye(8).to_sparse()}, tmp_path))
    assert "not dense" in error.message


def test_compressed_entries_are_load_error(tmp_path: Path) -> None:
    source = save({"main.0.weight": torch.zeros(1000, 1000)}, tmp_path)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    assert "holds compressed entries" in load_error(tmp_path / "b.pt").message


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R.", "reserves memory"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "memo index 2147483647"),
        (b"\x80\x02\x82\x01.", "extension codes"),
        (b"\x80\x02X\xff\xff\xff\x7fabc", "cut short or damaged"),
    ],
)
def test_hostile_pickles_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in load_error(write_file(tmp_path, content)).message


# readable, but not a generator


def test_a_discriminator(tmp_path: Path) -> None:
    save(DCGAN().state_dict(), tmp_path, "netG_epoch_24.pth")
    error = load_error(save(critic().state_dict(), tmp_path, "netD_epoch_24.pth"))
    assert (
        error.message
        == "netD_epoch_24.pth looks like a discriminator: its first layer takes 3 channels and its last emits 1 value"
    )
    assert error.hint == "generators in the same folder: netG_epoch_24.pth"
    assert "discriminator" in load_error(save(mlp((2, 64, 64, 1)).state_dict(), tmp_path)).message
    assert "netD, which is not a generator" in load_error(save({"netD": critic().state_dict()}, tmp_path)).message


def test_optimizer_and_bookkeeping_files(tmp_path: Path) -> None:
    net = DCGAN()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 12)).sum().backward()
    optimizer.step()
    assert "holds optimizer state" in load_error(save(optimizer.state_dict(), tmp_path)).message
    assert (
        "holds optimizer state"
        in load_error(save({"optimizerG": optimizer.state_dict(), "epoch": 3}, tmp_path)).message
    )
    error = load_error(
        save({"itr": 3, "epoch": 1, "best_FID": np.float64(12.5), "args": argparse.Namespace(a=1)}, tmp_path)
    )
    assert "training bookkeeping (itr, epoch, best_FID, args)" in error.message
    assert "one tensor of shape (3, 4)" in load_error(save(torch.zeros(3, 4), tmp_path)).message


def test_an_image_to_image_network(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh())
    error = load_error(save(net.state_dict(), tmp_path))
    assert "looks like an image-to-image network: it takes an image of 3 channels" in error.message


def test_several_generators_are_listed(tmp_path: Path) -> None:
    file = save({"netG_A": DCGAN().state_dict(), "netG_B": DCGAN().state_dict()}, tmp_path)
    error = load_error(file)
    assert (
        "2 networks that could be the generator: netG_A (" in error.message and error.hint == "choose one: --key netG_A"
    )
    assert load_generator(file, AuditConfig(key="netG_B")).subject["weights"] == "netG_B (by --key)"
    error = load_error(file, AuditConfig(key="netG_C"))
    assert "no weights at 'netG_C'" in error.message and "did you mean netG_" in error.hint
    unnamed = save({"first": DCGAN().state_dict(), "second": DCGAN().state_dict()}, tmp_path)
    assert "first (" in load_error(unnamed).message


def test_the_weights_contradict_the_latent_size(tmp_path: Path) -> None:
    file = save(DCGAN(nz=100, ngf=2).state_dict(), tmp_path)
    error = load_error(file, AuditConfig(latent_dim=128))
    assert error.message == "--latent-dim 128 contradicts the weights: main.0.weight is (100, 8, 4, 4), so it is 100"
    assert error.hint == "Remove --latent-dim."
    assert "--classes 8 --condition concat" in load_error(file, AuditConfig(latent_dim=92)).hint
    assert "--channels 1 contradicts the weights, which output 3" in load_error(file, AuditConfig(channels=1)).message


def test_unknown_architectures_name_the_option(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8), nn.Linear(8, 4))
    error = load_error(save(net.state_dict(), tmp_path))
    assert (
        "5 tensors but no architecture that gandiag can rebuild" in error.message
        and "--model pkg.mod:factory" in error.hint
    )


def test_weights_that_are_not_finite_still_load(tmp_path: Path) -> None:
    # The metrics report non-finite samples.
    for net in (DCGAN(), mlp((4, 16, 16, 2), norm=True)):
        state = {
            key: torch.full_like(entry, float("nan")) if entry.is_floating_point() else entry
            for key, entry in net.state_dict().items()
        }
        assert load_generator(save(state, tmp_path)).subject["loader"] == "torch-zip"


def test_damaged_state_dicts_never_crash(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    base = {**mlp((4, 16, 16, 2), norm=True).state_dict()}
    shapes: list[tuple[int, ...]] = [
        (),
        (0,),
        (3,),
        (0, 4),
        (4, 0),
        (2, 2),
        (1, 1, 1, 1),
        (0, 2, 4, 4),
        (2, 3, 4, 5),
        (2, 2, 2),
        (16, 2, 4, 4),
    ]
    for _ in range(120):
        state = dict(base)
        for _ in range(int(torch.randint(1, 4, (1,), generator=rng))):
            key = list(state)[int(torch.randint(len(state), (1,), generator=rng))]
            choice = int(torch.randint(len(shapes) + 2, (1,), generator=rng))
            if choice < len(shapes):
                state[key] = torch.zeros(shapes[choice])
            elif choice == len(shapes):
                del state[key]
            else:
                state[key] = state[key].to(torch.int64)
        with contextlib.suppress(LoadError):
            load_generator(save(state, tmp_path))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_flipped_bytes_never_crash(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import save_file

    state = mlp((2, 6, 2)).state_dict()
    if kind == "safetensors":
        save_file(state, tmp_path / "g")
    else:
        torch.save(state, tmp_path / "g", _use_new_zipfile_serialization=kind == "zip")
    whole = (tmp_path / "g").read_bytes()
    rng = torch.Generator().manual_seed(1)
    for _ in range(80):
        damaged = bytearray(whole)
        for place in torch.randint(len(whole), (3,), generator=rng).tolist():
            damaged[place] = int(torch.randint(256, (1,), generator=rng))
        with contextlib.suppress(LoadError):
            load_generator(write_file(tmp_path, bytes(damaged)))


def test_terminal_codes_in_a_file_are_not_printed(tmp_path: Path) -> None:
    error = load_error(write_file(tmp_path, pickle.dumps({}, 2)[:2] + b"cevil\x1b[31m\nclass\n)R."))
    assert "\x1b" not in str(error)
    keys = {"\x1b[2Jfirst": DCGAN().state_dict(), "second": DCGAN().state_dict()}
    assert "\x1b" not in str(load_error(save(keys, tmp_path)))


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "legacy.pt"])
def test_a_file_that_is_saved_over_while_it_is_in_use_ends_nothing(tmp_path: Path, suffix: str) -> None:
    """A training saves over its checkpoint in place; a memory map of it ended the process with SIGBUS."""
    path = tmp_path / f"G.{suffix}"
    weights = {name: value.clone() for name, value in mlp().state_dict().items()}
    if suffix == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=suffix == "pt")
    code = """
import os, sys, torch
from gandiag.checkpoints.readers import read_checkpoint
from gandiag.checkpoints.tensor_checks import iter_tensors
contents = read_checkpoint(sys.argv[1])
before = [tensor.double().sum().item() for _, tensor in iter_tensors(contents.tree)]
os.truncate(sys.argv[1], 1)
assert before and before == [tensor.double().sum().item() for _, tensor in iter_tensors(contents.tree)]
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
