"""Random networks of SLAYER's blocks: our engine for lava-dl's files against lava-dl's network in Lava."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from campaign.plan import Outcome, Plan

NETWORKS = 300
_LEAST = 6  # have everything that the tests demand to have seen
_TESTS = "tests/lava/test_lava_dl_network.py"


def run(plan: Plan) -> Outcome:
    """The tests of that module, with many networks instead of a few."""
    count, report = max(_LEAST, plan.count(NETWORKS)), plan.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", _TESTS, f"--junitxml={report.absolute()}"]
    environment = os.environ | {"EXAMPLES": str(count)}
    root = Path(__file__).resolve().parent.parent
    report.unlink(missing_ok=True)
    try:
        subprocess.run(command, cwd=root, env=environment, stdout=subprocess.DEVNULL, timeout=plan.seconds, check=False)
    except subprocess.TimeoutExpired:
        return Outcome({"networks of each kind": count}, [f"not done after {plan.seconds:.0f} s"])
    if not report.exists():
        return Outcome({"networks of each kind": count}, ["pytest did not run"])
    cases = list(ElementTree.parse(report).iter("testcase"))
    wrong = [case for case in cases if any(case.find(kind) is not None for kind in ("failure", "error"))]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Outcome(
        {"networks of each kind": count, "tests": len(cases), "skipped": skipped},
        [case.get("name", "") for case in wrong],
    )
