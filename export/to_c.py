"""Write a netx file as portable C: ``python -m export.to_c net.h5 FOLDER``. See docs/c.md."""

import nqlava.command.startup  # noqa: F401 — before what takes seconds to import

import argparse
from collections.abc import Sequence
from pathlib import Path

from nqlava.command.parser import Parser, add_data
from nqlava.errors import InputError


def parser() -> Parser:
    """The command's options."""
    made = Parser(
        "export.to_c",
        "Write an integer network as C99 without allocations and floating point, with a self test.",
        ["export.to_c net.h5 net-c", "export.to_c net.h5 net-c --T 8 --samples 5 --early-exit"],
    )
    made.add_argument("net", type=Path, help="netx file written by export.to_netx")
    made.add_argument("folder", type=Path, help="folder for the C files")
    made.add_argument("--T", type=int, dest="steps", help="time steps of the self test (default: the T in the file)")
    made.add_argument("--samples", type=int, default=3, help="images of the self test, to 255 (default: %(default)s)")
    add_data(made, "test images")
    made.add_argument("--seed", type=int, default=0, help="seed for choosing images (default: %(default)s)")
    made.add_argument(
        "--early-exit", action="store_true", help="end a classification once no further step can change the class"
    )
    return made


def _run(options: argparse.Namespace) -> None:
    from nqlava import netx
    from nqlava.c import folder
    from nqlava.c.plan import plan
    from nqlava.info import Info
    from train.data.sized import load_sized

    folder.check(options.folder)
    network = netx.read(options.net)
    steps = Info.of(network.info).steps_or(options.steps)
    if not 1 <= options.samples <= folder.MOST_IMAGES:
        raise InputError(f"--samples is {options.samples}; allowed: 1..{folder.MOST_IMAGES}")
    channels, height, width = network.input_shape
    data = load_sized(options.data, "test", (height, width)).with_channels(channels)
    if data.shape != network.input_shape:
        raise InputError(
            f"data: images are {data.shape}; allowed: {network.input_shape} as the network in {options.net}; "
            "name others with --data"
        )
    images = data.sample(min(options.samples, len(data)), options.seed).images.numpy()
    planned = plan(network, early=options.early_exit)
    print("memory on a 32-bit processor, in bytes, without the code:")
    for what, count in folder.memory(planned).items():
        print(f"  {count:>12,}  {what}")
    shown = f"{len(images)} image{'s' if len(images) > 1 else ''}"
    print(f"self test: {shown} of {' '.join(options.data)}, seed {options.seed}, T = {steps}", flush=True)
    folder.write(planned, options.folder, images.transpose(0, 3, 1, 2), steps)
    print(f"wrote {options.folder}: make -C {options.folder} check; network {network.digest()[:16]}")


def main(argv: Sequence[str] | None = None) -> int:
    return parser().run(_run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
