"""ReLU and LeakyReLU(0.01) differ by less than the noise of any one layer: the right one, or both as readings."""

from pathlib import Path

import pytest
import torch
from assumption_lookup import find_assumption
from torch import nn

from gandiag.checkpoints.loader import load_generator


def save_network(path: Path, slope: float, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Linear(16, width), nn.BatchNorm1d(width), nn.LeakyReLU(slope)),
        *(nn.Linear(width, width), nn.BatchNorm1d(width), nn.LeakyReLU(slope)),
        *(nn.Linear(width, width), nn.BatchNorm1d(width), nn.LeakyReLU(slope)),
        *(nn.Linear(width, 784), nn.Tanh()),
    )
    with torch.no_grad():
        for _ in range(80):
            net(torch.randn(64, 16))
    torch.save(net.state_dict(), path)


@pytest.mark.parametrize("slope", [0.0, 0.01])
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_wide_layers_decide(slope: float, seed: int, tmp_path: Path) -> None:
    save_network(tmp_path / "net.pt", slope, 384, seed)
    network = load_generator(tmp_path / "net.pt")
    assert find_assumption(network, "activation").value == ("leaky:0.01" if slope else "relu")
    assert network.open_readings is None


@pytest.mark.parametrize("slope", [0.0, 0.01])
def test_narrow_layers_leave_both(slope: float, tmp_path: Path) -> None:
    save_network(tmp_path / "net.pt", slope, 12, 21)
    network = load_generator(tmp_path / "net.pt")
    assert network.open_readings is not None and "activation" in network.open_readings.settings
    texts = {network.open_readings.settings["activation"]}
    texts |= {reading.settings["activation"] for reading in network.open_readings.make()}
    assert {"relu", "leaky:0.01"} <= texts
