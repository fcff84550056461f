"""``python -m nqlava`` is the command ``nqlava``."""

from nqlava.command.main import main

raise SystemExit(main())
