import inspect

import pytest

from lightningtune import errors
from lightningtune.errors import did_you_mean


@pytest.mark.parametrize(
    ("name", "options", "nearest"),
    [
        ("val_los", ["train_loss", "val_loss"], "val_loss"),
        ("lr", ["hidden", "learning_rate"], "learning_rate"),
        ("learning_rate", ["hidden", "lr"], "lr"),
        ("model.lr", ["data.lr", "model.init_args.learning_rate"], "model.init_args.learning_rate"),
        ("trainer.max_epoch", ["trainer.max_epochs", "trainer.min_epochs"], "trainer.max_epochs"),
        ("max", ["minimize", "maximize"], "maximize"),
        ("zzz", ["lr", "hidden"], None),
        ("x", [], None),
    ],
)
def test_the_nearest_name_is_suggested(name, options, nearest):
    assert did_you_mean(name, options) == (f" Did you mean '{nearest}'?" if nearest else "")


def test_the_tree_in_the_docstring_is_the_tree_in_the_code():
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    words = {word for line in errors.__doc__.splitlines() for word in line.replace("(", " ").split()}
    assert classes <= words
    assert all(issubclass(getattr(errors, name), errors.LightningTuneError) for name in classes)


def test_configuration_errors_are_value_errors():
    assert issubclass(errors.ConfigurationError, ValueError)
    assert issubclass(errors.NoResultError, LookupError)
