"""The values of the report, counted again."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.report.content import Content
from deploy.report.measure import measure
from nqlava.bounds import worst_case
from nqlava.trace import Trace
from tests.report.conftest import COUNT, STEPS, content_of
from tests.tiny import image_set, random_residual
from train.loop.calibrate import evaluate


def test_stages_go_from_the_ann_to_lava(content: Content, trace: Trace) -> None:
    stages = {stage.name: stage for stage in content.stages}
    assert list(stages) == ["ANN", "float SNN, T = 3", "integer SNN, T = 3", "Lava, T = 3"]
    expected = evaluate(random_residual(3), image_set(COUNT), STEPS)
    assert stages["ANN"].accuracy == pytest.approx(expected.ann)
    assert stages["float SNN, T = 3"].accuracy == pytest.approx(expected.snn[-1])
    assert content.float_accuracy == pytest.approx(list(expected.snn))
    right = trace.classes() == content.labels[:, None]
    assert stages["integer SNN, T = 3"].correct == right[:, -1].sum()
    assert content.integer_accuracy == pytest.approx(list(100 * right.mean(axis=0)))
    lava = stages["Lava, T = 3"]
    assert (lava.correct, lava.lost, lava.gained) == (right[:, -1].sum(), 0, 0)


def test_accuracies_are_those_of_the_verdict_whatever_the_number_of_images(content: Content) -> None:
    """100 * 8 / 12 is not 100 * mean, in the last digit."""
    run = replace(content.run, data=content.run.data.subset(torch.arange(12)))
    part = Content(run, content.verdict, "", replace(content.measured, classes=content.measured.classes[:12]))
    right = (part.measured.classes == part.labels[:, None]).sum(axis=0)
    assert part.integer_accuracy == [100 * int(correct) / 12 for correct in right]


def test_without_a_model_the_float_stages_are_missing() -> None:
    content = content_of(random_residual(3), with_model=False)
    assert [stage.name for stage in content.stages] == ["integer SNN, T = 3", "Lava, T = 3"]
    assert content.float_accuracy is None and content.values()["residuals"] is None


def test_confusion_counts_pairs_of_classes(content: Content, trace: Trace) -> None:
    expected = np.zeros((5, 5), int)
    for label, predicted in zip(content.labels, trace.classes()[:, -1], strict=True):
        expected[label, predicted] += 1
    np.testing.assert_array_equal(content.confusion, expected)
    mistakes = content.confused(most=25)
    assert sum(count for _, _, count in mistakes) == COUNT - np.trace(expected)
    assert [count for *_, count in mistakes] == sorted((count for *_, count in mistakes), reverse=True)
    assert all(truth != predicted for truth, predicted, _ in mistakes)


def test_layers_tell_what_the_network_holds_and_did(content: Content, trace: Trace) -> None:
    network = content.run.network
    for index, (row, layer) in enumerate(zip(content.layers, network.layers, strict=True)):
        assert row.name == layer.name and row.neurons == np.prod(row.shape)
        assert row.weight == max(int(np.abs(c.weight.astype(int)).max()) for c in layer.connections)
        assert row.potential[0] <= 0 <= row.potential[1] and max(np.abs(row.potential)) <= row.bound
        if layer.threshold is None:
            assert row.rate is None and row.threshold is None
        else:
            assert row.rate == pytest.approx(trace.layer_spikes(index).mean())
            assert row.threshold == (layer.threshold.min(), layer.threshold.max())
    assert tuple(row.bound for row in content.layers) == worst_case(network, STEPS)
    assert content.compared == sum(trace.layer_spikes(i).size for i in range(len(trace.shapes))) + trace.readout.size


def test_a_mismatch_is_told_and_lava_counted_by_itself() -> None:
    content = content_of(random_residual(3), change=True)
    assert content.verdict is not None and not content.verdict.exact
    assert content.values()["run"]["exact"] is False
    assert content.values()["run"]["first_mismatch"].startswith("sample 7, ")


@pytest.mark.parametrize(("lost", "passed"), [(1.5, True), (2.5, False)])
def test_accuracy_lost_beyond_the_tolerance_is_no_success(lost: float, passed: bool) -> None:
    values = content_of(random_residual(3), lost=lost).values()
    assert values["run"]["exact"] is True and values["passed"] is passed
    assert values["run"]["float"]["points_lost"] == lost and values["run"]["tolerance"] == 2.0


def test_without_lava_nothing_is_said_of_it() -> None:
    content = content_of(random_residual(3), lava=False)
    values = content.values()
    assert values["run"] is None and values["passed"] is None and values["accuracy_by_step"]["lava"] is None
    assert [stage.name for stage in content.stages][-1] == "integer SNN, T = 3"


def test_values_are_plain_json(content: Content) -> None:
    values = json.loads(json.dumps(content.values(), allow_nan=False))
    assert values["origin"]["network SHA-256"] == content.run.network.digest()
    assert values["stages"][2]["accuracy"] == content.stages[2].accuracy
    assert np.array(values["confusion"]).sum() == COUNT
    assert len(values["wrong"]) == COUNT - content.stages[2].correct
    assert values["residuals"][0]["counts"] and values["fit"]["loihi2"]["cores"][content.layers[0].name] >= 1
    assert len({stage["name"] for stage in values["stages"]}) == len(values["stages"])


@pytest.mark.parametrize("image", [-1, COUNT])
def test_an_image_that_is_not_there_is_refused(content: Content, image: int) -> None:
    with pytest.raises(ValueError, match=f"--image is {image}; allowed: 0..{COUNT - 1}"):
        measure(content.run, image)


def test_the_first_wrong_image_is_recorded(content: Content) -> None:
    wrong = np.flatnonzero(content.predicted != content.labels)
    assert content.measured.image == wrong[0]
    images = content.run.data.pixels
    assert len(content.measured.recordings) == len(content.run.network.layers)
    assert content.measured.recordings[-1].u[-1].argmax() == content.predicted[wrong[0]]
    assert images.shape[0] == COUNT
