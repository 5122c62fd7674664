"""What a trial's process says to the host."""

import pickle

import pytest

from lightningtune import ConfigurationError, TrialError
from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.workers.messages import pickle_result


class Particular(Exception):  # noqa: N818 - it is
    """It can be pickled, and not be built again."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class ParticularError(Particular, ConfigurationError):
    """A mistake of the user's."""


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (KeyError("a"), KeyError, "'a'"),
        (Particular(1, 2), TrialError, "Particular: 1 and 2"),
        (ParticularError(1, 2), ConfigurationError, "1 and 2"),
        (ValueError(lambda: 0), TrialError, "ValueError: <function"),
    ],
)
def test_an_error_that_cannot_travel_arrives_as_its_message(error, kind, text):
    sent = TrialOutcome.failed(error)
    outcome = pickle.loads(pickle_result(sent))
    assert type(outcome.error) is kind
    assert str(outcome.error).startswith(text)
    assert (outcome.detail, outcome.traceback) == (sent.detail, sent.traceback)


def test_what_is_no_failure_travels_as_it_is():
    for result in (True, False, TrialOutcome(StopReason.COMPLETED, score=(1.0,))):
        assert pickle.loads(pickle_result(result)) == result
