"""The commands by name: ``nqlava train`` is ``python -m train.cifar``, and each speaks of itself as it was called."""

COMMANDS = {
    "train": ("train.cifar", "train a network on images of one size, in memory"),
    "imagenet": ("train.imagenet", "train a network on a set too large for memory"),
    "evaluate": ("train.evaluate", "accuracy of a trained model, as ANN and as spiking network"),
    "potentials": ("train.potentials", "calibrate the initial potentials of a trained model"),
    "figures": ("train.figures", "figures of the activation, the errors and the training"),
    "export": ("export.to_netx", "convert a trained model to an integer network in a netx file"),
    "from-torch": ("export.from_torch", "convert a ReLU network that was trained elsewhere, without training"),
    "to-nir": ("export.to_nir", "write a netx file as a NIR graph"),
    "to-c": ("export.to_c", "write a netx file as C without allocations and floating point"),
    "from-nir": ("export.from_nir", "write a NIR graph as a netx file"),
    "run": ("deploy.run_lava", "run a netx file in Lava and compare every spike"),
    "run-lava-dl": ("deploy.run_lava_dl", "run a network of lava-dl"),
    "classify": ("deploy.classify", "classes of your own pictures"),
    "report": ("deploy.report", "a page about a netx file and its run"),
    "fit": ("deploy.fit", "whether a netx file fits on a chip, and at what energy"),
}
"""Name, and the module that ``python -m`` runs with what it does."""

_by_name = False


def call_by_name() -> None:
    """From now on the commands call themselves ``nqlava NAME``."""
    global _by_name
    _by_name = True


def called(module: str) -> list[str]:
    """The words that start a command, such as nqlava train, or python -m train.cifar."""
    name = next((name for name, (found, _) in COMMANDS.items() if found == module), None)
    return ["nqlava", name] if _by_name and name else ["python", "-m", module]


def label(module: str) -> str:
    """What a command's messages begin with, such as nqlava train, or train.cifar."""
    return " ".join(word for word in called(module) if word not in ("python", "-m"))
