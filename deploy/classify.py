"""Classes of pictures without labels: ``python -m deploy.classify net.h5 picture.png``."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deploy.compare.settings import BACKENDS, EXIT_EXACT, EXIT_MISMATCH, FAILURES, Settings
from nqlava.command.parser import Parser
from nqlava.errors import InputError, shown
from nqlava.info import Info

if TYPE_CHECKING:
    from nqlava.network import IntegerNetwork

_SHOWN = 3


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "deploy.classify",
        "Class and scores of pictures, and the time step from which the class did not change. Pictures of another size "
        "than the network's are resized, and the middle is cut out.",
        [
            "deploy.classify net.h5 picture.png",
            "deploy.classify net.h5 photos/*.jpg --T 8 --json classes.json",
            "deploy.classify net.h5 picture.png --backend cpu",
        ],
    )
    made.add_argument("net", type=Path, help="netx file written by export.to_netx")
    made.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="image files")
    made.add_argument("--T", type=int, dest="steps", help="time steps per picture (default: the T in the file)")
    made.add_argument(
        "--backend", choices=BACKENDS, help="run them there too, and compare (default: the integer engine alone)"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    return made


def classified(readout: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Class after the last step, and the step from which it did not change, both (N,), of read-outs (N, T, K)."""
    classes = readout.argmax(axis=-1)
    same = classes[:, ::-1] == classes[:, -1:]
    return classes[:, -1], readout.shape[1] + 1 - np.logical_and.accumulate(same, axis=1).sum(axis=1)


def _run(options: argparse.Namespace) -> int:
    from deploy.files import write_json
    from nqlava import netx
    from nqlava.command.files import check_output
    from nqlava.engine.integer import Engine
    from train.data.views import fitted

    network = netx.read(options.net)
    try:
        info = Info.of(network.info)
    except InputError as error:
        raise InputError(f"{options.net}: {error}") from None
    steps = info.steps_or(options.steps)
    names = info.classes or tuple(map(str, range(network.classes)))
    if len(names) != network.classes:
        raise InputError(f"{options.net} names {len(names)} classes for {network.classes} outputs; export it again")
    channels, height, width = network.input_shape
    if channels != 3:
        raise InputError(f"{options.net} needs images of {channels} channels; classify reads red, green and blue only")
    if options.json is not None:
        check_output(options.json, inputs=[options.net, *options.pictures])
    images = np.stack([fitted(picture, height, width) for picture in options.pictures]).transpose(0, 3, 1, 2)
    readout = Engine(network).scores(images, steps)
    differing = 0
    if options.backend is not None:
        settings = Settings(options.net, steps=steps, backend=options.backend, digest=network.digest())
        differing = _differing(settings, network, images, readout)
    rows = []
    for picture, potentials, found, step in zip(options.pictures, readout[:, -1], *classified(readout), strict=True):
        best = np.argsort(-potentials, kind="stable")[:_SHOWN]
        scores = ", ".join(f"{shown(names[index])} {potentials[index]:,}" for index in best)
        print(f"{shown(picture, 4000)}: {shown(names[found], 400)}, from step {step} of {steps} on; scores: {scores}")
        rows.append({"picture": str(picture), "class": names[found], "index": int(found), "from_step": int(step),
                     "scores": potentials.tolist()})  # fmt: skip
    if options.backend is not None:
        count = f"{len(rows)} picture{'s' if len(rows) > 1 else ''}"
        where = "the C program" if options.backend == "c" else "Lava"
        equal = f"EXACT: {where} = engine in every read-out of {count}"
        print(f"NOT EXACT: {differing} values differ" if differing else equal)
    if options.json is not None:
        content: dict[str, Any] = {"net": str(options.net), "network_sha256": network.digest(), "T": steps}
        write_json(options.json, content | {"backend": options.backend or "engine", "classes": names, "pictures": rows})
    return EXIT_MISMATCH if differing else EXIT_EXACT


def _differing(
    settings: Settings, network: "IntegerNetwork", images: NDArray[np.uint8], readout: NDArray[np.int32]
) -> int:
    """How many read-outs of the backend are not those of the engine."""
    from deploy.compare.backends import traces
    from nqlava.trace import concatenate

    return int((concatenate(list(traces(settings, network, images))).readout != readout).sum())


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv, FAILURES)


if __name__ == "__main__":
    raise SystemExit(main())
