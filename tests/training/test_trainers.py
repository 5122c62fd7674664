import pytest
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar

from lightningtune.training.trainers import prints_itself


class Bar(TQDMProgressBar):
    """A user's own."""


@pytest.mark.parametrize(
    ("settings", "callbacks", "prints"),
    [
        ({"max_epochs": 2, "enable_progress_bar": False}, [EarlyStopping("val_loss")], False),
        ({"enable_model_summary": True}, [], True),
        ({"callbacks": [{"class_path": "EarlyStopping"}, {"class_path": "RichModelSummary"}]}, [], True),
        ({"callbacks": "Bar"}, [], True),
        ({"callbacks": {"class_path": "no.such.ProgressBar"}}, [], False),
        ({}, [Bar()], True),
    ],
)
def test_it_is_known_what_prints(settings, callbacks, prints):
    assert prints_itself(settings, callbacks) == prints
