"""gandiag inspect: contents, reading, assumptions and code of a file, told without running any of it."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gandiag.cli.main import run_command_line
from toy_generators import DCGAN, calibrated, critic, normal, save, shuffled

from gandiag.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def inspected(capsys: pytest.CaptureFixture[str], *argv: str, code: ExitCode = ExitCode.OK) -> tuple[str, str]:
    assert run_command_line(["inspect", *argv]) == code
    said = capsys.readouterr()
    return said.out, said.err


def training_dict(folder: Path, **more: Any) -> str:
    net = calibrated(DCGAN(), normal(12))
    optimizer = torch.optim.Adam(net.parameters())
    content = {
        "epoch": 7,
        "netG": shuffled(DCGAN(), 9).state_dict(),
        "netG_ema": net.state_dict(),
        "netD": critic().state_dict(),
        "optimizerG": optimizer.state_dict(),
        "args": argparse.Namespace(nz=12, lr=2e-4),
        **more,
    }
    return save(content, folder)


def test_the_account_of_a_training_dict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = inspected(capsys, training_dict(tmp_path))
    assert "netG.pth: torch.save, zip format, protocol 2" in out
    assert "netG_ema    state dict  (19 tensors" in out and "arguments (nz=12, lr=0.0002)" in out
    assert "netG_ema (EMA copy; the raw netG is there too: --weights raw)" in out
    assert "12, normal, passed as (B, 12, 1, 1)" in out and "image 3x32x32, range [-1, 1]" in out
    assert "batch-norm mismatch" in out and out.rstrip().endswith("none")


def test_the_document_and_the_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    file = training_dict(tmp_path, config=Evil(tmp_path / "ran"))
    found = json.loads(inspected(capsys, file, "--json", "--hash")[0])
    assert (
        found["schema"] == "gandiag.inspect/1"
        and found["sha256"] == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    )
    assert (
        found["reading"]["latent"] == {"dim": 12, "prior": "normal", "shape": [12, 1, 1]} and found["problem"] is None
    )
    assert {entry["source"] for entry in found["reading"]["assumptions"]} <= {
        "shapes",
        "default",
        "batch-norm",
        "file",
        "metadata",
    }
    assert found["code"] == [
        f"would call posix.system('touch {str(tmp_path / 'ran')[:54]}'{'…' if len(str(tmp_path / 'ran')) > 54 else ''})"
    ]
    assert not (tmp_path / "ran").exists()
    assert json.loads(inspected(capsys, file, "--json")[0])["sha256"] is None


def test_flags_say_how_to_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = inspected(
        capsys, training_dict(tmp_path), "--weights", "raw", "--activation", "leaky:0.2", "--prior", "uniform"
    )
    assert (
        "netG; its EMA copy netG_ema is there too: --weights ema" in out
        and "leaky:0.2  [as you say]" in out
        and "12, uniform" in out
    )


def test_a_refusal_is_told_with_what_was_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = inspected(capsys, save(critic().state_dict(), tmp_path, "netD.pth"), code=ExitCode.CANNOT_RUN)
    assert "state dict" in out and "looks like a discriminator" in err
    (tmp_path / "e.pkl").write_bytes(pickle.dumps({"G": Evil(tmp_path / "ran"), "x\x1b[2J": 3}))
    out, err = inspected(capsys, str(tmp_path / "e.pkl"), code=ExitCode.CANNOT_RUN)
    assert (
        "would call posix.system('touch " in out and "which would run code; refused" in err and "\x1b" not in out + err
    )
    document = json.loads(inspected(capsys, str(tmp_path / "e.pkl"), "--json", code=ExitCode.CANNOT_RUN)[0])
    assert document["reading"] is None and "refused" in document["problem"]["what"]
    assert not (tmp_path / "ran").exists()


def test_networks_and_safetensors_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save_file

    out, _ = inspected(capsys, save({"G": shuffled(DCGAN())}, tmp_path))
    assert "module loading.DCGAN" in out and "would call" not in out.split("would call loading.DCGAN")[0]
    save_file(shuffled(DCGAN()).state_dict(), tmp_path / "g.safetensors", metadata={"format": "pt"})
    out, _ = inspected(capsys, str(tmp_path / "g.safetensors"))
    assert "metadata.format" in out and "19 tensors" in out


def test_torch_is_not_loaded_for_what_is_refused(tmp_path: Path) -> None:
    files = {
        "lfs.pt": b"version https://git-lfs.github.com/spec/v1\nsize 3\n",
        "bomb.pkl": b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R.",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        code = f"import sys; from gandiag.cli.main import run_command_line; print(int(run_command_line(['inspect', {str(tmp_path / name)!r}])), 'torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout.rstrip().endswith("2 False"), done.stdout + done.stderr
