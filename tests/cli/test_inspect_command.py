"""gandiag inspect: contents, generator, assumptions and code of a file, without running any of it."""

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


def run_inspect(capsys: pytest.CaptureFixture[str], *argv: str, code: ExitCode = ExitCode.OK) -> tuple[str, str]:
    assert run_command_line(["inspect", *argv]) == code
    output = capsys.readouterr()
    return output.out, output.err


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


def test_summary_of_a_training_dict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run_inspect(capsys, training_dict(tmp_path))
    assert "netG.pth: torch.save, zip format, pickle protocol 2" in out
    assert "netG_ema    state dict  (19 tensors" in out and "arguments (nz=12, lr=0.0002)" in out
    assert "netG_ema (EMA copy; the raw netG is there too: --weights raw)" in out
    assert "12 dimensions, normal prior, shape (B, 12, 1, 1)" in out and "image 3x32x32, range [-1, 1]" in out
    assert "BatchNorm mismatch" in out and out.rstrip().endswith("none")


def test_the_document_and_the_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    file = training_dict(tmp_path, config=Evil(tmp_path / "ran"))
    document = json.loads(run_inspect(capsys, file, "--json", "--hash")[0])
    assert (
        document["schema"] == "gandiag.inspect/1"
        and document["sha256"] == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    )
    assert (
        document["reading"]["latent"] == {"dim": 12, "prior": "normal", "shape": [12, 1, 1]}
        and document["problem"] is None
    )
    assert {entry["source"] for entry in document["reading"]["assumptions"]} <= {
        "shapes",
        "default",
        "batch-norm",
        "file",
        "metadata",
    }
    assert document["code"] == [
        f"would call posix.system('touch {str(tmp_path / 'ran')[:54]}'{'…' if len(str(tmp_path / 'ran')) > 54 else ''})"
    ]
    assert not (tmp_path / "ran").exists()
    assert json.loads(run_inspect(capsys, file, "--json")[0])["sha256"] is None


def test_flags_change_how_a_file_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run_inspect(
        capsys, training_dict(tmp_path), "--weights", "raw", "--activation", "leaky:0.2", "--prior", "uniform"
    )
    assert (
        "netG; its EMA copy netG_ema is there too: --weights ema" in out
        and "leaky:0.2  [as given]" in out
        and "12 dimensions, uniform prior" in out
    )


def test_a_refused_file_is_summarized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run_inspect(capsys, save(critic().state_dict(), tmp_path, "netD.pth"), code=ExitCode.CANNOT_RUN)
    assert "state dict" in out and "looks like a discriminator" in err
    (tmp_path / "e.pkl").write_bytes(pickle.dumps({"G": Evil(tmp_path / "ran"), "x\x1b[2J": 3}))
    out, err = run_inspect(capsys, str(tmp_path / "e.pkl"), code=ExitCode.CANNOT_RUN)
    assert (
        "would call posix.system('touch " in out and "which would run code; refused" in err and "\x1b" not in out + err
    )
    document = json.loads(run_inspect(capsys, str(tmp_path / "e.pkl"), "--json", code=ExitCode.CANNOT_RUN)[0])
    assert document["reading"] is None and "refused" in document["problem"]["what"]
    assert not (tmp_path / "ran").exists()


def test_pickled_modules_and_safetensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save_file

    out, _ = run_inspect(capsys, save({"G": shuffled(DCGAN())}, tmp_path))
    assert "module toy_generators.DCGAN" in out and "would call" not in out.split("would call toy_generators.DCGAN")[0]
    save_file(shuffled(DCGAN()).state_dict(), tmp_path / "g.safetensors", metadata={"format": "pt"})
    out, _ = run_inspect(capsys, str(tmp_path / "g.safetensors"))
    assert "metadata.format" in out and "19 tensors" in out


def test_torch_is_not_imported_for_refused_files(tmp_path: Path) -> None:
    files = {
        "lfs.pt": b"version https://git-lfs.github.com/spec/v1\nsize 3\n",
        "bomb.pkl": b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R.",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        code = (
            "import sys; from gandiag.cli.main import run_command_line; "
            f"code = run_command_line(['inspect', {str(tmp_path / name)!r}]); print(int(code), 'torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout.rstrip().endswith("2 False"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "start"),
    [
        ("healthy.pt", "DCGAN generator, 32 × 32 RGB, z = 32, settled by BatchNorm statistics; the next best fits"),
        ("ring_healthy.pt", "MLP generator, vector of 2, z = 4, read exactly"),
        ("classes_healthy.pt", "MLP generator, vector of 4, z = 14, 33 readings fit; they differ by up to "),
        ("families/mimicry_sngan.pth", "mimicry ResNet generator, 32 × 32 RGB, z = 16, read exactly"),
    ],
)
def test_the_first_line_says_what_it_is_and_how_sure(file: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run_inspect(capsys, str(Path(__file__).parents[2] / "fixtures" / file))
    assert out.splitlines()[0].startswith(start)
