"""python -m campaign: the long campaigns, one after the other, with a summary file."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from campaign import agreement, full_disk, fuzz, lava_faults, lif, mutation, signals, soak, training_kills
from campaign.plan import Outcome, Plan

from benchmarks import machine, markdown
from nqlava.command.files import replacing
from nqlava.command.parser import Parser
from nqlava.errors import FileError, InputError

CAMPAIGNS: dict[str, Callable[[Plan], Outcome]] = {
    "agreement": agreement.run,
    "lif": lif.run,
    "fuzz": fuzz.run,
    "full-disk": full_disk.run,
    "training-kills": training_kills.run,
    "signals": signals.run,
    "lava-faults": lava_faults.run,
    "soak": soak.run,
    "mutation": mutation.run,
}


def main(args: Sequence[str] | None = None) -> int:
    """Command line, see --help. Returns 0 if all held, 1 if something failed, 2 for bad input."""
    parser = Parser(
        "campaign",
        "Try what takes long: random networks, damaged files, faults while running, hours of work.",
        ["campaign", "campaign --share 0.01 fuzz", "campaign soak --minutes 10 --out runs/soak"],
        notes="OUT gets summary.md, summary.json and a folder per campaign with what failed.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CAMPAIGNS)} (default: all)")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts (default: 1)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each campaign, at most (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out", type=Path, default=Path("runs/campaign"), help="folder (default: runs/campaign)")
    return parser.run(_run, args)


def _run(options: Namespace) -> int:
    if unknown := [name for name in options.names if name not in CAMPAIGNS]:
        raise InputError(f"campaign {unknown[0]}; allowed: {', '.join(CAMPAIGNS)}")
    if not 0 < options.share <= 100:
        raise InputError(f"--share {options.share}; allowed: above 0, at most 100")
    if not options.minutes > 0:
        raise InputError(f"--minutes {options.minutes}; allowed: above 0")
    results: dict[str, Any] = {"machine": machine.describe(), "share": options.share, "seed": options.seed}
    failed = False
    for name in options.names or CAMPAIGNS:
        folder = options.out / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{folder}: cannot be made: {error.strerror or error}") from None
        plan = Plan(options.share, 60 * options.minutes, options.seed, folder)
        print(f"{name} …", file=sys.stderr, flush=True)
        outcome = CAMPAIGNS[name](plan)
        failed |= bool(outcome.failures)
        results[name] = {
            "seconds": round(time.monotonic() - plan.began, 1),
            "figures": dict(outcome.figures),
            "failures": list(outcome.failures),
        }
        _write(options.out / "summary.json", json.dumps(results, indent=1) + "\n")
        _write(options.out / "summary.md", summary(results))
    print((options.out / "summary.md").read_text(encoding="utf-8"), end="")
    return 1 if failed else 0


def summary(results: dict[str, Any]) -> str:
    """The results as Markdown: per campaign its figures and what failed."""
    computer = results["machine"]
    text = (
        f"{computer['processor']}, {computer['cores']} cores, Python {computer['python']}, commit "
        f"{computer['commit']}, share {results['share']:g}, seed {results['seed']}\n"
    )
    for name in filter(CAMPAIGNS.__contains__, results):
        found = results[name]
        rows = [
            (key, f"{value:,}" if isinstance(value, int) else str(value)) for key, value in found["figures"].items()
        ]
        text += f"\n## {name} ({found['seconds'] / 60:.1f} min)\n\n{markdown.table(('what', 'figure'), rows)}"
        text += "".join(f"\n- FAILED: {line}" for line in found["failures"]) + "\n" * bool(found["failures"])
    return text


def _write(path: Path, text: str) -> None:
    with replacing(path) as stream:
        stream.write(text.encode())


if __name__ == "__main__":
    sys.exit(main())
