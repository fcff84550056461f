"""Bad input, which a message describes in one line. Only the standard library is imported here."""

_LONGEST = 4000


class InputError(ValueError):
    """Bad input: an option, a file's content or an argument. Base of all such exceptions.

    Commands print the message and end with exit status 2. Any other exception is an internal error. The message names
    the place, the value and what is allowed. It is always one line.
    """

    def __init__(self, message: object) -> None:
        super().__init__(shown(message, _LONGEST))

    def __reduce__(self) -> tuple[type["InputError"], tuple[object, ...]]:
        """Pickled by its message: tblib, which Dask installs, cannot restore a class with two bases otherwise."""
        return type(self), self.args


class FileError(InputError, OSError):
    """A file named by the user that cannot be read or written. The message names it and the system's reason."""


class MissingFileError(FileError, FileNotFoundError):
    """A file named by the user that does not exist."""


def shown(value: object, most: int = 80) -> str:
    """A value on one line that does nothing to a terminal: control characters are escaped, and what is long is cut."""
    try:
        text = str(value)[: most + 1]
    except ValueError:  # an integer of more digits than Python converts
        text = f"of type {type(value).__name__}, too long to show"
    line = "".join(" " if c.isspace() else c if c.isprintable() else _escaped(c) for c in text[:most])
    return line if len(text) <= most else f"{line}…"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
