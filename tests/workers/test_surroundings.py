import os
import pickle
import sys
from pathlib import Path

import pytest
import torch

from lightningtune.workers.surroundings import Surroundings, TorchSettings


@pytest.mark.parametrize("given", [None, "/the/users/own"])
def test_a_new_interpreter_finds_the_package_and_its_children_the_users_path(monkeypatch, tmp_path, given):
    if given is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", given)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.chdir(tmp_path)
    here = pickle.loads(pickle.dumps(Surroundings.here()))
    path, variable = [str(tmp_path), *sys.path[1:]], here.environment()["PYTHONPATH"]
    assert variable.split(os.pathsep) == path
    monkeypatch.setenv("PYTHONPATH", variable)
    monkeypatch.chdir(tmp_path.parent)
    sys.path[:] = ["elsewhere"]
    here.take_over()
    assert (sys.path, Path.cwd(), os.environ.get("PYTHONPATH")) == (path, tmp_path, given)


def test_torch_computes_as_in_the_host():
    before = TorchSettings.here()
    try:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
        torch.autograd.set_detect_anomaly(True, check_nan=False)
        there = pickle.loads(pickle.dumps(TorchSettings.here()))
        before.take_over()
        assert TorchSettings.here() == before != there
        there.take_over()
        assert TorchSettings.here() == there
        assert torch.zeros(1).dtype is torch.float64
    finally:
        before.take_over()
