"""What deploy.run_lava prints and writes about a run."""

from typing import Any

from deploy.compare.float_accuracy import FloatAccuracy
from deploy.compare.verify import Verdict


def table(verdict: Verdict) -> str:
    """Spikes, mismatches and saturations of each layer, and the accuracy after each step, as text."""
    width = max(map(len, verdict.layers))
    lines = [f"{'layer'.ljust(width)}  spikes per neuron and step  mismatches  saturations"]
    rates = [f"{rate:.4f}" for rate in verdict.spike_rates] + ["read-out"]
    for row in zip(verdict.layers, rates, verdict.mismatches, verdict.saturations, strict=True):
        lines.append(f"{row[0].ljust(width)}  {row[1]:>26}  {row[2]:>10,}  {row[3]:>11,}")
    lines.append("accuracy after step     " + "".join(f"{step:>9}" for step in range(1, verdict.steps + 1)))
    for name, values in (("Lava", verdict.deployed), ("integer engine", verdict.engine)):
        lines.append(f"  {name:<22}" + "".join(f"{value:>8.2f}%" for value in values))
    return "\n".join(lines)


def entries(verdict: Verdict, floating: FloatAccuracy | None, wall_seconds: float) -> dict[str, Any]:
    """The same, and what it is compared with, for a JSON file."""
    return {
        "samples": verdict.samples,
        "T": verdict.steps,
        "exact": verdict.exact,
        "reference_samples": verdict.judged,
        "first_disagreement_with_reference": None if verdict.disagreement is None else str(verdict.disagreement),
        "mismatches": dict(zip(verdict.layers, verdict.mismatches, strict=True)),
        "digest": verdict.digest,
        "first_mismatch": None if verdict.first is None else str(verdict.first),
        "saturations": dict(zip(verdict.layers, verdict.saturations, strict=True)),
        "spikes_per_neuron_and_step": dict(zip(verdict.layers, verdict.spike_rates, strict=False)),
        "accuracy_lava": verdict.deployed,
        "accuracy_integer": verdict.engine,
        "float": floating
        and {
            "samples": floating.count,
            "accuracy_ann": floating.ann,
            "accuracy_float_snn": floating.snn,
            "accuracy_lava": floating.lava,
            "points_lost": floating.lost,
        },
        "seconds": verdict.seconds,
        "wall_seconds": wall_seconds,
        "images_per_second": verdict.samples / wall_seconds,
    }
