"""The files of a network's C program."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nqlava.c.plan import Map, Neurons, Plan, Synapses, gains, safe
from nqlava.c.text import numbers, structure, structures, words
from nqlava.info import Info
from nqlava.network import IMAGE

_TEMPLATES = Path(__file__).parent / "template"
MARK = "Written by nq-lava"
_ABOUT = """\
 * Weights, biases, thresholds and initial potentials of every layer, and its buffers.
 *
 * A row of weights belongs to a tap (y, x) and an input channel, in this order, and has a weight to every output: four
 * in a word, the first in the lowest byte, each plus 128.
"""


def core(plan: Plan) -> dict[str, str]:
    """The network alone, by name of the file: snn.h, snn.c, network.h and network.c."""
    values = heading(plan)
    files = {name: filled(name, values) for name in ("snn.h", "snn.c", "network.h")}
    return files | {"network.c": _network(plan, str(values["MARK"]))}


def heading(plan: Plan) -> dict[str, object]:
    """What the places of the templates stand for."""
    network = plan.network
    channels, height, width = network.input_shape
    return {
        "MARK": f"{MARK} from network {network.digest()[:16]}.",
        "TITLE": f"A spiking network of {len(network.layers)} layers: an image of {height} x {width} pixels with "
        f"{channels} channel{'s' if channels > 1 else ''} to one of {network.classes} classes.",
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS": channels,
        "CLASSES": network.classes,
        "LAYERS": len(network.layers),
        "T": Info.of(network.info).steps_or(None),
        "EARLY_EXIT": int(plan.early),
        "EARLY": " Stops early once no further step can change the class." if plan.early else "",
        "KEPT_BYTES": plan.memory.current,
        "SUM": "int64_t" if plan.wide else "int32_t",
        "INDEX": f"uint{plan.index_bits}_t",
    } | {f"MOST_{name}": size for name, size in plan.most.items()}


def filled(name: str, values: Mapping[str, object]) -> str:
    """The template of a file with its @PLACES@ filled."""
    text = (_TEMPLATES / name).read_text(encoding="utf-8")
    for place, value in values.items():
        text = text.replace(f"@{place}@", str(value))
    return text


def _network(plan: Plan, mark: str) -> str:
    names = _map_names(plan)
    parts = [
        f'/* {mark}\n *\n{_ABOUT} */\n#include "network.h"\n',
        _map(plan.image, names, "the image, a plane for each of the 8 bits of a pixel:"),
        *_pooled(plan.image_pools, names),
    ]
    for layer in plan.layers:
        parts += _layer(layer, names)
    pools = _pool_entries(plan.image, plan.image_pools, names)
    nothing: Mapping[str, object] = {"from": 0, "height": "0"}  # C has no empty arrays
    parts.append(
        structures("snn_pool", "snn_image_pools", pools or [nothing], static=False)
        + f"const uint32_t snn_image_pool_count = {len(pools)};\n"
    )
    entries = [_entry(layer, names) for layer in plan.layers]
    parts.append(structures("snn_layer", "snn_layers", entries, "SNN_LAYERS", static=False))
    if plan.early:
        gain, reach = gains(plan.network)
        rows = ",\n    ".join("{" + ", ".join(map(str, row)) + "}" for row in gain.tolist())
        parts.append(
            "/* by how much a class can gain on another in a step, and how far a potential can move */\n"
            f"const int32_t snn_gain[SNN_CLASSES][SNN_CLASSES] = {{\n    {rows}}};\n"
            f"const int32_t snn_reach = {reach};\n"
        )
    return "\n".join(parts)


def _map_names(plan: Plan) -> dict[Map, str]:
    """Identifiers of the maps."""
    names = {plan.image: "snn_image"}
    names |= {one: f"snn_image_pooled{i}" for i, one in enumerate(plan.image_pools)}
    for layer in plan.layers:
        if layer.spikes is not None:
            names[layer.spikes] = f"{layer.identifier}_spikes"
            names |= {one: f"{layer.identifier}_pooled{i}" for i, one in enumerate(layer.pools)}
    return names


def _map(one: Map, names: Mapping[Map, str], comment: str) -> str:
    name = names[one]
    values = {"bits": f"{name}_bits", "words": one.words, "planes": one.planes}
    values |= {"height": one.height, "width": one.width, "channels": one.channels}
    return (
        f"/* {comment} ({one.height}, {one.width}, {one.channels}) */\n"
        f"static uint32_t {name}_bits[{one.words * one.planes}];\n"
        f"{structure('snn_map', name, values, static=name != 'snn_image')}"
    )


def _pooled(pools: Sequence[Map], names: Mapping[Map, str]) -> list[str]:
    return [
        _map(one, names, f"sums over windows of {one.window[0]} x {one.window[1]}, {one.planes} planes:")
        for one in pools
    ]


def _pool_entries(of: Map, pools: Sequence[Map], names: Mapping[Map, str]) -> list[Mapping[str, object]]:
    return [
        {"from": f"&{names[of]}", "to": f"&{names[one]}", "height": one.window[0], "width": one.window[1]}
        for one in pools
    ]


def _layer(layer: Neurons, names: Mapping[Map, str]) -> list[str]:
    """The tables and buffers of a layer."""
    name, made = layer.identifier, layer.layer
    height, width, outputs = layer.shape
    kind = "the read-out" if made.is_readout else f"{made.reset} reset"
    shape = f"({height}, {width}, {outputs})" if made.is_convolution else f"({outputs})"
    parts = [f"/* ---- {safe(made.name)}: neurons {shape}, {kind} ---- */\n"]
    parts += [_weights(synapses, f"{name}_weights{i}") for i, synapses in enumerate(layer.synapses)]
    if layer.synapses:
        entries = [_connection(one, f"{name}_weights{i}", names) for i, one in enumerate(layer.synapses)]
        parts.append(structures("snn_connection", f"{name}_connections", entries))
    vectors = (
        "bias of each output" if len(layer.bias) == 1 else f"{len(layer.bias)} different bias vectors of {outputs}"
    )
    parts.append(numbers("int32_t", f"{name}_bias", layer.bias, vectors, min(outputs, 16)))
    if layer.bias_of is not None:
        parts.append(numbers("snn_index", f"{name}_biasof", layer.bias_of, f"which one at ({height}, {width})", width))
    if made.threshold is not None:
        parts.append(numbers("int32_t", f"{name}_threshold", made.threshold, "threshold of each output"))
    parts.append(numbers("int32_t", f"{name}_v0", made.v0, "initial potential of each output"))
    if layer.images:
        parts.append(f"#if SNN_KEEP_CURRENT\nstatic snn_sum {name}_current[{height * width * layer.stride}];\n#endif\n")
    if layer.spikes is None:
        parts.append("int32_t snn_readout[SNN_CLASSES];\n")
        return parts
    parts.append(f"static int32_t {name}_v[{layer.count}];\n")
    parts += [_map(layer.spikes, names, "spikes"), *_pooled(layer.pools, names)]
    if layer.pools:
        pools = _pool_entries(layer.spikes, layer.pools, names)
        parts.append(structures("snn_pool", f"{name}_pools", pools))
    return parts


def _weights(one: Synapses, name: str) -> str:
    outputs, inputs, kh, kw = one.weight.shape
    source = "the image" if one.map.source == IMAGE else safe(one.map.source)
    taps = f"from {source}: {kh} x {kw} taps, {inputs * one.groups} inputs, {outputs} outputs"
    if one.groups == 1:
        return words(name, one.table.astype(np.uint32), taps)
    return numbers("int32_t", name, one.table, f"{taps} in {one.groups} groups, with the exponents")


def _connection(one: Synapses, table: str, names: Mapping[Map, str]) -> dict[str, object]:
    _, inputs, kh, kw = one.weight.shape
    geometry = {"kernel": (kh, kw), "stride": one.stride, "padding": one.padding, "dilation": one.dilation}
    values: dict[str, object] = {"source": f"&{names[one.map]}"}
    values |= {f"{name}_{axis}": size for name, pair in geometry.items() for axis, size in zip("yx", pair, strict=True)}
    values |= {"exponent": one.exponent, "row_words": 1}
    if one.groups == 1:
        return values | {"rows": table, "row_words": one.table.shape[1]}
    return values | {"grouped": table, "group_inputs": inputs, "group_outputs": one.table.shape[1]}


def _entry(layer: Neurons, names: Mapping[Map, str]) -> dict[str, object]:
    name, made = layer.identifier, layer.layer
    height, width, outputs = layer.shape
    return {
        "name": f'"{safe(made.name)}"',
        "height": height,
        "width": width,
        "outputs": outputs,
        "stride": layer.stride,
        "connections": f"{name}_connections" if layer.synapses else 0,
        "count": len(layer.synapses),
        "image_count": layer.images,
        "current": f"SNN_CURRENT({name}_current)" if layer.images else 0,
        "bias": f"{name}_bias",
        "bias_of": 0 if layer.bias_of is None else f"{name}_biasof",
        "threshold": 0 if made.is_readout else f"{name}_threshold",
        "v0": f"{name}_v0",
        "hard_reset": int(made.reset == "hard"),
        "v": "snn_readout" if layer.spikes is None else f"{name}_v",
        "spikes": 0 if layer.spikes is None else f"&{names[layer.spikes]}",
        "pools": f"{name}_pools" if layer.pools else 0,
        "pool_count": len(layer.pools),
    }
