"""What a recipe may choose from: names and ranges, without PyTorch, so that ``--help`` need not import it."""

from typing import Literal, get_args

MODEL_SIZES: dict[str, float] = {
    "lean_s": 0.32,
    "lean_m": 2.41,
    "lean_l": 5.12,
    "vgg_small": 1.13,
    "vgg_tiny": 0.28,
    "vgg16": 33.64,
    "resnet18": 11.17,
    "resnet20": 0.27,
    "resnet34": 21.28,
    "vgg16_imagenet": 138.36,
    "resnet34_imagenet": 21.80,
}
"""Million parameters of the networks in train.model.models.MODELS, for 10 classes, of ImageNet for 1000."""
Split = Literal["train", "test"]
Activation = Literal["nq", "relu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
Filters = Literal["random", "identity"]
Reset = Literal["soft", "hard"]
RESETS: tuple[Reset, ...] = get_args(Reset)
Policy = Literal["none", "trivial", "auto"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
Border = Literal["zero", "reflect"]
Flip = Literal["random", "alternating"]
Schedule = Literal["cosine", "linear"]
ReadOuts = Literal["all", "last"]
MAX_LEVELS = 1024  # L of NQ
MAX_SIDE = 4096  # of an image, in pixels
MAX_SEED = 2**40
MAX_STEPS = 4096
