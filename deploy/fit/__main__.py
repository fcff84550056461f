"""Does it fit the chip? ``python -m deploy.fit net.h5``: cores, memory, axons, activity and energy. See docs/fit.md."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.images import add_arguments, load_for
from nqlava.command.parser import Parser
from nqlava.errors import InputError
from nqlava.info import Info

if TYPE_CHECKING:
    from deploy.fit.activity import Activity
    from deploy.fit.wiring import Wiring
    from nqlava.network import IntegerNetwork

EXIT_REPORTED, EXIT_DOES_NOT_FIT = 0, 1
_CHIPS = ("loihi1", "loihi2")


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "deploy.fit",
        "Report whether a netx file fits Loihi 1 and Loihi 2 by their published limits, how active it is "
        "on test images, and what that costs.",
        ["deploy.fit net.h5", "deploy.fit net.h5 --samples 1000 --data cifar10 --require loihi2 --json fit.json"],
        "exit status: 0 reported, whether it fits or not; 1 it does not fit one chip that --require names; 2 bad input"
        "; 70 an internal error",
    )
    made.add_argument("net", type=Path, help="netx file written by export.to_netx")
    made.add_argument("--chip", choices=[*_CHIPS, "both"], default="both", help="default: %(default)s")
    made.add_argument(
        "--storage",
        choices=["shared", "expanded"],
        default="shared",
        help="what the verdict assumes: a core stores each weight of a convolution once, or once per synapse; both are "
        "reported (default: %(default)s)",
    )
    add_arguments(made, "test images; 0 measures no activity")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the report to FILE")
    made.add_argument(
        "--require",
        nargs="+",
        choices=_CHIPS,
        action="extend",
        default=[],
        help="exit with 1 unless it fits one such chip",
    )
    return made


def _check(options: argparse.Namespace) -> None:
    if not 0 <= options.samples <= 10_000_000:
        raise InputError(f"--samples is {options.samples}; allowed: 0..10000000")
    for chip in options.require:
        if options.chip not in (chip, "both"):
            raise InputError(f"--require is {chip}; allowed: {options.chip}, as --chip")


def _activity(
    options: argparse.Namespace, network: "IntegerNetwork", wired: "dict[str, tuple[Wiring, ...]]"
) -> "Activity | None":
    if not options.samples:
        return None
    from deploy.fit.activity import measure
    from nqlava.command.progress import progress

    steps = Info.of(network.info).steps_or(options.steps)
    data = load_for(options.net, network, options.data, ", or --samples 0").sample(options.samples, options.seed)
    images = data.pixels
    with progress(len(data), "images", "activity") as bar:
        return measure(network, wired, images, steps, bar.update)


def _run(options: argparse.Namespace) -> int:
    _check(options)
    from deploy.files import write_json
    from deploy.fit.examine import examine
    from deploy.fit.text import lines
    from deploy.fit.wiring import wire
    from nqlava import netx
    from nqlava.command.files import check_output

    if options.json is not None:
        check_output(options.json, inputs=[options.net])
    network = netx.read(options.net)
    wired = wire(network)
    activity = _activity(options, network, wired)
    chips = _CHIPS if options.chip == "both" else (options.chip,)
    report = examine(str(options.net), network, wired, activity, options.data, chips, options.storage)
    for line in lines(report):
        print(line)
    if options.json is not None:
        write_json(options.json, report.content())
    failed = [fit.chip.key for fit in report.fits if fit.chip.key in options.require and not fit.fits]
    return EXIT_DOES_NOT_FIT if failed else EXIT_REPORTED


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
