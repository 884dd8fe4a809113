"""`inspect --emit-model` writes the reading as source, and `--model net.py:G` makes the same samples of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from gandiag.cli.inspect import inspect_command
from torch import Tensor, nn

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.model_source import write_model_source
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

Z = 12


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(Z, 32), nn.BatchNorm1d(32), nn.LeakyReLU(0.2), nn.Linear(32, 48), nn.BatchNorm1d(48)
        )
        self.last = nn.Linear(48, 784)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(nn.functional.leaky_relu(self.body(z.flatten(1)), 0.2)).tanh()


class Dcgan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *(nn.ConvTranspose2d(Z, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False), nn.Tanh()),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z.reshape(len(z), Z, 1, 1))


class UpsampleConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Sequential(nn.Linear(Z, 16 * 16))
        self.conv_blocks = nn.Sequential(
            *(nn.BatchNorm2d(16), nn.Upsample(scale_factor=2), nn.Conv2d(16, 16, 3, padding=1)),
            *(nn.BatchNorm2d(16, 0.8), nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2)),
            *(nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8, 0.8), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(8, 1, 3, padding=1), nn.Tanh()),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.conv_blocks(self.l1(z.flatten(1)).reshape(-1, 16, 4, 4))


class LabelledMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.label_emb = nn.Embedding(5, 5)
        self.model = nn.Sequential(nn.Linear(Z + 5, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64), nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.model(torch.cat([self.label_emb(labels), z], 1))


def save_settled(network: nn.Module, file: Path, classes: int = 0) -> nn.Module:
    network.train()
    with torch.no_grad():
        for _ in range(60):
            labels = (torch.randint(0, classes, (64,)),) if classes else ()
            network(torch.randn(64, Z), *labels)
    torch.save(network.eval().state_dict(), file)
    return network


@pytest.mark.parametrize("family", [Mlp, Dcgan, UpsampleConv])
def test_the_written_module_is_the_network(family: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = save_settled(family(), tmp_path / "net.pt")
    source = tmp_path / "written.py"
    result = CliRunner().invoke(
        inspect_command, [str(tmp_path / "net.pt"), "--emit-model", str(source)], standalone_mode=False
    )
    assert result.return_value == 0, result.output
    loaded = load_generator(tmp_path / "net.pt", AuditConfig(model=f"{source}:G", trust=False))
    assert loaded.latent.dim == Z
    z = torch.randn(7, Z)
    with torch.no_grad():
        want = network(z)
    got = loaded.forward(z.reshape(7, *loaded.latent.shape))
    assert (got - want.reshape(got.shape)).abs().max() <= 1e-5


def test_classes_are_written_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = save_settled(LabelledMlp(), tmp_path / "net.pt", classes=5)
    source = tmp_path / "labelled.py"
    source.write_text(write_model_source(load_generator(tmp_path / "net.pt")))
    config = AuditConfig(model=f"{source}:G", classes=5, condition="index")
    loaded = load_generator(tmp_path / "net.pt", config)
    z, labels = torch.randn(7, Z), torch.arange(7) % 5
    with torch.no_grad():
        want = network(z, labels)
    assert (loaded.forward(z, labels).flatten(1) - want).abs().max() <= 1e-5


def test_names_from_the_file_stay_quoted(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    attack = f"a'), (open({str(mark)!r}, 'w'), \"\"\""
    state = {f"{attack}.{name}": entry for name, entry in Mlp().last.state_dict().items()}
    torch.save(state, tmp_path / "net.pt")
    source = tmp_path / "hostile.py"
    source.write_text(write_model_source(load_generator(tmp_path / "net.pt")))
    compile(source.read_text(), str(source), "exec")
    load_generator(tmp_path / "net.pt", AuditConfig(model=f"{source}:G"))
    assert not mark.exists()


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    torch.save(Mlp().state_dict(), tmp_path / "net.pt")
    (tmp_path / "mine.py").write_text("mine")
    result = CliRunner().invoke(
        inspect_command,
        [str(tmp_path / "net.pt"), "--emit-model", str(tmp_path / "mine.py")],
        standalone_mode=False,
    )
    assert "exists" in str(result.exception) and (tmp_path / "mine.py").read_text() == "mine"


def test_other_networks_are_refused() -> None:
    fixture = Path(__file__).parents[2] / "fixtures" / "families" / "ctgan.pt"
    with pytest.raises(LoadError, match="not written as source"):
        write_model_source(load_generator(fixture))


def make_stack(norm: Callable[[int], nn.Module], act: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        *(nn.Unflatten(1, (Z, 1, 1)), nn.ConvTranspose2d(Z, 16, 4, 1, 0), norm(16), act()),
        *(nn.ConvTranspose2d(16, 8, 4, 2, 1), norm(8), act(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()),
    )


@pytest.mark.parametrize(
    ("hidden", "written"),
    [
        *(("avg-pool", "Resize('avg-pool')"), ("max-pool", "Resize('max-pool')"), ("upsample", "Resize('upsample')")),
        *(("instance", "FixedInstanceNorm()"), ("pixel", "PixelNorm()"), ("layer-after", "FixedLayerNorm()")),
    ],
)
def test_layers_without_weights_are_written(hidden: str, written: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    stack = make_stack(lambda channels: nn.Identity(), nn.ReLU)
    torch.save(stack.state_dict(), tmp_path / "net.pt")
    require_round_trip(tmp_path, AuditConfig(hidden_norm=hidden, prior="normal", activation="relu"))
    assert (tmp_path / "net.py").read_text().count(f"(None, {written})") == 2


@pytest.mark.parametrize(
    ("norm", "act"),
    [
        (lambda channels: nn.GroupNorm(4, channels), nn.ReLU),
        (lambda channels: nn.InstanceNorm2d(channels, affine=True), nn.ReLU),
        (lambda channels: nn.GroupNorm(1, channels), nn.ReLU),
        (nn.BatchNorm2d, nn.PReLU),
    ],
)
def test_affine_norms_and_prelu_are_written(
    norm: Callable[[int], nn.Module], act: Callable[[], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    torch.save(make_stack(norm, act).state_dict(), tmp_path / "net.pt")
    require_round_trip(tmp_path, AuditConfig(prior="normal"))


def test_every_open_reading_is_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(Z, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 24), nn.LayerNorm(24), nn.GELU())
    torch.save(nn.Sequential(*mlp, nn.Linear(24, 6)).state_dict(), tmp_path / "net.pt")
    readings = load_generator(tmp_path / "net.pt", AuditConfig(prior="normal")).open_readings
    assert readings is not None
    for index, reading in enumerate(readings.make()):
        check_source(reading.generator, tmp_path, f"net{index}.py")


def require_round_trip(folder: Path, config: AuditConfig) -> None:
    check_source(load_generator(folder / "net.pt", config), folder, "net.py")


def check_source(reading: LoadedGenerator, folder: Path, name: str) -> None:
    """The module written for a reading makes the reading's samples of the same file."""
    (folder / name).write_text(write_model_source(reading))
    written = load_generator(folder / "net.pt", AuditConfig(model=f"{folder / name}:G", prior="normal"))
    z = torch.randn(4, Z)
    want = reading.forward(z.reshape(4, *reading.latent.shape))
    got = written.forward(z.reshape(4, *written.latent.shape))
    assert torch.equal(got.flatten(1), want.flatten(1))
