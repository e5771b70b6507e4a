"""Pythia 8 and FastJet for `storagering.testing.jets`: one block of jets from one seed."""

from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import numpy.typing as npt

from storagering.errors import InternalError, MissingExtraError

_HADRONIC_W = ("24:onMode = off", "24:onIfAny = 1 2 3 4 5")
PROCESSES: dict[str, tuple[str, ...]] = {
    "top": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", *_HADRONIC_W),
    "qcd": ("HardQCD:all = on",),
    "w": ("WeakBosonAndParton:qqbar2Wg = on", "WeakBosonAndParton:qg2Wq = on", *_HADRONIC_W),
}
_COMMON = (
    "Beams:eCM = 13000",
    "Print:quiet = on",
    "PhaseSpace:pTHatMin = 500",
    "PhaseSpace:pTHatMax = 800",
    "Random:setSeed = on",
)
_RESONANCES = {"top": 6, "w": 24}
_NEUTRINOS = (12, 14, 16)
_LAST_COPY = 62  # Pythia's status of a resonance just before its decay
_RADIUS = 0.8
_MATCH_RADIUS = 0.6
_JET_PT = (500.0, 700.0)
_JET_ETA = 2.0
_PARTICLE_PT = 0.4
_PARTICLE_ETA = 2.7
_MAX_PARTICLES = 128
_BATCH_EVENTS = (8, 100)
_MAX_TRIES = 1000
MAX_SEED = 900_000_000
"""The largest seed that Pythia takes."""

JET_BRANCHES = ("pt", "eta", "phi", "mass")
PART_FLOATS = ("pt", "eta", "phi", "energy", "deta", "dphi")
PART_INTEGERS = ("charge", "pid")

Block = dict[str, npt.NDArray[Any]]


class Task(NamedTuple):
    """A block of jets of one class, with a seed of its own: the unit of work."""

    name: str
    label: int
    seed: int
    jets: int


def import_libraries() -> tuple[Any, Any]:
    """The modules of Pythia 8 and FastJet, the latter told to print no banner."""
    try:
        import fastjet
        import pythia8mc
    except ImportError as error:
        raise MissingExtraError(
            f'generating jets needs Pythia 8 and FastJet ({error}): pip install "storagering[generate]"'
        ) from error
    fastjet._swig.ClusterSequence.set_fastjet_banner_stream(None)
    return pythia8mc, fastjet


def generate_block(task: Task) -> Block:
    """Generate a block's jets; its own Pythia, since one that has run before remembers more than its seed."""
    pythia8mc, fastjet = import_libraries()
    pythia = pythia8mc.Pythia("", False)
    for line in (*_COMMON, *PROCESSES[task.name], f"Random:seed = {task.seed}"):
        pythia.readString(line)
    if not pythia.init():
        raise InternalError(f"Pythia did not accept the settings for {task.name!r} jets; please report it")
    parts: list[Block] = []
    left = task.jets
    for _ in range(_MAX_TRIES):
        events = pythia.nextBatch(int(np.clip(left, *_BATCH_EVENTS)))
        parts.append(_select(_flatten(events), len(events), _RESONANCES.get(task.name), fastjet, left))
        left -= len(parts[-1]["npart"])
        if left <= 0:
            break
    else:
        raise InternalError(f"Pythia gives hardly any {task.name!r} jets; please report it")
    block = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    block["part_charge"] = _charges(pythia, block["part_pid"])
    block["jet_class"] = np.full(task.jets, task.label, np.int32)
    return block


def _flatten(events: Any) -> dict[str, npt.NDArray[Any]]:
    """All particles of a batch as flat arrays; ``event`` tells which event each belongs to."""
    particles, momenta = events.prt, events.prt.p
    flat = {name: ak.to_numpy(ak.flatten(momenta[name])) for name in ("px", "py", "pz", "e")}
    flat |= {name: ak.to_numpy(ak.flatten(particles[name])) for name in ("id", "status")}
    flat["event"] = np.repeat(np.arange(len(particles)), ak.to_numpy(ak.num(particles)))
    return flat


def _kinematics(px: Any, py: Any, pz: Any) -> tuple[Any, Any, Any]:
    """Transverse momentum, pseudorapidity and azimuth; along the beam the pseudorapidity is huge but finite."""
    pt = np.hypot(px, py)
    return pt, np.arcsinh(pz / np.maximum(pt, 1e-9)), np.arctan2(py, px)


def _select(
    flat: dict[str, npt.NDArray[Any]], num_events: int, resonance: int | None, fastjet: Any, limit: int
) -> Block:
    """The first ``limit`` wanted jets of a batch of ``num_events`` events."""
    pt, eta, _ = _kinematics(flat["px"], flat["py"], flat["pz"])
    visible = (flat["status"] > 0) & ~np.isin(np.abs(flat["id"]), _NEUTRINOS)
    visible &= (pt > _PARTICLE_PT) & (np.abs(eta) < _PARTICLE_ETA)
    inputs = {name: array[visible] for name, array in flat.items()}
    counts = np.bincount(inputs["event"], minlength=num_events)
    particles = ak.unflatten(
        ak.zip({"px": inputs["px"], "py": inputs["py"], "pz": inputs["pz"], "E": inputs["e"], "id": inputs["id"]}),
        counts,
    )
    jets, members, events = _leading_jets(particles, fastjet)
    jet_pt, jet_eta, jet_phi = _kinematics(jets["px"], jets["py"], jets["pz"])
    wanted = (jet_pt > _JET_PT[0]) & (jet_pt < _JET_PT[1]) & (np.abs(jet_eta) < _JET_ETA)
    if resonance is not None:
        wanted &= _matched(flat, resonance, events, jet_eta, jet_phi)
    chosen = np.flatnonzero(wanted)[:limit]
    mass2 = jets["E"] ** 2 - jets["px"] ** 2 - jets["py"] ** 2 - jets["pz"] ** 2
    axis = {"pt": jet_pt, "eta": jet_eta, "phi": jet_phi, "mass": np.sqrt(np.maximum(mass2, 0.0))}
    axis = {name: array[chosen] for name, array in axis.items()}
    block: Block = {f"jet_{name}": array.astype(np.float32) for name, array in axis.items()}
    return block | _particle_branches(particles[events[chosen]][members[chosen]], axis["eta"], axis["phi"])


def _leading_jets(particles: Any, fastjet: Any) -> tuple[dict[str, npt.NDArray[Any]], Any, npt.NDArray[Any]]:
    """Momentum, constituents' indices and event of the leading jet of each event that has a jet."""
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, _RADIUS)
    sequence = fastjet.ClusterSequence(particles[["px", "py", "pz", "E"]], definition)
    jets, members = (find(min_pt=_JET_PT[0]) for find in (sequence.inclusive_jets, sequence.constituent_index))
    events = np.flatnonzero(ak.to_numpy(ak.num(jets)) > 0)
    jets, members = jets[events], members[events]
    best = ak.to_numpy(ak.argmax(jets.px**2 + jets.py**2, axis=1, mask_identity=False))
    rows = np.arange(len(events))
    leading = jets[rows, best]
    momenta = {name: ak.to_numpy(leading[name]) for name in ("px", "py", "pz", "E")}
    return momenta, members[rows, best], events


def _matched(
    flat: dict[str, npt.NDArray[Any]], resonance: int, events: npt.NDArray[Any], jet_eta: Any, jet_phi: Any
) -> npt.NDArray[np.bool_]:
    """Which jets have the resonance, as it was just before its decay, near their axis."""
    heavy = (np.abs(flat["id"]) == resonance) & (np.abs(flat["status"]) == _LAST_COPY)
    _, eta, phi = _kinematics(flat["px"][heavy], flat["py"][heavy], flat["pz"][heavy])
    owner = flat["event"][heavy]
    position = np.searchsorted(events, owner)
    inside = position < len(events)
    inside[inside] = events[position[inside]] == owner[inside]
    position = position[inside]
    distance = np.hypot(eta[inside] - jet_eta[position], _wrap(phi[inside] - jet_phi[position]))
    matched = np.zeros(len(events), bool)
    matched[position[distance < _MATCH_RADIUS]] = True
    return matched


def _particle_branches(particles: Any, jet_eta: Any, jet_phi: Any) -> Block:
    """Branches of the constituents, hardest first."""
    particles = particles[ak.argsort(particles.px**2 + particles.py**2, axis=1, ascending=False, stable=True)]
    particles = particles[:, :_MAX_PARTICLES]
    counts = ak.to_numpy(ak.num(particles))
    px, py, pz, energy, pid = (ak.to_numpy(ak.flatten(particles[name])) for name in ("px", "py", "pz", "E", "id"))
    pt, eta, phi = _kinematics(px, py, pz)
    deta, dphi = eta - np.repeat(jet_eta, counts), _wrap(phi - np.repeat(jet_phi, counts))
    values = dict(zip(PART_FLOATS, (pt, eta, phi, energy, deta, dphi), strict=True))
    block: Block = {f"part_{name}": array.astype(np.float32) for name, array in values.items()}
    return block | {"npart": counts, "part_pid": pid.astype(np.int32)}


def _wrap(angle: Any) -> Any:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _charges(pythia: Any, pid: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    kinds, inverse = np.unique(pid, return_inverse=True)
    charges = np.array([round(pythia.particleData.charge(int(kind))) for kind in kinds], np.int32)
    return charges[inverse]
