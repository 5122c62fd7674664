"""Loggers for tests: one that keeps what it is told, and ones that fail."""

import functools

from lightning.pytorch.loggers import CSVLogger, Logger

TOLD = []
"""What loggers were told, in order, as ``(directory, method, argument)``."""


class Records(Logger):
    """Keeps what it is told."""

    def __init__(self, save_dir: str = "nowhere"):
        super().__init__()
        self._folder = save_dir
        TOLD.append((save_dir, "made", None))

    name = version = None

    @property
    def save_dir(self):
        return self._folder

    @property
    def experiment(self):
        return TOLD

    def log_metrics(self, metrics, step=None):
        TOLD.append((self._folder, "log_metrics", dict(metrics)))

    def log_hyperparams(self, params, *args, **kwargs):
        TOLD.append((self._folder, "log_hyperparams", dict(params)))

    def finalize(self, status):
        TOLD.append((self._folder, "finalize", status))


class Fails(Records):
    """Raises where it is told to."""

    def __init__(self, at: str = "made"):
        super().__init__()
        self.at, self.calls = at, 0
        self._fail("made")

    @property
    def experiment(self):
        self._fail("experiment")
        return super().experiment

    @property
    def save_dir(self):
        self._fail("save_dir")

    @property
    def root_dir(self):
        self._fail("root_dir")

    @property
    def log_dir(self):
        self._fail("log_dir")

    @property
    def name(self):
        self._fail("name")
        return "name"

    @functools.cached_property
    def version(self):
        self._fail("version")
        return "version"

    def log_metrics(self, metrics, step=None):
        self._fail("log_metrics")

    def log_hyperparams(self, params, *args, **kwargs):
        self._fail("log_hyperparams")

    def log_graph(self, model, input_array=None):
        self._fail("log_graph")

    def save(self):
        self._fail("save")

    def finalize(self, status):
        self._fail("finalize")

    def _fail(self, method):
        if method == self.at:
            self.calls += 1
            raise ConnectionError("no route\nto the server.")


class Kinds:
    """Holds a logger, and makes one."""

    class Inner(Records):
        pass

    @classmethod
    def make(cls) -> Records:
        return cls.Inner()


def make_csv(folder: str) -> CSVLogger:
    return CSVLogger(folder, name="", version="made")
