"""A command in which a process model fails on purpose: ``python -m campaign.failing HOW WHERE COMMAND [OPTION …]``.

With HOW before or after, the process model whose class is WHERE raises at the beginning or the end of a time step; with
stall, the process named WHERE, image source or layer, never comes to its end.
"""

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

STEP = 2
STALL_SECONDS = 3.0


def _failing(original: Callable[[Any], None], how: str) -> Callable[[Any], None]:
    def run_spk(self: Any) -> None:
        if self.time_step == STEP:
            if how == "after":
                original(self)
            raise ZeroDivisionError("on purpose")
        original(self)

    return run_spk


def _stalling(original: Callable[[Any], None], name: str) -> Callable[[Any], None]:
    def run_spk(self: Any) -> None:
        if self.time_step == STEP and self.proc_params["name"] == name:
            time.sleep(3600)
        original(self)

    return run_spk


def main() -> int:
    how, where, command, *options = sys.argv[1:]
    module = importlib.import_module(command)
    if how == "stall":
        from deploy.lava import build, models

        stream = build.stream

        def impatient(*arguments: Any) -> Any:
            """``stream``, whose last argument but one is the time that it waits."""
            return stream(*arguments[:-2], STALL_SECONDS, arguments[-1])

        with (
            patch.object(build, "stream", impatient),
            patch.object(build, "place", lambda network, *_: [slice(i, i + 1) for i in range(len(network.layers))]),
            patch.object(models.PyLayerGroup, "run_spk", _stalling(models.PyLayerGroup.run_spk, where)),
            patch.object(models.PyBatchSource, "run_spk", _stalling(models.PyBatchSource.run_spk, where)),
        ):
            return module.main(options)
    home, _, name = where.rpartition(".")
    model = getattr(importlib.import_module(home), name)
    with patch.object(model, "run_spk", _failing(model.run_spk, how)):
        return module.main(options)


if __name__ == "__main__":
    raise SystemExit(main())
