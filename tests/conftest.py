"""How the suite runs, whoever starts it."""

import os
import signal

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
