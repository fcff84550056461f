"""The process models compute what the engine does, stepped in this process.

In a run of Lava they are in processes that are killed in the end, and leave nothing about what they ran.
"""

from collections import defaultdict, deque
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deploy.lava.build import _groups
from deploy.lava.convolution import PyExactConv
from deploy.lava.models import (
    PyBatchSource,
    PyIFNeuron,
    PyImageSource,
    PyIntegrator,
    PyProbe,
    TorchModel,
    group_model,
)
from deploy.lava.pipeline import Pipeline
from deploy.lava.schedule import Recorder, Schedule, shared_array
from nqlava.engine.integer import Engine
from nqlava.network import IMAGE, MEMBRANE_MAX, Connection, IntegerNetwork, Reset
from nqlava.reference import synaptic_sum
from nqlava.testing.networks import images_for, random_connection, random_layer, random_neurons

STEPS, GAP, BATCH = 3, 1, 2


@pytest.fixture(autouse=True)
def arithmetic_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models set up their process for its life, which here goes on."""
    entered, threads, begin = [], torch.get_num_threads(), TorchModel.__init__

    def remember(self: TorchModel, proc_params: object) -> None:
        begin(self, proc_params)
        entered.append(self._arithmetic)

    monkeypatch.setattr(TorchModel, "__init__", remember)
    yield
    for arithmetic in reversed(entered):
        arithmetic.__exit__(None, None, None)
    torch.set_num_threads(threads)


class Wires:
    """A port: what it sends reaches all wires; it receives from the first."""

    def __init__(self, wires: list[deque[NDArray]], shape: tuple[int, ...] = ()) -> None:
        self.wires, self.shape = wires, shape

    def send(self, message: NDArray) -> None:
        for wire in self.wires:
            wire.append(message.copy())

    def recv(self) -> NDArray:
        return self.wires[0].popleft()


def step(model: object, t: int) -> None:
    model.time_step = t  # type: ignore[attr-defined]
    model.run_spk()  # type: ignore[attr-defined]


def residual_network(reset: Reset) -> IntegerNetwork:
    """input → first → second → out; spikes of ``first`` and the image also go to ``out`` and wait. 45 neurons a map."""
    rng = np.random.default_rng(3)
    shape, around = (3, 3, 5), {"outputs": 3, "kernel": (3, 3), "padding": (1, 1)}
    first = random_layer(rng, "first", (2, 3, 5), reset=reset, **around)
    shortcut = Connection("first", np.full((3, 1, 1, 1), 100, np.int8), 1, groups=3)
    behind = (random_connection(rng, "first", shape, **around), shortcut)
    second = random_neurons(rng, "second", behind, shape, reset=reset)
    sources = (("second", shape), ("first", shape), (IMAGE, (2, 3, 5)))
    last = tuple(random_connection(rng, name, size, outputs=4) for name, size in sources)
    return IntegerNetwork((2, 3, 5), (first, second, random_neurons(rng, "out", last, (4,), readout=True)))


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_groups_of_layers(processes: int, reset: Reset) -> None:
    """Two batches, the second of which begins before the first has left the pipeline."""
    network = residual_network(reset)
    images = images_for(network, 2 * BATCH)
    pipeline = Pipeline(network, images, STEPS, batch=BATCH, gap=GAP)
    schedule = pipeline.schedule
    wires: dict[str, list[deque[NDArray]]] = defaultdict(list)
    source = PyBatchSource({"images": images.transpose(0, 2, 3, 1).reshape(2, BATCH, -1), "schedule": schedule})
    models = []
    for group in _groups(network, processes, BATCH, pipeline.recorders):
        model = group_model(group)(group.proc_params)
        for index, name in enumerate(group.incoming):
            wires[name].append(deque())
            setattr(model, f"s_in{index}", Wires(wires[name][-1:]))
        for index, name in enumerate(group.outgoing):
            setattr(model, f"s_out{index}", Wires(wires[name]))
        models.append(model)
    assert len(models) == min(processes, len(network.layers))
    source.s_out = Wires(wires["input"])
    for t in range(1, schedule.total(network.depth) + 1):
        for one in (source, *models):
            step(one, t)
    found = pipeline.collect(0, 2)
    expected = Engine(network).run(images, STEPS)
    for one, other in zip((*found.spikes, found.readout), (*expected.spikes, expected.readout), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.saturation_counts() == expected.saturation_counts()


def test_batches_are_finished_when_their_read_out_is() -> None:
    """At t = s · 4 + 3 + 3: a period of 4, T = 3, three layers."""
    assert [Schedule(STEPS, GAP, 2, 2).finished(t, 3) for t in range(1, 13)] == [0] * 5 + [1] * 4 + [2] * 3


def test_shared_arrays_may_be_empty() -> None:
    assert shared_array((0, 3), np.int32).shape == (0, 3)
    assert (shared_array((2, 3), np.int64) == np.zeros((2, 3))).all()


@pytest.mark.parametrize("transpose", [False, True])
def test_images_are_sent_while_their_sample_enters(transpose: bool) -> None:
    images = np.arange(2 * 2 * 3 * 4, dtype=np.uint8).reshape(2, 1, 2, 3, 4)
    schedule = Schedule(steps=2, gap=1, batches=3, slots=3)
    model = PyImageSource({"images": images, "schedule": schedule, "transpose": transpose})
    wire: deque[NDArray] = deque()
    model.s_out = Wires([wire], (4, 3, 2) if transpose else (1, 2, 3, 4))
    for t in range(1, 11):
        step(model, t)
    sent = [0, 0, None, 1, 1, None, 0, 0, None, None]  # the third sample lies where the first was
    for number, message in zip(sent, wire, strict=True):
        image = np.zeros_like(images[0]) if number is None else images[number]
        np.testing.assert_array_equal(message, image[0].T if transpose else image)
        assert message.dtype == np.int32


@pytest.mark.parametrize("reset", ["soft", "hard", None])
def test_neurons(reset: str | None) -> None:
    """None: the read-out. The third sample takes the place of the first in memory; its first and last sums saturate."""
    schedule, place, rng = Schedule(STEPS, GAP, 3, 2), 2, np.random.default_rng(0)
    shape = (2, 3, 4)  # (W, H, C)
    recorder = Recorder(schedule, place, samples=1, size=24, readout=reset is None)
    model = (PyIntegrator if reset is None else PyIFNeuron)({"recorder": recorder, "reset": reset})
    model.v0, model.bias = (rng.integers(-50, 50, shape).astype(np.int32) for _ in range(2))
    model.v, model.threshold = np.full(shape, 9, np.int32), np.full(shape, 60, np.int32)
    model.reset_period, model.reset_phase = np.array([STEPS + GAP]), np.array([place + 1])
    sent: deque[NDArray] = deque()
    arriving: deque[NDArray] = deque()
    model.a_in, model.s_out = Wires([arriving]), Wires([sent])
    last = schedule.total(place)
    expected: dict[tuple[int, int], NDArray] = {}
    saturations = [0, 0, 0]
    v = model.v.astype(np.int64)
    for t in range(1, last + 1):
        current = rng.integers(-100, 200, shape).astype(np.int32)
        if t == place + 1 or schedule.local(t, place) in ((2, 1), (2, STEPS)):
            current[0, 0, 0] = 2**30
        arriving.append(current)
        step(model, t)
        if (t - place - 1) % (STEPS + GAP) == 0 and t > place:
            v = model.v0.astype(np.int64)
        v = v + current + model.bias
        clipped = int((abs(v) > MEMBRANE_MAX).sum())
        v = v.clip(-MEMBRANE_MAX, MEMBRANE_MAX)
        spikes = v >= 60
        values = v if reset is None else spikes
        if reset is not None:
            v = np.where(spikes, 0 if reset == "hard" else v - 60, v)
        np.testing.assert_array_equal(sent.popleft(), values)
        np.testing.assert_array_equal(model.v, v)
        if (local := schedule.local(t, place)) is not None:
            expected[local] = values.swapaxes(0, 1).reshape(-1)
            saturations[local[0]] += clipped
    assert len(expected) == 3 * STEPS and saturations[0] > 0
    for (sample, k), values in expected.items():
        if sample > 0:
            found = recorder.values[sample % 2, 0, k - 1]
            np.testing.assert_array_equal(found if reset is None else np.unpackbits(found), values)
    assert recorder.saturations.ravel().tolist() == [saturations[2], 0]
    assert recorder.step.item() == last


def test_neurons_without_a_period_or_a_recorder_keep_their_potential() -> None:
    model = PyIntegrator({"recorder": None})
    model.v0, model.bias, model.v = (np.full(1, n, np.int32) for n in (5, 0, 7))
    model.reset_period, model.reset_phase = np.array([0]), np.array([1])
    sent: deque[NDArray] = deque()
    model.a_in, model.s_out = Wires([deque([np.array([1])] * 3)]), Wires([sent])
    for t in (1, 2, 3):
        step(model, t)
    assert np.concatenate(sent).tolist() == [8, 9, 10]


@pytest.mark.parametrize("readout", [False, True])
def test_probes_read_24_bits(readout: bool) -> None:
    schedule = Schedule(steps=2, gap=0, batches=1, slots=1)
    recorder = Recorder(schedule, 1, samples=1, size=3, readout=readout)
    model = PyProbe({"recorder": recorder, "layer_shape": (3,)})
    model.a_in = Wires([deque(np.array(row) for row in ([9, 9, 9], [0, 2**24 - 1, 5], [2**23, 0, 2**23 - 1]))])
    for t in (1, 2, 3):
        step(model, t)
    if readout:
        assert recorder.values[0, 0].tolist() == [[0, -1, 5], [-(2**23), 0, 2**23 - 1]]
    else:
        assert np.unpackbits(recorder.values[0, 0], axis=-1)[:, :3].tolist() == [[0, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize("message_bits", [0, 8])
def test_convolutions_arrive_a_step_later(message_bits: int) -> None:
    rng = np.random.default_rng(0)
    connection = random_connection(
        rng, "a", (4, 6, 7), outputs=6, kernel=(2, 3), stride=(1, 2), padding=(2, 1), dilation=(2, 1), groups=2
    )
    model = PyExactConv({})
    model.weight = connection.weight.transpose(0, 3, 2, 1)[:, ::-1, ::-1].astype(np.int32)
    for key in ("stride", "padding", "dilation"):
        setattr(model, key, np.array(getattr(connection, key)[::-1]))
    model.groups, model.num_message_bits = np.array([2]), np.array([message_bits])
    inputs = [rng.integers(0, 256 if message_bits else 2, (4, 6, 7)) for _ in range(3)]
    sent: deque[NDArray] = deque()
    model.s_in = Wires([deque(values.T.astype(np.int32) for values in inputs)], (7, 6, 4))
    model.a_out = Wires([sent])
    first = synaptic_sum(connection, inputs[0].astype(np.int64))
    model.a_buf = np.full(first.T.shape, 3, np.int32)
    for t in (1, 2, 3):
        step(model, t)
    np.testing.assert_array_equal(sent[0], np.full(first.T.shape, 3))
    np.testing.assert_array_equal(sent[1].T, first)
    np.testing.assert_array_equal(sent[2].T, synaptic_sum(connection, inputs[1].astype(np.int64)))


def test_convolutions_clip_what_a_message_cannot_hold() -> None:
    model = PyExactConv({})
    model.weight = np.full((2, 1, 1, 2**17), 127, np.int32)
    model.weight[1] = -127
    model.stride = model.dilation = np.array([1, 1])
    model.padding, model.groups, model.num_message_bits = np.array([0, 0]), np.array([1]), np.array([8])
    model.s_in = Wires([deque([np.full((1, 1, 2**17), 255, np.int32)])], (1, 1, 2**17))
    model.a_out, model.a_buf = Wires([]), np.zeros((1, 1, 2), np.int32)
    step(model, 1)
    assert model.a_buf.ravel().tolist() == [2**30, -(2**30)]
