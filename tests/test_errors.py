import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightningtune import errors
from lightningtune.errors import ConfigurationError, did_you_mean, redact


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:1234@host/db", "postgresql://***@host/db"),
        ("postgresql://me:a b/c@d@host/db", "postgresql://***@host/db"),
        ("cannot open 'redis://:it is 1@host' now", "cannot open 'redis://***@host' now"),
        ("at http://me:1@a/x and http://b, or http://c:2@d", "at http://***@a/x and http://b, or http://***@d"),
        ("x://h/?token=1&n=2&MY_API_KEY=3", "x://h/?token=***&n=2&MY_API_KEY=***"),
        ("sqlite:////home/a@b/study.db", "sqlite:////home/a@b/study.db"),
        ("see https://optuna.org, or mail a@b", "see https://optuna.org, or mail a@b"),
    ],
)
def test_a_url_shows_neither_user_nor_password(text, shown):
    assert redact(text) == redact(shown) == str(ConfigurationError(text)) == shown


_NEAR = st.from_regex(r"[^\s@'\"`]{0,9}", fullmatch=True)


@given(st.text(), _NEAR, _NEAR, st.text())
def test_a_password_in_any_text_is_not_shown(before, left, right, after):
    url = f"postgresql://me:{left}hunter2{right}@host/db"
    assert "hunter2" not in redact(f"{before} {url} {after}") + redact(url) + redact(repr(url))
