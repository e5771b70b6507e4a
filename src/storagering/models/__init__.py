"""Bundled networks and their physics inputs; everything here needs torch.

`deepset` holds the permutation-invariant jet classifier, `jet_features` what it sees of a jet.
"""

import importlib
from typing import TYPE_CHECKING, Any

from storagering.errors import MissingExtraError

if TYPE_CHECKING:
    from storagering.models.deepset import DeepSet, JetInputs
    from storagering.models.jet_features import jet_inputs

__all__ = ["DeepSet", "JetInputs", "jet_inputs"]

_MODULES = {"DeepSet": "deepset", "JetInputs": "deepset", "jet_inputs": "jet_features"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f'models need {error.name}: pip install "storagering[torch]"') from error
