import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from storagering.models.jet_features import (  # noqa: E402
    JET_FEATURES,
    PARTICLE_FEATURES,
    jet_inputs,
    principal_axes,
)


def make_plane(jets: int = 50, particles: int = 20) -> tuple[Any, ...]:
    random = torch.Generator().manual_seed(2)
    x, y = 0.3 * torch.randn(2, jets, particles, generator=random, dtype=torch.float64)
    return x, 0.3 * y, torch.rand(jets, particles, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("angle", [0.3, 1.9, 4.0])
@pytest.mark.parametrize("mirror", [1, -1])
def test_axes_do_not_depend_on_position_direction_or_handedness(angle: float, mirror: int) -> None:
    x, y, weights = make_plane()
    turned_x = math.cos(angle) * x - math.sin(angle) * y + 0.1
    turned_y = mirror * (math.sin(angle) * x + math.cos(angle) * y) - 0.2
    for expected, found in zip(
        principal_axes(x, y, weights), principal_axes(turned_x, turned_y, 3 * weights), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_the_major_axis_comes_first_and_is_uncorrelated() -> None:
    x, y, weights = make_plane()
    major, minor = principal_axes(x, y, weights)
    assert ((weights * major**2).sum(1) > (weights * minor**2).sum(1)).all()
    assert (weights * major * minor).sum(1).abs().max() < 1e-12


def test_features_of_a_known_jet() -> None:
    # pt, energy, deta, dphi, charge, pid: an electron, a photon and a neutron, then padding
    particles = torch.tensor([[[30, 40, 0.1, 0, -1, 11], [60, 80, -0.05, 0, 0, 22], [10, 9, 0, 0, 0, -2112], [9] * 6]])
    mask = torch.tensor([[True, True, True, False]])
    inputs = jet_inputs(particles, mask, torch.tensor([[200.0, 1.5, 80.0]]))
    column = dict(zip(PARTICLE_FEATURES, inputs.particles[0].T, strict=True))
    assert inputs.fractions[0, :3].tolist() == pytest.approx([0.15, 0.3, 0.05])
    assert column["log_pt"][:3].tolist() == pytest.approx([math.log(30), math.log(60), math.log(10)])
    assert column["log_z"][0] == pytest.approx(math.log(0.15))
    assert column["x"][:3].tolist() == pytest.approx([0.1, -0.05, 0.0])
    assert column["r"][:3].tolist() == pytest.approx([0.1, 0.05, 0.0])
    assert column["charge"][:3].tolist() == [-1, 0, 0]
    kinds = [column[name][:3].tolist() for name in ("lepton", "photon", "neutral_hadron")]
    assert kinds == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert dict(zip(JET_FEATURES, inputs.jet[0].tolist(), strict=True)) == pytest.approx(
        {"log_pt": math.log(200), "eta": 1.5, "log_mass": math.log(80)}
    )


def test_padding_and_empty_jets_give_finite_features() -> None:
    particles = torch.full((2, 3, 6), math.nan)
    mask = torch.zeros(2, 3, dtype=torch.bool)
    particles[1, 0], mask[1, 0] = torch.tensor([5.0, 5, 0, 0, 1, 211]), True
    inputs = jet_inputs(particles, mask, torch.tensor([[0.0, 0, 0], [5, 0, 0]]))
    assert all(torch.isfinite(t).all() for t in (inputs.particles, inputs.fractions, inputs.jet))
    assert inputs.fractions.tolist() == [[0, 0, 0], [1, 0, 0]]
