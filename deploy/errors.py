"""What can go wrong in a Lava run; apart from it, so that it can be caught without importing Lava."""


class LavaRunError(RuntimeError):
    """A Lava process failed, was killed or made no progress; the message has its name, and its traceback if any."""


class LavaMissingError(RuntimeError):
    """Lava is not installed; says how to install it."""


class Loihi2UnavailableError(RuntimeError):
    """What is missing to run on a Loihi 2 chip, in one line."""


class CoverageError(RuntimeError):
    """A sample was compared twice or not at all; the message says which."""


class WorkerError(RuntimeError):
    """An internal error in a worker process; the message is its traceback."""


class ClusterError(RuntimeError):
    """The Dask cluster cannot run the evaluation: something is missing there, or its workers died; in one line."""
