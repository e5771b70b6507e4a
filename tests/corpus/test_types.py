"""Each type that HEP puts into trees: converted from a real file where there is one, and equal to uproot's array."""

import glob
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDouble32, AsFloat16

import storagering as sr
from storagering.config import load_settings
from storagering.formats.forms import assign_keys, describe_column, to_awkward
from storagering.formats.readers import open_source
from storagering.formats.source import UnreadableColumnsError

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")

TREES = "rootfiles/uproot-"
STL = f"{TREES}stl_containers.root"
VECTOR3 = "TVector3[fX: float64, fY: float64, fZ: float64]"
CASES = [  # file, tree, column, kind, type of an entry
    ("coffea/nano_dy.root", "Events", "event", "flat", "uint64"),
    ("coffea/nano_dy.root", "Events", "Electron_convVeto", "jagged", "var * bool"),
    ("coffea/nano_dy.root", "Events", "Electron_cutBased_HEEP", "jagged", "var * bool"),
    (f"{TREES}issue-123a.root", "CollectionTree", "MET_Core_AnalysisMETAuxDyn.source", "jagged", "var * uint64"),
    (f"{TREES}sample-5.23.02-uncompressed.root", "sample", "ab", "fixed-shape", "3 * bool"),
    (f"{TREES}sample-5.23.02-uncompressed.root", "sample", "Ai1", "jagged", "var * int8"),
    (f"{TREES}issue-74.root", "arrays", "2x3Mat", "fixed-shape", "2 * 3 * float64"),
    (f"{TREES}issue-1221.root", "TrkAna/trkana", "crvcoincs/crvcoincs.PEsPerLayer[4]", "jagged", "var * 4 * float32"),
    (f"{TREES}issue-398.root", "orange", "orange", "nested", "{Evtake_iwant: int32, Mc_x: float32, "),
    (f"{TREES}HZZ-objects.root", "events", "jetp4", "nested", f"var * TLorentzVector[fP: {VECTOR3}, fE: float64]"),
    (f"{TREES}HZZ-objects.root", "events", "MC_lepton", "nested", VECTOR3),
    (f"{TREES}HZZ-objects.root", "events", "jetid", "jagged", "var * bool"),
    (f"{TREES}issue-880.root", "Z", "Event/pK", "nested", f"TLorentzVector[fP: {VECTOR3}, fE: float64]"),
    (f"{TREES}issue-880.root", "Z", "Event/pg[6]", "nested", "var * 6 * TLorentzVector["),
    (f"{TREES}issue371.root", "Model", "Model./Model.staPos", "nested", f"var * {VECTOR3}"),
    (f"{TREES}issue-407.root", "tree", "branch", "nested", "TDatime[fDatime: uint32]"),
    (f"{TREES}issue-40.root", "tree", "bitset8", "jagged", '[var * bool, parameters={"__array__": "bitset"}]'),
    (f"{TREES}issue404.root", "Event", "Primary./Primary.energy#2", "jagged", "var * float32"),
    (f"{TREES}issue513.root", "Delphes", "Track/Track.Particle", "nested", "var * TRef[ref: uint32]"),
    ("rootfiles/issue367b.root", "tree", "weights", "nested", 'var * tuple[[string, var * float64], parameters='),
    (STL, "tree", "string", "string", "string"),
    (STL, "tree", "vector_string", "doubly-jagged", "var * string"),
    (STL, "tree", "vector_vector_string", "nested", "var * var * string"),
    (STL, "tree", "vector_vector_int32", "doubly-jagged", "var * var * int32"),
    (STL, "tree", "set_int32", "jagged", '[var * int32, parameters={"__array__": "set"}]'),
    (STL, "tree", "map_int32_int16", "nested", "var * tuple[[int32, int16], parameters="),
    (STL, "tree", "map_string_vector_string", "nested", "var * tuple[[string, var * string], parameters="),
    (f"{TREES}Zmumu-lz4.root", "events", "Type", "string", "string"),
    ("rootfiles/test_float_types_rntuple_v1-0-0-0.root", "ntuple", "trunc24", "flat", "float32"),
    ("rootfiles/test_float_types_rntuple_v1-0-0-0.root", "ntuple", "quant16", "flat", "float32"),
    ("rootfiles/test_atomic_bitset_rntuple_v1-0-0-0.root", "ntuple", "bitset", "fixed-shape", "42 * bool"),
    ("rootfiles/test_atomic_bitset_rntuple_v1-0-0-0.root", "ntuple", "atomic_int", "flat", "int32"),
    ("rootfiles/test_emptystruct_invalidvar_rntuple_v1-0-0-0.root", "ntuple", "variant", "nested", "union[?unknown, "),
    ("rootfiles/test_emptystruct_invalidvar_rntuple_v1-0-0-0.root", "ntuple", "empty_struct", "nested", "()"),
]  # fmt: skip


def branch_of(tree: Any, name: str) -> Any:
    """The branch or field; ``name#2`` is the second one of a name."""
    path, _, number = name.partition("#")
    return [b for n, b in tree.iteritems(recursive=True) if n == path][int(number or 1) - 1]


def same(got: Any, want: Any) -> bool:
    return bool(got.type == want.type and ak.array_equal(got, want, equal_nan=True, dtype_exact=True))


@pytest.mark.parametrize(("file", "tree", "name", "kind", "type_"), CASES, ids=lambda c: c if "_" in c else None)
def test_a_type_in_a_real_file(shared_data: Path, file: str, tree: str, name: str, kind: str, type_: str) -> None:
    dataset = sr.convert(shared_data / file, tree=tree, columns=[glob.escape(name)], name="typed")
    (column,) = dataset.schema.columns
    got = dataset.arrays([name])[name]
    with uproot.open(shared_data / file) as opened:
        want = branch_of(opened[tree], name).array(library="ak")
    assert column.kind == kind
    assert str(want.type.content).startswith(type_)
    assert same(got, want)


@pytest.mark.parametrize("jagged", [False, True])
@pytest.mark.parametrize(
    ("stored", "interpretation", "step"),
    [
        (np.uint32, AsDouble32(-3.0, 5.0, 20), 8 / (1 << 20)),
        (np.uint32, AsFloat16(0.0, 2.0, 16), 2 / (1 << 16)),
    ],
    ids=["Double32_t", "Float16_t"],
)
def test_double32_and_float16(tmp_path: Path, jagged: bool, stored: Any, interpretation: Any, step: float) -> None:
    """No file at hand has them and uproot writes none: the stored integers are written, and read as those types."""
    numbers = (np.arange(60) * 977 % (1 << 16)).astype(stored)
    values = ak.unflatten(numbers, [0, 3, 7] * 6) if jagged else numbers
    with uproot.recreate(tmp_path / "t.root") as file:
        file.mktree("t", {"x": "var * " + np.dtype(stored).name if jagged else stored}).extend({"x": values})
    with closing(open_source(str(tmp_path / "t.root"), None, load_settings())) as source:
        branch = source._branches["x"]  # type: ignore[attr-defined]
        header = branch.interpretation.header_bytes if jagged else 0
        branch._interpretation = AsJagged(interpretation, header) if jagged else interpretation
        got = source.read(["x"], 0, source.entries)["x"]
        flat = ak.to_numpy(ak.flatten(got, axis=None))
        assert np.allclose(flat, interpretation.low + numbers.astype(np.float64) * step, rtol=1e-6, atol=1e-12)
        assert flat.dtype == (np.float64 if type(interpretation) is AsDouble32 else np.float32)
        assert same(got, branch.array())
        schema = assign_keys([describe_column("x", got)])
        batch = source.read_batch(schema, 0, source.entries)
        assert same(to_awkward(batch)["x"], got)


def test_every_type_that_uproot_writes_into_a_tree(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    dtypes = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)] + [
        np.dtype(t) for t in ("?", "f4", "f8")
    ]
    counts = rng.poisson(2, 50)
    columns: dict[str, Any] = {}
    for dtype in dtypes:
        raw = rng.integers(0, 256, (50, 2, 3, dtype.itemsize), np.uint8)
        values = (raw[..., 0] % 2 == 0 if dtype.kind == "b" else raw.view(dtype)[..., 0]).copy()
        columns |= {f"{dtype}_flat": values[:, 0, 0], f"{dtype}_fixed": values}
        columns[f"{dtype}_jagged"] = ak.unflatten(np.resize(values[:, 0, 1], counts.sum()), counts)
    columns["text"] = ak.Array([f"entry {n} π" * (n % 3) for n in range(50)])
    with uproot.recreate(tmp_path / "t.root") as file:
        file["t"] = columns
    dataset = sr.convert(tmp_path / "t.root", name="written")
    arrays = dataset.arrays()
    for name, want in columns.items():
        assert ak.array_equal(arrays[name], want, equal_nan=True, dtype_exact=True), name


def test_every_type_that_uproot_writes_into_an_rntuple(tmp_path: Path) -> None:
    records = [{"x": n, "y": [0.5] * (n % 3)} for n in range(20)]
    columns = {
        "optional": ak.Array([None if n % 4 == 0 else n for n in range(20)]),
        "lists of optional": ak.Array([[None, n] for n in range(20)]),
        "union": ak.Array([n if n % 2 else "even" for n in range(20)]),
        "record": ak.Array(records),
        "lists of records": ak.Array([records[: n % 5] for n in range(20)]),
        "tuple": ak.Array([(n, f"{n}") for n in range(20)]),
        "fixed": ak.Array(np.arange(120, dtype=np.uint64).reshape(20, 2, 3)),
        "fixed of lists": ak.to_regular(ak.Array([[[n], [n, n]] for n in range(20)]), axis=1),
        "three deep": ak.Array([[[[n]] * (n % 3)] * (n % 2) for n in range(20)]),
        "texts": ak.Array([["", "a", "π"][: n % 4] for n in range(20)]),
    }
    with uproot.recreate(tmp_path / "n.root") as file:
        events = ak.zip(columns, depth_limit=1)
        file.mkrntuple("n", events.layout.form).extend(events)
    arrays = sr.convert(tmp_path / "n.root", name="written").arrays()
    with uproot.open(tmp_path / "n.root") as file:
        for name, want in columns.items():
            assert ak.to_list(arrays[name]) == ak.to_list(want), name
            original = file["n"][name].array()
            assert arrays[name].type == original.type
            # Awkward holds the types of a union for different where one is masked and the other never missing.
            assert name == "union" or same(arrays[name], original), name


def test_columns_beside_unreadable_ones_are_handed_over(shared_data: Path) -> None:
    """So that finding out what can be read does not take reading it twice."""
    path = shared_data / "rootfiles" / "uproot-issue-123b.root"
    names = ["TruthMetaDataAux./TruthMetaDataAux.weightNames", "TriggerMenuAux./TriggerMenuAux.chainSignatureLogics"]
    with closing(open_source(str(path), "MetaData", load_settings())) as source:
        bad = next(name for name in source.columns if name.endswith("xAOD::AuxInfoBase"))
        with pytest.raises(UnreadableColumnsError) as caught:
            source.read([names[0], bad, names[1]], 0, 1)
    assert list(caught.value.reasons) == [bad]
    assert list(caught.value.arrays) == names
