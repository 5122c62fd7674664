import pytest

from lightningtune.study.objective import looks_reversed, make_objective


@pytest.mark.parametrize(
    ("metric", "direction", "said"),
    [
        ("val_acc", "minimize", "'val_acc' is minimized: is that meant"),
        ("f1", "minimize", "'f1' is minimized"),
        ("val/auroc", "minimize", "'val/auroc' is minimized"),
        ("val_loss", "maximize", "'val_loss' is maximized"),
        ("val_rmse", "maximize", "'val_rmse' is maximized"),
        ("val_acc", "maximize", None),
        ("val_loss", "minimize", None),
        ("place", "minimize", None),
        ("size", "minimize", None),
    ],
)
def test_a_direction_against_the_metrics_name_is_asked_about(metric, direction, said):
    found = looks_reversed(make_objective(metric, None, [direction]))
    assert found is None if said is None else found.startswith(said)
