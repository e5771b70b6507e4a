import subprocess
import sys

import pytest

pytest.importorskip("torch")

from storagering.errors import ConfigError, NotFoundError
from storagering.training import RECIPES, TrainingOptions, find_recipe
from storagering.training.fit import learning_rate_at


def test_recipes_are_found_by_name() -> None:
    for name, recipe in RECIPES.items():
        assert find_recipe(name) is recipe
        assert recipe.name == name


def test_a_misspelt_recipe_names_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="no recipe 'jet-depset'; nearest names: 'jet-deepset'"):
        find_recipe("jet-depset")


def test_the_deepset_has_the_documented_size() -> None:
    model = find_recipe("jet-deepset").make_model()
    assert sum(p.numel() for p in model.parameters()) == 17_537


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate", "checkpoint_every", "threads"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_numbers_must_be_positive(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be positive"):
        TrainingOptions(**{name: value})  # type: ignore[arg-type]


def test_learning_rate_rises_for_an_epoch_and_ends_near_zero() -> None:
    rates = [learning_rate_at(s, steps_per_epoch=10, total_steps=100, highest=2.0) for s in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] <= 2.0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 0.001


_WITHOUT_TORCH = """
import sys
from storagering.errors import MissingExtraError
sys.modules["torch"] = None
import storagering.training, storagering.models
try:
    {statement}
except MissingExtraError as error:
    print(isinstance(error, ImportError), error)
"""


@pytest.mark.parametrize(
    "statement", ["from storagering.training import train", "from storagering.models import DeepSet"]
)
def test_without_torch_the_pip_command_is_given(statement: str) -> None:
    script = _WITHOUT_TORCH.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True")
    assert 'pip install "storagering[torch]"' in done.stdout


def test_naming_the_package_does_not_import_torch() -> None:
    script = "import sys, storagering.training, storagering.models; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_unknown_names_are_attribute_errors() -> None:
    import storagering.models
    import storagering.training

    for module in (storagering.models, storagering.training):
        with pytest.raises(AttributeError, match="nonsense"):
            module.nonsense  # noqa: B018
