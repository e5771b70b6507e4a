"""Data configurations after published ones, shortened, and a file of made-up jets with the branches that they name.

``jetclass``, ``top`` follow data/JetClass/JetClass_full.yaml and data/TopLandscape/top_kin.yaml of
github.com/jet-universe/particle_transformer; ``ak15``, ``ak4`` and ``mass`` follow data/ak15_points_pf_sv.yaml,
data/AK4/ak4_points_pf_sv_CHS_eta4p7.yaml and data/ak15_points_pf_sv_mass_regression.yaml of
github.com/hqucms/weaver-core (both MIT).
"""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

JETCLASS = """
selection:
   ### use `&`, `|`, `~` for logical operations on numpy arrays
new_variables:
   part_mask: ak.ones_like(part_energy)
   part_pt: np.hypot(part_px, part_py)
   part_pt_log: np.log(part_pt)
   part_logptrel: np.log(part_pt/jet_pt)
   part_deltaR: np.hypot(part_deta, part_dphi)
   part_d0: np.tanh(part_d0val)
preprocess:
  method: manual
  data_fraction: 0.5
inputs:
   pf_points:
      length: 128
      pad_mode: wrap
      vars:
         - [part_deta, null]
         - [part_dphi, null]
   pf_features:
      length: 128
      pad_mode: wrap
      vars:
         - [part_pt_log, 1.7, 0.7]
         - [part_logptrel, -4.7, 0.7]
         - [part_deltaR, 0.2, 4.0]
         - [part_charge, null]
         - [part_d0, null]
         - [part_d0err, 0, 1, 0, 1]
         - [part_deta, null]
   pf_vectors:
      length: 128
      pad_mode: wrap
      vars: [[part_px, null], [part_py, null], [part_energy, null]]
   pf_mask:
      length: 128
      pad_mode: constant
      vars:
         - [part_mask, null]
labels:
   type: simple
   value: [label_QCD, label_Hbb, label_Tbqq]
observers:
   - jet_pt
   - jet_eta
   - jet_nparticles
weights:
"""

TOP = """
treename: jets
selection: (jet_pt>400) & (np.abs(jet_eta)<1.8)
new_variables:
   part_mask: ak.ones_like(part_deta)
   part_pt: np.hypot(part_px, part_py)
   part_e_log: np.log(part_energy)
   part_logerel: np.log(part_energy/jet_energy)
   jet_isTop: label
   jet_isQCD: 1-label
   unused: np.linalg.norm(nothing)
preprocess:
   method: auto
   data_fraction: 0.5
inputs:
   pf_features:
      length: 64
      vars:
         - part_e_log
         - [part_logerel, -4.7, 0.7]
         - part_deta
   pf_mask:
      length: 64
      vars:
         - [part_mask, null]
labels:
   type: simple
   value: [jet_isTop, jet_isQCD]
observers: [jet_pt, jet_nparticles]
"""

AK15 = """
selection:
   (jet_tightId==1) & (jet_pt>250) & (jet_pt<1000)
   & (((sample_isQCD==0) & (label_QCD==0)) | ((sample_isQCD==1) & (label_QCD==1)))
new_variables:
   part_mask: ak.ones_like(part_deta)
preprocess:
  method: manual
  data_fraction:
inputs:
   pf_points:
      length: 100
      vars:
         - part_deta
         - part_dphi
   pf_mask:
      length: 100
      vars:
         - part_mask
labels:
   type: simple
   value: [
      label_QCD, label_Hbb, label_Tbqq,
      ]
observers:
   - event_no
   - jet_pt
   - jet_sdmass
weights:
   use_precomputed_weights: false
   reweight_method: flat
   reweight_vars:
      jet_pt: [250, 289, 346, 413, 493, 589, 704, 841]
      jet_sdmass: [30, 50, 70, 90, 110, 130, 150.5, 200]
   reweight_classes: [label_QCD, label_Hbb, label_Tbqq]
   class_weights: [1, 0.8, 2.5]
   reweight_threshold: 15
   reweight_hists:
"""

AK4 = """
selection:
   ### the fold of a plain scalar
   >-
   (np.abs(jet_eta)<4.7) & (jet_pt>15) & (event_no%7!=0)
   & ( (jet_hadronFlavour>0) | ((jet_hadronFlavour==0) & (np.abs(jet_partonFlavour)!=4)) )
   & ( ~((jet_genjet_pt>0) & (jet_partonFlavour==21)) | (jet_pt<586) )
test_time_selection:
   (np.abs(jet_eta)<4.7) & (jet_pt>10)
new_variables:
   part_mask: awkward.JaggedArray.ones_like(part_deta)
   label_b:     (jet_genjet_pt>0) & (jet_hadronFlavour==5)
   label_c:     (jet_genjet_pt>0) & (jet_hadronFlavour==4)
   label_udsg:  (jet_genjet_pt>0) & (jet_hadronFlavour==0)
   label_pu:    (jet_genjet_pt<=0)
   jet_class_weight: np.where(label_b, 2., np.where(jet_hadronFlavour, 0.5, 1))
preprocess:
  method: manual
  data_fraction:
inputs:
   pf_features:
      length: 50
      vars:
         - [part_energy, 0.8, 0.7]
         - [part_charge, null]
   pf_mask:
      length: 50
      vars:
         - [part_mask, null]
labels:
   type: simple
   value: [label_b, label_c, label_udsg, label_pu]
monitor_variables:
   - jet_pt
weights:
   use_precomputed_weights: true
   weight_branches: [weight, jet_class_weight]
"""

MASS = """
selection: jet_tightId
new_variables:
   lead: ak.fill_none(ak.max(part_energy, axis=1), 0)
   nhard: ak.sum(part_energy > 50, axis=1)
   ncharged: ak.num(part_charge[part_charge != 0])
   high: _clip(np.sqrt(part_energy), 1, 10)
preprocess: {method: manual, data_fraction: null}
inputs:
   pf_points:
      length: 100
      vars: [part_deta, high]
   jet_features:
      length: null
      vars: [lead, nhard, ncharged]
labels:
   type: custom
   value:
      target_mass: np.maximum(1, np.where(label_Hbb, jet_genmass, jet_sdmass))
      is_signal: (label_Hbb == 1) | (label_Tbqq == 1)
observers: [event_no]
weights:
   use_precomputed_weights: false
   reweight_method: ref
   reweight_vars:
      jet_pt: [0, 300, 500, 700, 900]
      jet_eta: [-1, 0, 1]
   reweight_classes: [label_QCD, label_Hbb]
   reweight_discard_under_overflow: false
"""

CONFIGS = {"jetclass": JETCLASS, "top": TOP, "ak15": AK15, "ak4": AK4, "mass": MASS}


def write_jets(path: Path, jets: int, seed: int = 1) -> Path:
    """A TTree "jets" of made-up jets of three classes."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(6, jets) * (rng.random(jets) < 0.97)
    total = int(counts.sum())
    kind = rng.integers(0, 3, jets)
    flavour = rng.choice([0, 4, 5], jets)
    flat = {
        "jet_pt": rng.gamma(3.0, 60.0, jets) + 200 + 60 * kind,
        "jet_eta": rng.normal(0, 1.0, jets),
        "jet_energy": rng.gamma(3.0, 200.0, jets) + 300,
        "jet_sdmass": rng.gamma(4.0, 20.0, jets) + 20,
        "jet_genmass": rng.gamma(4.0, 20.0, jets),
        "jet_genjet_pt": np.where(rng.random(jets) < 0.1, -1, rng.gamma(3.0, 60.0, jets)),
        "weight": rng.normal(1, 0.2, jets),
    }
    columns: dict[str, Any] = {name: array.astype(np.float32) for name, array in flat.items()}
    columns |= {f"label_{name}": kind == i for i, name in enumerate(("QCD", "Hbb", "Tbqq"))}
    columns |= {
        "label": (kind == 2).astype(np.int32),
        "sample_isQCD": (kind == 0).astype(np.int32),
        "jet_tightId": (rng.random(jets) < 0.9).astype(np.float32),
        "jet_hadronFlavour": flavour.astype(np.int32),
        "jet_partonFlavour": np.where(flavour > 0, flavour, rng.choice([1, 21, -4], jets)).astype(np.int32),
        "jet_nparticles": counts.astype(np.float32),
        "event_no": np.arange(jets, dtype=np.int64),
    }
    floats = {
        "px": rng.normal(0, 20, total),
        "py": rng.normal(0, 20, total),
        "energy": rng.gamma(2, 20, total),
        "deta": rng.normal(0, 0.2, total),
        "dphi": rng.normal(0, 0.2, total),
        "charge": rng.integers(-1, 2, total),
        "d0val": rng.normal(0, 1, total),
        "d0err": rng.gamma(1, 0.1, total),
    }
    particles = ak.zip({name: ak.unflatten(array.astype(np.float32), counts) for name, array in floats.items()})
    with uproot.recreate(path) as file:
        tree = file.mktree("jets", {name: array.dtype for name, array in columns.items()} | {"part": particles.type})
        for start in range(0, jets, 500):
            block = {name: array[start : start + 500] for name, array in columns.items()}
            tree.extend(block | {"part": ak.to_packed(particles[start : start + 500])})
    return path
