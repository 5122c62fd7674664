"""Telling by an error that a worker of a DataLoader was killed."""

import os
import pickle
import signal
import sys
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import multiprocessing

from lightningtune.contract import StopReason
from lightningtune.training.failures import failure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="torch shares tensors by descriptors on Linux")


def share(connection):
    connection.send_bytes(ForkingPickler.dumps(torch.zeros(3)))
    signal.pause()


def test_a_tensor_of_a_worker_that_was_killed_tells_of_it():
    """As a batch does that a DataLoader's worker has sent: it is taken over from the worker when it is received."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    worker = context.Process(target=share, args=[theirs])
    worker.start()
    tensor = ours.recv_bytes()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    with pytest.raises(ConnectionError) as raised:
        pickle.loads(tensor)
    assert failure(raised.value).reason is StopReason.KILLED


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "no tracker there"), RuntimeError("worker"), EOFError()])
def test_other_errors_do_not(error):
    assert failure(error).reason is StopReason.FAILED
    with pytest.raises(type(error)) as raised:
        raise error
    assert failure(raised.value).reason is StopReason.FAILED
