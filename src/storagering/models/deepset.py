"""A deep set: a classifier of jets that cannot depend on the order of their particles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from storagering.models.network import Network, Standardise


class JetInputs(NamedTuple):
    """A batch of B jets of up to P particles.

    Attributes:
        particles: (B, P, F) float; whatever stands where ``mask`` is False is never looked at.
        mask: (B, P) bool, True for particles.
        fractions: (B, P) share of the jet's transverse momentum that each particle carries.
        jet: (B, J) float, properties of the whole jet.
    """

    particles: Tensor
    mask: Tensor
    fractions: Tensor
    jet: Tensor


class DeepSet(Network):
    """score(jet) = rho(sum_i phi(p_i), sum_i z_i phi(p_i), jet properties).

    The plain sum is that of Deep Sets (Zaheer et al., arXiv:1703.06114), the one weighted by momentum
    fractions that of Energy Flow Networks (Komiske, Metodiev, Thaler, arXiv:1810.05165). Only real
    particles go through phi: on CPU this makes the result independent of the padding, bit for bit.

    Args:
        particle_features: F, columns of ``JetInputs.particles``.
        jet_features: J, columns of ``JetInputs.jet``.
        width: width D of the hidden layers and of the pooled representation.
    """

    typical_size: Tensor

    def __init__(self, particle_features: int, jet_features: int, *, width: int = 64) -> None:
        super().__init__()
        self.particle_scale = Standardise(particle_features)
        self.jet_scale = Standardise(jet_features)
        self.register_buffer("typical_size", torch.ones(()))
        self.phi = nn.Sequential(
            *(nn.Linear(particle_features, width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
        )
        self.rho = nn.Sequential(nn.Linear(2 * width + jet_features, width), nn.GELU(), nn.Linear(width, 1))

    def fit_scaling(self, samples: Sequence[JetInputs]) -> None:
        """Set the input constants from (training) jets; call once, before training."""
        particles = torch.cat([s.particles[s.mask] for s in samples])  # (N particles, F)
        jets = torch.cat([s.jet for s in samples])  # (N jets, J)
        self.jet_scale.fit(jets)
        if len(particles):
            self.particle_scale.fit(particles)
            self.typical_size.fill_(len(particles) / len(jets))  # keeps the plain sum of order one

    def forward(self, particles: Tensor, mask: Tensor, fractions: Tensor, jet: Tensor) -> Tensor:
        """The logit of being signal, (B,), for the fields of `JetInputs`."""
        latent = self.phi(self.particle_scale(particles[mask]))  # (N, D), N particles of all jets in a row
        weighted = latent * fractions[mask].unsqueeze(-1)  # (N,) -> (N, 1), one weight for all D
        owner = mask.nonzero()[:, 0]  # (N,) the jet that each particle belongs to
        summands = torch.cat([latent / self.typical_size, weighted], dim=-1)  # (N, 2D)
        pooled = summands.new_zeros(len(mask), summands.shape[-1]).index_add(0, owner, summands)  # (B, 2D)
        logits: Tensor = self.rho(torch.cat([pooled, self.jet_scale(jet)], dim=-1))  # (B, 2D + J) -> (B, 1)
        return logits.squeeze(-1)  # (B,)
