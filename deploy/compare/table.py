"""What deploy.run_lava prints and writes about a run."""

from typing import Any

from deploy.compare.run import Run
from deploy.compare.settings import Settings
from deploy.compare.verdict import Verdict
from nqlava.command.columns import steps_shown, wrapped
from nqlava.engine.cpu.machine import describe


def heading(run: Run) -> str:
    """What runs, with the options that decide it, in two lines."""
    settings = run.settings
    by_default = "by chance"
    return (
        f"{settings.net}: {len(run.network.layers)} layers, network {settings.digest[:16]}; {len(run.data)} test "
        f"images, T = {run.settings.T}, backend {settings.backend}; kernels: {describe()}\n"
        f"images of {' '.join(settings.data)}, seed {settings.seed}; batch {settings.batch}, "
        f"{settings.scheduler or f'workers {settings.workers}'}, tolerance "
        f"{by_default if settings.tolerance is None else f'{settings.tolerance:g} points'}"
    )


def table(verdict: Verdict) -> str:
    """Spikes, mismatches and saturations of each layer, and the accuracy after each step, as text."""
    width = max(map(len, verdict.layers))
    lines = [f"{'layer'.ljust(width)}  spikes per neuron and step  mismatches  saturations"]
    rates = [f"{rate:.4f}" for rate in verdict.spike_rates] + ["read-out"]
    for row in zip(verdict.layers, rates, verdict.mismatches, verdict.saturations, strict=True):
        lines.append(f"{row[0].ljust(width)}  {row[1]:>26}  {row[2]:>10,}  {row[3]:>11,}")
    labels = ["accuracy after step     ", f"  {verdict.target:<22}", f"  {'integer engine':<22}"]
    columns = [
        (f"{step:>9}", f"{verdict.accuracy[step - 1]:>8.2f}%", f"{verdict.engine_accuracy[step - 1]:>8.2f}%")
        for step in steps_shown(verdict.steps)
    ]
    return "\n".join([*lines, *wrapped(labels, columns)])


def comparison(verdict: Verdict) -> str:
    """Against the float SNN, in a line."""
    if verdict.floating is None:
        return f"not compared with the float SNN: {verdict.model}"
    return f"{verdict.floating}; model {verdict.model}"


def outcome(verdict: Verdict) -> str:
    """Accuracy against the float SNN, speed and digest, and in the last line the verdict."""
    samples, seconds, wall = verdict.samples, verdict.seconds, verdict.wall_seconds
    return (
        f"{comparison(verdict)}\n"
        f"{verdict.target}: {seconds:.1f} s with its start, {samples / seconds:.1f} images/s per network; "
        f"all with the comparison: {wall:.1f} s, {samples / wall:.1f} images/s\n"
        f"digest of the network, all spikes and all read-outs: {verdict.digest}\n"
        f"{verdict}"
    )


def entries(verdict: Verdict, settings: Settings) -> dict[str, Any]:
    """Settings, results and the accuracy of the float SNN, for a JSON file."""
    floating = verdict.floating
    return {
        "net": str(settings.net),
        "network_sha256": settings.digest,
        "backend": settings.backend,
        "data": settings.data,
        "seed": settings.seed,
        "workers": settings.workers,
        "scheduler": settings.scheduler,
        "tolerance": settings.tolerance if floating is None else floating.tolerance,
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
        f"accuracy_{verdict.target.lower()}": verdict.accuracy,
        "accuracy_integer": verdict.engine_accuracy,
        "float": floating
        and {
            "samples": floating.count,
            "accuracy_ann": floating.ann,
            "accuracy_float_snn": floating.snn,
            f"accuracy_{verdict.target.lower()}": floating.lava,
            "points_lost": floating.lost,
        },
        "seconds": verdict.seconds,
        "wall_seconds": verdict.wall_seconds,
        "images_per_second": verdict.samples / verdict.wall_seconds,
    }
