import os

import pytest
from lightning.pytorch.utilities import rank_zero_only

from lightningtune import ConfigurationError
from lightningtune.workers.devices import get_rank_variables, only_rank, refuse_launcher, take_rank

TOLD = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """Be what torchrun has started as rank 1."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    for name in ("MASTER_ADDR", "NODE_RANK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in TOLD.items():
        monkeypatch.setenv(name, value)


def test_a_trial_of_one_process_is_rank_0_and_the_hosts_environment_comes_back():
    with only_rank():
        assert not {*TOLD} & {*os.environ}
        assert rank_zero_only.rank == 0
        os.environ["MASTER_PORT"] = "1"
    assert TOLD.items() <= os.environ.items()
    assert rank_zero_only.rank == 1


def test_a_rank_has_the_variables_that_it_is_given_and_no_other():
    first, second = get_rank_variables(2)
    take_rank(first)
    assert first.items() <= os.environ.items()
    assert "TORCHELASTIC_USE_AGENT_STORE" not in os.environ
    assert rank_zero_only.rank == 0
    take_rank(second)
    assert rank_zero_only.rank == 1
    assert first["MASTER_PORT"] == second["MASTER_PORT"] == os.environ["MASTER_PORT"] != TOLD["MASTER_PORT"]
    assert get_rank_variables(1) == [{}]


def test_a_study_in_each_rank_of_a_launcher_is_refused(monkeypatch):
    with pytest.raises(ConfigurationError, match=r"one of 2 \(RANK=1, LOCAL_RANK=1, WORLD_SIZE=2\).* once"):
        refuse_launcher()
    monkeypatch.setenv("WORLD_SIZE", "1")
    refuse_launcher()
    monkeypatch.delenv("WORLD_SIZE")
    refuse_launcher()
