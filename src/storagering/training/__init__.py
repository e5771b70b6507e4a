"""Training on cached datasets: recipes, checkpoints that resume exactly, and honest reports.

`train` is the door. Everything here needs the extra ``storagering[torch]`` and is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from storagering.errors import MissingExtraError

if TYPE_CHECKING:
    from storagering.training.fit import train
    from storagering.training.options import Report, TrainingOptions
    from storagering.training.recipes import RECIPES, find_recipe
    from storagering.training.state import load_model

__all__ = ["RECIPES", "Report", "TrainingOptions", "find_recipe", "load_model", "train"]

_MODULES = {
    "RECIPES": "recipes",
    "Report": "options",
    "TrainingOptions": "options",
    "find_recipe": "recipes",
    "load_model": "state",
    "train": "fit",
}
_EXTRA = ("torch", "safetensors", "sklearn", "matplotlib")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise MissingExtraError(f'training needs {error.name}: pip install "storagering[torch]"') from error
