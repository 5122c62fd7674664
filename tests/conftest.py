"""How the suite runs, whoever starts it."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, settings

# A shell's background job, such as a CI runner's, ignores Ctrl-C, and after nohup a closed terminal; every process that
# it starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# The nets are tiny: the threads of several processes on few cores would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How long an example takes is a matter of what else the machine does.
# The same examples in each run: what fails, fails where it was written, and not at another's next change.
settings.register_profile("busy", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def tune(tmp_path):
    """Build an optimizer with small defaults, each of which a test may replace."""

    def build(**changed):
        from nets import Line, Points

        from lightningtune import OptunaDrivenOptimizer

        given = {
            "base_config": {"trainer": {"max_epochs": 2, "accelerator": "cpu"}},
            "search_space": {"lr": ("loguniform", 1e-3, 1.0)},
            "model_class": Line,
            "datamodule_class": Points,
            "n_trials": 3,
            "experiment_dir": tmp_path,
            "verbose": False,
            "seed": 0,
        }
        return OptunaDrivenOptimizer(**{**given, **changed})

    return build


@pytest.fixture
def tune_isolated(tune):
    """Build such an optimizer whose trials run in processes of their own."""

    def build(**changed):
        sampler = optuna.samplers.RandomSampler(seed=0)
        return tune(**{"isolate": True, "n_trials": 4, "sampler": sampler, **changed})

    return build


@pytest.fixture
def script(tmp_path):
    """Start a script that sees the modules of the tests."""

    def start(text, *arguments, how=(), **options):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": tmp_path}
        command = [sys.executable, *(how or [str(path)]), *arguments]
        return subprocess.Popen(command, env=environment, **{**pipes, **options})

    return start
