"""What can go wrong in a Lava run; apart from it, so that it can be caught without importing Lava."""


class LavaRunError(RuntimeError):
    """A Lava process failed, was killed or made no progress; the message has its name, and its traceback if any."""


class LavaMissingError(RuntimeError):
    """Lava is not installed; says how to install it."""


class Loihi2UnavailableError(RuntimeError):
    """What is missing to run on a Loihi 2 chip, in one line."""
