"""How the suite runs, whoever starts it."""

import os
import signal

# A shell's background job, such as a CI runner's, ignores Ctrl-C, and every process that it starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The nets are tiny: the threads of several processes on few cores would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
