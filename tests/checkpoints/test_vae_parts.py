"""The decoder of a variational autoencoder, in a state dict that holds the encoder too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.vae_parts import find_decoder_heads, find_unnamed_decoder
from gandiag.config import AuditConfig

Z = 6


class ConvVae(nn.Module):
    """Parts beside each other, as in AntixK's PyTorch-VAE."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU()))
        self.fc_mu, self.fc_var = nn.Linear(128, Z), nn.Linear(128, Z)
        self.decoder_input = nn.Linear(Z, 16 * 4)
        self.decoder = nn.Sequential(self._up(16, 8))
        self.final_layer = nn.Sequential(
            *self._up(8, 8), nn.Conv2d(8, out_channels=3, kernel_size=3, padding=1), nn.Tanh()
        )

    @staticmethod
    def _up(width: int, out: int) -> nn.Sequential:
        return nn.Sequential(nn.ConvTranspose2d(width, out, 3, 2, 1, 1), nn.BatchNorm2d(out), nn.LeakyReLU())

    def decode(self, z: Tensor) -> Tensor:
        out: Tensor = self.final_layer(self.decoder(self.decoder_input(z).reshape(-1, 16, 2, 2)))
        return out


def settle(net: ConvVae) -> ConvVae:
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(40):
            net.decode(torch.randn(128, Z, generator=rng))
    return net.eval()


def test_parts_beside_each_other_are_one_decoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, z = settle(ConvVae()), torch.randn(5, Z)
    state = {f"model.{name}": entry for name, entry in net.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": []}, tmp_path / "last.ckpt")
    network = load_generator(
        tmp_path / "last.ckpt",
        AuditConfig(activation="leaky:0.01", image_size=8, prior="normal", strides=("2/1/1", "2/1/1")),
    )
    assert (network.latent.dim, network.output.shape) == (Z, (3, 8, 8))
    assert "decoder" in network.subject["weights"]
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net.decode(z), atol=1e-5)


def test_a_decoder_without_a_name_is_found_by_its_shapes(tmp_path: Path) -> None:
    """fc1, fc21, fc22, fc3, fc4: pytorch/examples."""
    torch.manual_seed(0)
    layers = {"fc1": (784, 40), "fc21": (40, 4), "fc22": (40, 4), "fc3": (4, 40), "fc4": (40, 784)}
    net = nn.ModuleDict({name: nn.Linear(*widths) for name, widths in layers.items()})
    torch.save(net.state_dict(), tmp_path / "vae.pt")
    network = load_generator(tmp_path / "vae.pt", AuditConfig(activation="relu", output_range=(0.0, 1.0)))
    z = torch.randn(5, 4)
    expected = torch.sigmoid(net["fc4"](torch.relu(net["fc3"](z))))
    assert torch.allclose(network.forward(z).flatten(1), expected, atol=1e-6)


@pytest.mark.parametrize(
    "heads, decoder",
    [
        (["encoder", "decoder"], ["decoder"]),
        (["encoder", "fc_mu", "fc_var", "decoder_input", "decoder", "final_layer"], None),
        (["enc_conv1", "enc_fc2", "z_mean", "z_log_var", "dec_fc", "dec_conv"], ["dec_fc", "dec_conv"]),
        (["generator", "discriminator"], []),
        (["encoder", "fc"], []),
        (["embedding", "decoder"], []),
    ],
)
def test_names_of_the_decoder(heads: list[str], decoder: list[str] | None) -> None:
    expected = ["decoder_input", "decoder", "final_layer"] if decoder is None else decoder
    assert find_decoder_heads(heads) == expected


def test_other_stacks_of_linear_layers_have_no_unnamed_decoder() -> None:
    for shapes in ([(40, 64), (40, 40), (40, 40), (64, 40)], [(8, 4), (8, 8), (8, 8), (8, 8), (4, 8)]):
        assert not find_unnamed_decoder({f"{i}.weight": torch.zeros(shape) for i, shape in enumerate(shapes)})
