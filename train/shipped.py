"""The trained models that ship with the project; train/pretrained/README.md is their card."""

from pathlib import Path

from nqlava.errors import InputError

NAMES = ("vgg_small", "resnet20", "resnet20_spikes")


def pretrained(name: str) -> Path:
    """The model file of a name in NAMES, for train.loop.checkpoint.read_model. InputError for another name."""
    if name not in NAMES:
        raise InputError(f"pretrained is {name!r}; allowed: {', '.join(NAMES)}")
    return Path(__file__).parent / "pretrained" / f"{name}.pt"


def is_shipped(model: Path) -> bool:
    """Whether the model file is one that ships."""
    return model.resolve().parent == (Path(__file__).parent / "pretrained").resolve()


def model_path(model: Path | None, name: str | None) -> Path:
    """The model file that a command is given, as MODEL or as --pretrained NAME. InputError unless it is one of them."""
    if name is None:
        if model is None:
            raise InputError(
                "no model is given; allowed: MODEL, before the file to write if there is one, or --pretrained"
            )
        return model
    if model is not None:
        raise InputError("MODEL and --pretrained are both given; allowed: one of them")
    return pretrained(name)
