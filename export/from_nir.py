"""Make a netx file from a NIR graph: ``python -m export.from_nir net.nir net.h5``. See docs/nir.md."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nqlava.command.parser import Parser
from nqlava.errors import InputError


def parser() -> Parser:
    """The command's options."""
    parser = Parser(
        "export.from_nir",
        "Make a netx file from a graph of the Neuromorphic Intermediate Representation that computes in integers.",
        ["export.from_nir net.nir net.h5", "export.from_nir sinabs.nir net.h5 --reset soft --spike '>='"],
    )
    parser.add_argument("graph", type=Path, help="NIR file")
    parser.add_argument("net", type=Path, help="netx file to write")
    parser.add_argument(
        "--spike",
        choices=[">", ">="],
        help="where IF neurons of other writers fire, v > v_threshold or v >= v_threshold (default: >, as NIR's "
        "equations; graphs of export.to_nir say it themselves)",
    )
    parser.add_argument(
        "--reset",
        choices=["hard", "soft"],
        help="what they do then, set v to v_reset or subtract v_threshold (default: hard, as NIR's equations)",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    try:
        from export.nir.reader import Reading, read
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error}; allowed: with the package nir, pip install -e '.[nir]' -c constraints.txt"
        ) from None
    from nqlava import netx
    from nqlava.command.files import check_folder, check_output

    check_output(options.net, inputs=[options.graph])
    check_folder(options.net)
    reading = Reading(options.spike or ">", options.reset or "hard")
    imported = read(options.graph, reading)
    if imported.own and (options.spike or options.reset):
        raise InputError("--spike and --reset are given; allowed: neither, the graph of export.to_nir says both")
    netx.write(imported.network, options.net)
    network = imported.network
    print(
        f"wrote {options.net} ({options.net.stat().st_size:,} bytes, {len(network.layers)} layers, "
        f"network {network.digest()[:16]})"
    )
    if imported.changed:
        print("warning: the graph was changed after export.to_nir: left out what it says of accuracy and origin",
              file=sys.stderr)  # fmt: skip
    if not imported.own:
        rest = "set v to 0" if reading.reset == "hard" else "subtract v_threshold"
        print(
            f"warning: IF nodes were read as: fire where v {reading.spike} v_threshold, then {rest}, v(0) = 0, "
            "input 0..255; --spike and --reset change the first two",
            file=sys.stderr,
        )


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
