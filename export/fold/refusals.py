"""What to do instead of operations that spikes and synapses cannot do."""

_ADVICE = {
    ("gelu", "silu", "mish", "hardswish", "elu", "celu", "selu", "leaky_relu", "prelu", "rrelu", "softplus", "tanh",
     "sigmoid", "hardsigmoid", "softsign", "logsigmoid", "hardtanh", "clamp", "clip"): (
        "is an activation whose output is negative somewhere or not a ramp, and spikes cannot be",
        "ReLU, ReLU6 or NQ in its place, and fine-tuning",
    ),
    ("layer_norm", "group_norm", "instance_norm", "local_response_norm", "normalize", "rms_norm", "norm"): (
        "normalises by statistics of each image",
        "batch norm, whose statistics are constants in evaluation",
    ),
    ("scaled_dot_product_attention", "multi_head_attention_forward", "MultiheadAttention", "Transformer",
     "TransformerEncoderLayer", "TransformerDecoderLayer", "bmm", "einsum", "baddbmm"): (
        "multiplies outputs of the network with each other, as attention does",
        "convolutional networks",
    ),
    ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"): (
        "is recurrent", "networks without loops",
    ),
    ("softmin", "gumbel_softmax", "logsumexp", "exp", "log", "sqrt", "rsqrt", "pow", "square", "abs", "sign", "floor",
     "round", "lp_pool2d"): (
        "is not an affine map of its input",
        "convolutions, sums, average and max pooling, and ReLU",
    ),
}  # fmt: skip


def advice(name: str) -> tuple[str, str]:
    """What is wrong with an operation or module, and what works instead."""
    for names, (found, allowed) in _ADVICE.items():
        if name in names:
            return f"{name} {found}", allowed
    return (
        f"{name} is no operation that can be exported",
        "convolutions, linear layers, batch norm, pooling, sums, constant factors, concatenation, and ReLU or NQ",
    )
