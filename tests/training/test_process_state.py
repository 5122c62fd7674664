import logging
import signal
import threading
import warnings

import pytest
from lightning.fabric.utilities.warnings import PossibleUserWarning

from lightningtune.training.process_state import own_interrupts, quiet_lightning


def test_advice_is_silenced_and_warnings_are_not():
    with quiet_lightning():
        assert logging.getLogger("lightning.pytorch").getEffectiveLevel() == logging.WARNING
        warnings.warn("use more workers", PossibleUserWarning, stacklevel=1)  # an error, were it not silenced
        with pytest.raises(UserWarning, match="something is wrong"):
            warnings.warn("something is wrong", UserWarning, stacklevel=1)


def test_levels_are_restored_after_an_error():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with pytest.raises(KeyError), quiet_lightning():
        raise KeyError
    assert logger.level == before


def test_what_a_user_has_silenced_stays_silent():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with quiet_lightning():
            assert logger.level == logging.CRITICAL
        assert logger.level == logging.CRITICAL
    finally:
        logger.setLevel(before)


def test_ctrl_c_is_given_back():
    before = signal.getsignal(signal.SIGINT)
    with own_interrupts():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_has_no_interrupts_to_give_back():
    entered = threading.Event()

    def run():
        with own_interrupts():
            entered.set()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert entered.is_set()
