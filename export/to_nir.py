"""Express a netx file as a NIR graph: ``python -m export.to_nir net.h5 net.nir``. See docs/nir.md."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nqlava.command.parser import Parser
from nqlava.errors import InputError

WARNING = (
    "NIR has no field for reset by subtraction, v(0), the spike at v = v_threshold or the 24-bit limit: they are in "
    "the metadata, which readers ignore; docs/nir.md says what to set in them"
)


def parser() -> Parser:
    """The command's options."""
    parser = Parser(
        "export.to_nir",
        "Express an integer network as a graph of the Neuromorphic Intermediate Representation.",
        ["export.to_nir net.h5 net.nir", "export.to_nir net.h5 for-snntorch.nir --fold-pooling --readout current"],
    )
    parser.add_argument("net", type=Path, help="netx file written by export.to_netx")
    parser.add_argument("graph", type=Path, help="NIR file to write")
    parser.add_argument(
        "--fold-pooling",
        action="store_true",
        help="keep average pooling in the kernels, for readers without SumPool2d (default: SumPool2d nodes)",
    )
    parser.add_argument(
        "--readout",
        choices=["integrate", "current"],
        default="integrate",
        help="end in an I node, or give Output the current of each step, for readers without I (default: %(default)s)",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    try:
        from export.nir import file as nir_file
        from export.nir.graph import mistyped, to_graph
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error}; allowed: with the package nir, pip install -e '.[nir]' -c constraints.txt"
        ) from None
    from nqlava import netx
    from nqlava.bounds import float32_exact
    from nqlava.command.files import check_folder, check_output

    check_output(options.graph, inputs=[options.net])
    check_folder(options.graph)
    network = netx.read(options.net)
    graph = to_graph(network, fold_pooling=options.fold_pooling, integrate_readout=options.readout == "integrate")
    nir_file.write(graph, options.graph)
    size = options.graph.stat().st_size
    print(
        f"wrote {options.graph} ({size:,} bytes, {len(graph.nodes)} nodes, {len(graph.edges)} edges, "
        f"network {network.digest()[:16]})"
    )
    print(f"warning: {WARNING}", file=sys.stderr)
    if wrong := mistyped(graph):
        print(
            f"warning: nir's type check does not know grouped and non-square kernels ({', '.join(wrong)}); "
            "read with nir.read(path, type_check=False)",
            file=sys.stderr,
        )
    if large := [layer.name for layer in network.layers if not float32_exact(layer)]:
        print(f"warning: float32 may round the sums of {', '.join(large)}; compute them in float64", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
