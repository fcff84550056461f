"""What can go wrong with a C program, apart from bad input; nothing heavy is imported here."""

from nqlava.errors import InputError


class CompilerError(InputError):
    """No C compiler, or one that fails. The message says which, and what to do."""


class ProgramError(RuntimeError):
    """A program that did not end as it should; the message says how."""
