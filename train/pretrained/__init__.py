"""The trained models that ship with the project; README.md beside this file is their card."""

from pathlib import Path

NAMES = ("vgg_small", "resnet20")


def pretrained(name: str) -> Path:
    """The model file of a name in NAMES, for train.checkpoint.load_model. ValueError for another name."""
    if name not in NAMES:
        raise ValueError(f"pretrained is {name!r}; allowed: {', '.join(NAMES)}")
    return Path(__file__).parent / f"{name}.pt"
