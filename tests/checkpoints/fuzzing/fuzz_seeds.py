"""Small valid files of every type that gandiag reads, for the fuzzer to damage. Each is a folder and a path in it."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import tempfile
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures"
HAS_ONNX = importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxruntime") is not None
HAS_DIFFUSERS = importlib.util.find_spec("diffusers") is not None
_SKIPPED = (".py", "reference.safetensors", "lightweight.safetensors")


@dataclass(frozen=True)
class Seed:
    """`files` by name in one folder; `target`: the path to load ("": the folder); `flags`: AuditConfig settings."""

    files: dict[str, bytes]
    target: str
    flags: dict[str, Any] = field(default_factory=dict)


def seeds() -> dict[str, Seed]:
    """All of them, by name. Cost: a second or two."""
    found: dict[str, Seed] = {}
    for make_seeds in (_containers, _fixtures, _layouts, _pickles, _folders, _programs, _samples, _specs):
        found.update(make_seeds())
    return found


def _containers() -> Iterator[tuple[str, Seed]]:
    """Containers with everything that the reader treats specially."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    extras = {
        "args": Namespace(nz=2),
        "loss": np.float64(1.5),
        "curve": np.arange(3.0),
        "d": defaultdict(list),
        "o": OrderedDict(a=torch.Size([2])),
    }
    critic = nn.Sequential(nn.Linear(2, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1))
    content = {
        "epoch": 3,
        "netG": net.state_dict(),
        "netD": critic.state_dict(),
        "optimizer": torch.optim.Adam(net.parameters()).state_dict(),
        **extras,
    }
    for name, zipped in (("zip", True), ("legacy", False)):
        for kind, whole in (("dict", content), ("module", net)):
            yield f"{name} {kind}", _one(torch_bytes(whole, zipped=zipped), "netG.pt")
    for protocol in (0, 2, 4):
        yield f"pickle {protocol}", _one(pickle.dumps({**content, "netG": net}, protocol), "netG.pkl")
    metadata = json.dumps({"audit": {"latent_dim": 2, "prior": "normal"}, "trained_scale": 1.0, "run": {"step": 3}})
    yield "safetensors", _one(save(net.state_dict(), {"gandiag": metadata}), "g.safetensors")


def _fixtures() -> Iterator[tuple[str, Seed]]:
    root = FIXTURES / "families"
    for entry in sorted(root.iterdir()):
        if entry.is_file() and not entry.name.endswith(_SKIPPED):
            yield f"fixture {entry.name}", _one(entry.read_bytes(), entry.name)
        elif entry.is_dir() and entry.name != "__pycache__" and (entry.name != "ddpm" or HAS_DIFFUSERS):
            files = {
                str(file.relative_to(entry)): file.read_bytes()
                for file in entry.rglob("*")
                if file.is_file() and file.name != "reference.safetensors"
            }
            weights = [name for name in files if name.endswith((".pt", ".bin"))]
            yield f"fixture {entry.name}", Seed(files, weights[0] if weights else "")


def _layouts() -> Iterator[tuple[str, Seed]]:
    """State dicts in the layouts of repositories, from the tests of the architectures."""
    import stylegan2_reference as stylegan2
    import test_biggan as biggan
    import test_class_embedding as embedded
    import test_fastgan as fastgan
    import test_lightweight_gan as lightweight
    import test_progressive_gan as pgan
    import test_r3gan as r3gan
    import test_sagan as sagan
    import test_studiogan as studiogan
    from toy_generators import DCGAN, calibrated, mlp, normal

    for name, options in biggan.KINDS.items():
        yield f"biggan {name}", _state(biggan.PaperBigGan(**options).state, "G_ema.pth")
    for name, options in studiogan.KINDS.items():
        torch.manual_seed(0)
        net = studiogan.train(studiogan.StudioGan(name.split()[0], **options), 1)
        yield f"studiogan {name}", _state({"state_dict": net.state_dict()}, "model=G_ema-best-weights-step=2000.pth")
    yield (
        "rosinality",
        _state(
            {
                "g": stylegan2.rosinality_tensors(5),
                "g_ema": stylegan2.rosinality_tensors(),
                "args": Namespace(size=16),
                "latent_avg": torch.zeros(8),
            },
            "000100.pt",
        ),
    )
    for kind, classes in (("skip", 0), ("resnet", 3), ("orig", 0)):
        yield f"nvidia {kind}", _state({"G_ema": stylegan2.nvidia_tensors(kind, classes)}, "G.pt")
    yield "fastgan", _file(lambda folder: fastgan.save_checkpoint(folder, with_ema=True))
    yield (
        "projected",
        _state({f"synthesis.{name}": entry for name, entry in fastgan.draw_tensors(projected=True).items()}, "G.pt"),
    )
    yield (
        "pgan",
        _file(lambda folder: pgan.checkpoint(folder, pgan.BaseConfig(depthScales=[8, 8, 5], noiseVectorDim=6))),
    )
    for classes in (None, 3):
        yield f"r3gan {classes}", _state(r3gan.draw_tensors(classes), "r3gan.pt")
    yield "sagan", _state(sagan.checkpoint(), "900_G.pth")
    for place, width in (("after", 3), ("times", embedded.LATENT)):
        yield (
            f"embedded {place}",
            _state(
                embedded.trained(embedded.Conditional(place, width, spatial=place == "after")).state_dict(), "netG.pth"
            ),
        )  # type: ignore[arg-type]
    yield "lightweight older", _state(lightweight.draw_tensors(noise=True, size=3, blur=True), "model.pt")
    yield "lightweight upsampled", _state(lightweight.draw_tensors(noise=False, size=2), "model.pt")
    yield "dcgan", _state(calibrated(DCGAN(nz=6, ngf=4), normal(6), batches=3).state_dict(), "netG.pth")
    yield "mlp", _state(calibrated(mlp((4, 8, 8, 2), norm=True), normal(4), batches=3).state_dict(), "netG.pth")
    parts: list[nn.Module] = [
        nn.Linear(5, 64),
        nn.Unflatten(1, (16, 2, 2)),
        nn.BatchNorm2d(16),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(16, 8, 3, 1, 1),
        nn.BatchNorm2d(8, 0.8),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(8, 3, 3, 1, 1),
        nn.Tanh(),
    ]
    yield "upsampled", _state(calibrated(nn.Sequential(*parts), normal(5), batches=3).state_dict(), "netG.pth")
    yield "whole module", _state(nn.Sequential(*parts), "netG.pth")


def _pickles() -> Iterator[tuple[str, Seed]]:
    import stylegan2_reference as stylegan2
    import test_r3gan as r3gan

    content = {
        "G": stylegan2.make_network_pickle(stylegan2.nvidia_tensors("resnet", 3, 5)),
        "D": None,
        "G_ema": stylegan2.make_network_pickle(stylegan2.nvidia_tensors("resnet", 3), lr_multiplier=0.02, clamp=0.7),
    }
    yield "nvidia pickle", _one(pickle.dumps(content), "network-snapshot-000100.pkl")
    yield "r3gan pickle", _file(r3gan.save_snapshot)


def _folders() -> Iterator[tuple[str, Seed]]:
    torch.manual_seed(0)
    net, critic = (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 12)),
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4)),
    )
    config = json.dumps(
        {"architectures": ["Net"], "latent_dim": 4, "auto_map": {"AutoModel": "m--n"}, "lr_mlp": 0.1, "conv_clamp": 3}
    ).encode()
    yield "hub folder", Seed({"config.json": config, "model.safetensors": save(net.state_dict())}, "")
    index = json.dumps(
        {"metadata": {"total_size": 10}, "weight_map": {"0.weight": "model-00001-of-00002.safetensors"}}
    ).encode()
    yield (
        "sharded folder",
        Seed(
            {
                "config.json": config,
                "model.safetensors.index.json": index,
                "model-00001-of-00002.safetensors": save(net.state_dict()),
            },
            "",
        ),
    )
    yield (
        "accelerate folder",
        Seed({"model.safetensors": save(net.state_dict()), "model_1.safetensors": save(critic.state_dict())}, ""),
    )
    whole = torch_bytes(net.state_dict())
    yield "biggan folder", Seed({"G.pth": whole, "G_ema.pth": whole, "state_dict.pth": torch_bytes({"itr": 3})}, "")
    yield "distributed folder", Seed({".metadata": pickle.dumps({"a": 1}), "__0_0.distcp": b"abc"}, "")
    yield (
        "pair",
        Seed(
            {"netG_3.pth": torch_bytes(net.state_dict()), "netD_3.pth": torch_bytes(critic.state_dict())}, "netG_3.pth"
        ),
    )
    state = {"steps": 3, "discriminator": {"adam": [torch.zeros(20)], "buffers": []}}
    recipe = {
        "remedy": "none",
        "recipe": {
            "loss": "minimax",
            "discriminator": {"kind": "mlp", "activation": "relu", "hidden": [4], "norm": False, "scale": 1},
        },
    }
    generator = save(net.state_dict(), {"gandiag": json.dumps({"audit": {"latent_dim": 4}, "run": {"step": 3}})})
    run = {
        "generator.safetensors": generator,
        "state.pt": torch_bytes(state),
        "config.json": json.dumps(recipe).encode(),
    }
    yield "trained folder", Seed(run, "generator.safetensors")


def _programs() -> Iterator[tuple[str, Seed]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the deprecation of TorchScript
        stream = io.BytesIO()
        torch.jit.save(torch.jit.trace(nn.Linear(2, 3), torch.zeros(1, 2)), stream)  # type: ignore[no-untyped-call]
    yield "torchscript", _one(stream.getvalue(), "g.pt")
    parts = {
        "g/archive_format": b"pt2",
        "g/version": b"0",
        "g/models/model.json": b'{"graph_module": {}}',
        "g/data/weights/weight_0": bytes(64),
        "g/data/weights/model_weights_config.json": (
            b'{"config": {"w": {"path_name": "weight_0", "use_pickle": false}}}'
        ),
    }
    yield "pt2", _one(zipped(parts), "g.pt2")
    if HAS_ONNX:
        import test_onnx as graphs

        for name, options in {
            "plain": {},
            "fixed batch": {"batch": 4},
            "index": {"label": "index"},
            "onehot": {"label": "onehot", "layout": "last"},
        }.items():
            yield (
                f"onnx {name}",
                _file(lambda folder, options=options: graphs.save_image_graph(folder / "g.onnx", **options)),
            )  # type: ignore[misc]


def _samples() -> Iterator[tuple[str, Seed]]:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), np.arange(6) % 2
    yield "npy", _file(lambda folder: _numpy(folder / "a.npy", lambda file: np.save(file, images)))
    yield (
        "npz",
        _file(lambda folder: _numpy(folder / "a.npz", lambda file: np.savez(file, images=images, labels=labels))),
    )
    images_by_name = {f"{index}.png": _png(images[index]) for index in range(4)}
    yield (
        "zip of images",
        _file(lambda folder: _numpy(folder / "a.zip", lambda file: file.write(zipped(images_by_name)))),
    )
    yield (
        "npz compressed",
        _file(
            lambda folder: _numpy(folder / "a.npz", lambda file: np.savez_compressed(file, x=rng.normal(size=(6, 3))))
        ),
    )


def _specs() -> Iterator[tuple[str, Seed]]:
    torch.manual_seed(0)
    settings = {
        "latent_dim": 2,
        "prior": "normal",
        "activation": "relu",
        "output_range": [-1, 1],
        "bn_eps": 1e-5,
        "channels": 1,
        "image_size": 2,
    }
    spec = json.dumps(
        {"schema": "gandiag.spec/1", "sha256": "00", "family": "mlp", "weights": "the whole file", "settings": settings}
    ).encode()
    net = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    yield (
        "spec",
        Seed({"netG.pth": torch_bytes(net.state_dict()), "spec.json": spec}, "netG.pth", {"spec": "spec.json"}),
    )
    yield (
        "safetensors of half precision",
        _one(save({name: entry.half() for name, entry in net.state_dict().items()}), "g.safetensors"),
    )


def zipped(parts: dict[str, bytes], compressed: tuple[str, ...] = ()) -> bytes:
    """An archive of stored entries, except for the compressed ones."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # two entries of one name
        for name, content in parts.items():
            archive.writestr(
                zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            )
    return stream.getvalue()


def torch_bytes(content: Any, *, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _one(content: bytes, name: str) -> Seed:
    return Seed({name: content}, name)


def _state(content: Any, name: str) -> Seed:
    return _one(torch_bytes(content), name)


def _file(make: Callable[[Path], str | os.PathLike[str]]) -> Seed:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(make(Path(folder)))
        return _one(path.read_bytes(), path.name)


def _png(image: Any) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


def _numpy(path: Path, write: Callable[[Any], None]) -> Path:
    with path.open("wb") as file:
        write(file)
    return path
