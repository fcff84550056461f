"""A folded network is a module, and the module is the folded network again."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export.calibrate.calibrate import calibrate
from export.convert import lowered
from export.fold.check import check
from export.fold.folded import ExportError
from export.fold.module import as_folded, as_module
from export.fold.prepare import prepare
from tests.export.fold.test_architectures import IMAGE, Fn, behind_spikes, conv, head
from tests.export.fold.test_maximum import NETWORKS
from train.model.activation import RateReLU
from train.model.lowered import to_be_trained
from train.model.snn import neurons, simulate

IMAGES = torch.randint(0, 256, (6, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
STEPS = 4
MODELS = {
    **NETWORKS,
    "shortcut": lambda: behind_spikes(Fn(lambda x, a: x + a(x), conv(6, 6)), nn.ReLU(), *head()),
    "pooling and groups": lambda: behind_spikes(nn.AvgPool2d(2), conv(6, 6, groups=3), nn.ReLU(), *head()),
    "bias per position": lambda: behind_spikes(
        Fn(lambda x, a: F.pad(a(x), (1, 1, 1, 1)), nn.BatchNorm2d(6)), conv(6, 6), nn.ReLU(), *head()
    ),
    "dense": lambda: behind_spikes(nn.Flatten(), nn.Linear(432, 7), nn.ReLU(), nn.Linear(7, 5)),
}


@pytest.mark.parametrize("maximum", ["rates", "steps"])
@pytest.mark.parametrize("case", MODELS)
def test_there_and_back(case: str, maximum: str) -> None:
    """The module computes what the calibrated network did; so does what is made of it, with other thresholds too."""
    _, folded, caps = lowered(MODELS[case](), IMAGES, maximum)  # type: ignore[arg-type]
    made = calibrate(folded, caps, IMAGES, STEPS)
    module = as_module(made.folded, STEPS)
    scores = simulate(module, IMAGES, STEPS)[-1]
    torch.testing.assert_close(scores * STEPS, made.snn[-1], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for factor, neuron in enumerate(neurons(module), 2):
            neuron.threshold *= factor
    back = as_folded(module)
    check(module, back, IMAGES)
    assert [layer.name for layer in back.layers] == [layer.name for layer in folded.layers]
    assert [layer.is_maximum for layer in back.layers] == [layer.is_maximum for layer in folded.layers]


@pytest.mark.parametrize("again", [False, True])
def test_usual_potentials_keep_what_arrives_over_all_steps(again: bool) -> None:
    """With a constant current, spikes after T steps are as many as before, with batch norm too."""
    _, folded, caps = lowered(MODELS["dense"](), IMAGES, "rates")
    module = as_module(calibrate(folded, caps, IMAGES, STEPS).folded, STEPS)
    if again:
        module = to_be_trained(module, IMAGES, STEPS, spikes=True)
        neurons(module)[0].initial = torch.tensor([0.1, 0.9, 0.3, 0.7, 0.5, 0.2])
    after = to_be_trained(module, IMAGES, STEPS, spikes=True)
    counts: list[torch.Tensor] = []
    for network in (module, after):
        first = neurons(network)[0]
        hook = first.register_forward_hook(lambda _m, _i, out: counts.append(out.unflatten(0, (STEPS, -1)).sum(0)))
        simulate(network, IMAGES, STEPS)
        hook.remove()
    assert all(float(neuron.initial) == 0.5 for neuron in neurons(after))
    assert float((counts[0] != counts[1]).double().mean()) < 0.01


def test_identities_stay_and_the_rest_is_trained() -> None:
    _, folded, caps = lowered(MODELS["shortcut"](), IMAGES, "rates")
    module = as_module(calibrate(folded, caps, IMAGES, STEPS).folded, STEPS)
    fixed = [name for name, p in module.named_parameters() if not p.requires_grad]
    identities = [m.is_identity for plan in module.plans for m in plan.maps]
    assert len(fixed) == sum(identities) == 1


@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("case", MODELS)
def test_batch_norm_changes_nothing_until_it_is_trained(case: str, spikes: bool) -> None:
    _, folded, caps = lowered(MODELS[case](), IMAGES, "rates")
    module = as_module(calibrate(folded, caps, IMAGES, STEPS).folded, STEPS)
    for neuron in neurons(module):
        neuron.initial = torch.tensor(0.5)
    made = to_be_trained(module, IMAGES, STEPS, spikes=spikes)
    norms = [m for m in made.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    learned = [m for plan in module.plans[:-1] for m in plan.maps if not m.is_identity and plan.kind == "neurons"]
    assert len(norms) == len(learned) > 0
    check(made, as_folded(module), IMAGES)
    with torch.no_grad():
        for norm in norms:
            for value in (norm.weight, norm.bias, norm.running_mean):
                value += torch.rand(value.shape) / 4
            norm.running_var *= 1.5
    check(made, as_folded(made), IMAGES)


def test_hard_reset_is_refused() -> None:
    model = prepare(behind_spikes(conv(6, 6), nn.ReLU(), *head()), IMAGE)
    for neuron in neurons(model):
        if isinstance(neuron, RateReLU):
            neuron.reset = "hard"
    _, folded, _ = lowered(model, IMAGES, "rates")
    with pytest.raises(ExportError, match="has hard reset, which cannot be trained further; use soft reset"):
        as_module(folded, STEPS)
