import math

import pytest

torch = pytest.importorskip("torch")

from storagering.models.deepset import DeepSet, JetInputs  # noqa: E402
from storagering.models.network import Standardise  # noqa: E402


def make_inputs(jets: int = 9, longest: int = 12, seed: int = 0) -> JetInputs:
    random = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, longest + 1, (jets,), generator=random)
    mask = torch.arange(longest) < counts[:, None]
    particles = torch.randn(jets, longest, 5, generator=random)
    fractions = torch.rand(jets, longest, generator=random)
    return JetInputs(particles, mask, fractions, torch.randn(jets, 3, generator=random))


@pytest.fixture
def model() -> DeepSet:
    torch.manual_seed(1)
    network = DeepSet(5, 3, width=16)
    network.fit_scaling([make_inputs(seed=5), make_inputs(seed=6)])
    return network


def test_the_order_of_particles_does_not_matter(model: DeepSet) -> None:
    inputs = make_inputs()
    order = torch.argsort(torch.rand(inputs.mask.shape, generator=torch.Generator().manual_seed(3)), dim=1)
    shuffled = JetInputs(
        particles=torch.take_along_dim(inputs.particles, order[..., None], dim=1),
        mask=torch.take_along_dim(inputs.mask, order, dim=1),
        fractions=torch.take_along_dim(inputs.fractions, order, dim=1),
        jet=inputs.jet,
    )
    assert not torch.equal(shuffled.particles, inputs.particles)
    torch.testing.assert_close(model(*shuffled), model(*inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rubbish", [0.0, 1e30, math.nan, math.inf])
def test_padding_changes_no_bit_of_the_result_or_its_gradient(model: DeepSet, rubbish: float) -> None:
    inputs = make_inputs()
    hidden = ~inputs.mask
    padded = JetInputs(
        particles=torch.cat(
            [inputs.particles.masked_fill(hidden[..., None], rubbish), torch.full((9, 7, 5), rubbish)], 1
        ),
        mask=torch.cat([inputs.mask, torch.zeros(9, 7, dtype=torch.bool)], 1),
        fractions=torch.cat([inputs.fractions.masked_fill(hidden, rubbish), torch.full((9, 7), rubbish)], 1),
        jet=inputs.jet,
    )
    gradients = []
    for sample in (inputs, padded):
        model.zero_grad()
        scores = model(*sample)
        scores.sum().backward()
        gradients.append([scores.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_jets_do_not_see_each_other(model: DeepSet) -> None:
    inputs = make_inputs()
    alone = torch.cat([model(*(t[i : i + 1] for t in inputs)) for i in range(9)])
    torch.testing.assert_close(alone, model(*inputs), rtol=0, atol=1e-6)


def test_jets_without_particles_get_a_finite_score(model: DeepSet) -> None:
    empty = make_inputs()._replace(mask=torch.zeros(9, 12, dtype=torch.bool))
    none = JetInputs(torch.zeros(2, 0, 5), torch.zeros(2, 0, dtype=torch.bool), torch.zeros(2, 0), torch.ones(2, 3))
    assert torch.isfinite(model(*empty)).all()
    assert model(*none).shape == (2,)


def test_scaling_comes_from_particles_only_and_travels_with_the_weights(model: DeepSet) -> None:
    inputs = make_inputs(jets=400)
    spoilt = inputs._replace(particles=inputs.particles.masked_fill(~inputs.mask[..., None], 1e9))
    model.fit_scaling([spoilt])
    scaled = model.particle_scale(inputs.particles[inputs.mask])
    torch.testing.assert_close(scaled.mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(5), rtol=0, atol=1e-5)
    copy = DeepSet(5, 3, width=16)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(*inputs), model(*inputs))


def test_a_constant_column_is_only_shifted() -> None:
    scale = Standardise(2)
    values = torch.tensor([[7.0, 1.0], [7.0, 3.0]])
    scale.fit(values)
    assert scale(values).tolist() == [[0.0, -1.0], [0.0, 1.0]]
