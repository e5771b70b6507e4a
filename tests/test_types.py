import numpy as np
import pytest

from storagering.errors import CorruptDataError, SchemaError
from storagering.formats.forms import assign_keys, describe_column, to_batch
from storagering.types import Array, Batch, ColumnStatistics, Schema


@pytest.fixture
def schema() -> Schema:
    return assign_keys([describe_column("Jet_pt", np.zeros(2, "f4")), describe_column("MET_pt", np.zeros(2))])


def test_select(schema: Schema) -> None:
    assert schema.select(None) is schema
    assert schema.select(["MET_pt"]).names == ("MET_pt",)
    with pytest.raises(SchemaError, match="nearest names: 'Jet_pt'"):
        schema.select(["Jet_p"])
    with pytest.raises(SchemaError, match="twice"):
        schema.select(["MET_pt", "MET_pt"])


@pytest.mark.scenario(21)
def test_batches_are_checked_against_their_schema(schema: Schema) -> None:
    good = to_batch(schema, {"Jet_pt": np.ones(3, "f4"), "MET_pt": np.ones(3)}, 3)
    assert len(good.check()) == 3
    wrong: list[dict[str, tuple[Array, ...]]] = [
        {"Jet_pt": (np.ones(3),), "MET_pt": (np.ones(3),)},
        {"Jet_pt": (np.ones(2, "f4"),), "MET_pt": (np.ones(3),)},
        {"Jet_pt": (np.ones((3, 2), "f4"),), "MET_pt": (np.ones(3),)},
        {"Jet_pt": (), "MET_pt": (np.ones(3),)},
    ]
    for arrays in wrong:
        with pytest.raises(CorruptDataError, match="'Jet_pt'"):
            Batch(schema, 3, arrays).check()


def test_std_of_nothing_is_unknown() -> None:
    assert ColumnStatistics(count=2, nan_count=1, inf_count=1).std is None
    assert ColumnStatistics(count=4, mean=0.0, sum_squares=16.0).std == 2.0
