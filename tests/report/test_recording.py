"""What is recorded of one image equals the brute-force simulation."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.report.recording import record
from nqlava import reference
from nqlava.network import IntegerNetwork
from nqlava.testing.networks import images_for
from nqlava.testing.strategies import networks


@settings(max_examples=30, deadline=None)
@given(networks(), st.integers(1, 6))
def test_equals_brute_force(network: IntegerNetwork, steps: int) -> None:
    images = images_for(network, 1)
    found = reference.run(network, images[0], steps)
    *spiking, last = record(network, images[0], steps)
    for recording, expected in zip(spiking, found.spikes, strict=True):
        np.testing.assert_array_equal(recording.spikes, expected.reshape(steps, -1))
    np.testing.assert_array_equal(last.u, found.readout)


@settings(max_examples=30, deadline=None)
@given(networks(), st.integers(1, 6))
def test_a_neuron_spikes_where_u_reaches_its_threshold(network: IntegerNetwork, steps: int) -> None:
    """u ≥ θ, with the θ that ``threshold`` names and the place that ``place`` names."""
    for recording in record(network, images_for(network, 1)[0], steps):
        neurons = recording.u.shape[1]
        for neuron in {0, neurons // 2, neurons - 1}:
            threshold, place = recording.threshold(neuron), recording.place(neuron)
            assert np.ravel_multi_index(place, recording.shape) == neuron
            if threshold is None:
                assert not recording.spikes.any()
            else:
                assert recording.layer.threshold is not None and threshold == recording.layer.threshold[place[0]]
                assert ((recording.u[:, neuron] >= threshold) == recording.spikes[:, neuron]).all()
