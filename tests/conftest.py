"""How the suite runs, whoever starts it."""

import signal

# A shell's background job, such as a CI runner's, ignores Ctrl-C, and every process that it starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
