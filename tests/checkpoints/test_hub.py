"""hf:owner/name through the real client, against a local server in place of the Hub."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save
from toy_generators import mlp

from gandiag.checkpoints.hub import choose_files, download_checkpoint
from gandiag.errors import LoadError

pytest.importorskip("huggingface_hub")
ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by name, their files by name, and the requests made so far."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""
    status: int = 0  # answer everything with this
    slow: float = 0.0


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, entry in headers.items():
            self.send_header(name.replace("_", "-"), entry)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.hub.slow:
            threading.Event().wait(self.hub.slow)
        if self.hub.status:
            return self.answer(self.hub.status)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.describe("/".join(parts[2:4]), parts[5] if parts[4:5] == ["revision"] else "main")
        files = self.hub.files.get("/".join(parts[:2]), {})
        body = files.get("/".join(parts[4:]))
        if body is None or parts[2:4] != ["resolve", COMMIT]:
            return self.answer(404, X_Error_Code="EntryNotFound")
        self.answer(200, body, ETag=f'"{hashlib.sha256(body).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def describe(self, repo: str, revision: str) -> None:
        if repo not in self.hub.files:
            return self.answer(404, X_Error_Code="RepoNotFound")
        if revision not in ("main", COMMIT):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        description = {
            "id": repo,
            "modelId": repo,
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "downloads": 0,
            "siblings": [{"rfilename": name} for name in self.hub.files[repo]],
        }
        self.answer(200, json.dumps(description).encode(), Content_Type="application/json")


@pytest.fixture(name="hub")
def fake_hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


DOWNLOAD_SCRIPT = """
import json, sys
import gandiag.checkpoints.hub as hub
from gandiag.errors import LoadError
if len(sys.argv) > 2: hub._TIMEOUT = float(sys.argv[2])
try: result = hub.download_checkpoint(sys.argv[1]).path
except LoadError as problem: result = {"what": problem.message, "hint": problem.hint}
print(json.dumps([result]))
assert "torch" not in sys.modules
"""
LOAD_SCRIPT = """
import json, sys
from gandiag.errors import GandiagError
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
results = []
for reference in sys.argv[1].split():
    try:
        network = load_generator(reference)
        assumptions = [[entry.setting, entry.value, entry.source] for entry in network.assumptions]
        results.append({"subject": dict(network.subject), "latent": network.latent.dim, "notes": list(network.notes),
                        "assumptions": assumptions})
    except GandiagError as problem:
        results.append({"what": problem.message, "hint": problem.hint})
print(json.dumps(results))
"""


def download(url: str, home: Path, reference: str, *more: str, **env: str) -> list[dict[str, Any]]:
    return run_client(url, home, reference, *more, code=DOWNLOAD_SCRIPT, **env)


def run_client(
    url: str, home: Path, references: str, *more: str, code: str = LOAD_SCRIPT, **env: str
) -> list[dict[str, Any]]:
    """Results of a script in another process, since the client reads its endpoint when it is imported."""
    inherited = {
        name: entry
        for name, entry in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("HF_")
    }
    variables = {**inherited, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **env}
    done = subprocess.run(
        [sys.executable, "-c", code, references, *more],
        env=variables,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def weights() -> bytes:
    return save({name: entry.contiguous() for name, entry in mlp().state_dict().items()})


def test_weights_and_settings_are_downloaded_and_code_is_not(hub: Hub, tmp_path: Path) -> None:
    model = weights()
    config = json.dumps({"latent_dim": 2, "auto_map": {"AutoModel": "net.Net"}}).encode()
    hub.files["me/gan"] = {
        "model.safetensors": model,
        "config.json": config,
        "net.py": b"raise SystemExit('ran')",
        "README.md": b"hello",
        "pytorch_model.bin": b"\\x80",
        "../outside.json": b"{}",
    }
    hub.files["me/files"] = {"netG_ema.safetensors": model, "netG.safetensors": model, "netD.safetensors": model}
    hub.files["me/two"] = {"a.pt": b"x", "b.pt": b"x"}
    one, pinned, ema, exact, two, none, missing, branch, malformed = run_client(
        hub.url,
        tmp_path,
        f"hf:me/gan hf:me/gan@{COMMIT} hf:me/files hf:me/files/netG.safetensors hf:me/two hf:me/none hf:me/gan/x.pt "
        "hf:me/gan@v2 hf:gan",
    )
    assert one["latent"] == 2 and one["subject"]["path"] == "hf:me/gan" and len(one["subject"]["sha256"]) == 64
    assert ["revision", COMMIT, "hub"] in one["assumptions"] and pinned["assumptions"][0][2] == "flag"
    assert any("config.json refers to code (auto_map)" in note for note in one["notes"])
    assert any("contains code (net.py), which was neither downloaded nor run" in note for note in one["notes"])
    assert ema["latent"] == exact["latent"] == 2
    assert (
        "holds 2 files that could be the generator: a.pt, b.pt" in two["what"]
        and two["hint"] == "choose one: hf:me/two/a.pt"
    )
    for result, message in (
        (none, "no such repository"),
        (missing, "x.pt is not in the repository"),
        (branch, "no such revision"),
        (malformed, "does not name a repository"),
    ):
        assert message in result["what"]
    downloaded = {entry.split("/")[-1] for entry in hub.requests if "/resolve/" in entry}
    assert downloaded == {"model.safetensors", "config.json", "netG_ema.safetensors", "netG.safetensors"}


def test_no_network_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (unreachable,) = download(f"http://127.0.0.1:{free.getsockname()[1]}", tmp_path, "hf:me/gan")
    assert "cannot be reached" in unreachable["what"] and "\\n" not in unreachable["what"]
    (offline,) = download(hub.url, tmp_path, "hf:me/gan", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in offline["what"]
    hub.status = 500
    (broken,) = download(hub.url, tmp_path, "hf:me/gan")
    assert "cannot be downloaded" in broken["what"]
    hub.status, hub.slow = 0, 3.0
    (slow,) = download(hub.url, tmp_path, "hf:me/gan", "0.5")
    assert "did not answer within 0.5 s" in slow["what"]


def test_the_command_line_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    from gandiag.cli.main import run_command_line

    assert run_command_line(["inspect", "hf:no-owner"]) == 2
    assert "does not name a repository of the Hub" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names, wanted, whole",
    [
        (["config.json", "pytorch_model.bin", "model.py"], ["config.json", "pytorch_model.bin"], True),
        (
            [
                "model_index.json",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "unet/diffusion_pytorch_model.bin",
                "x.py",
                "scheduler/scheduler_config.json",
            ],
            [
                "model_index.json",
                "unet/config.json",
                "scheduler/scheduler_config.json",
                "unet/diffusion_pytorch_model.safetensors",
            ],
            True,
        ),
        (["G_ema.pth", "G.pth", "G_optim.pth", "D.pth"], ["G_ema.pth"], False),
        (["generator.onnx", "notes.txt"], ["generator.onnx"], False),
    ],
)
def test_chosen_files(names: list[str], wanted: list[str], whole: bool) -> None:
    assert choose_files(names, None, "hf:a/b", "ema") == (wanted, whole)


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "has no weights at its top level"),
        (["model.safetensors.index.json"], "splits its model"),
        (["x.h5"], "has no weights"),
    ],
)
def test_repositories_without_a_clear_choice(names: list[str], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        choose_files(names, None, "hf:a/b", "ema")
    with pytest.raises(LoadError, match="does not name a repository"):
        download_checkpoint("hf:a/b/c@d e")
