"""All places of a network that cannot be exported, found at once and without images."""

from torch import nn

from export.fold.folded import ExportError
from export.fold.lower import Lowering


def problems(model: nn.Module, input_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """One line for each operation that cannot be exported: module path, file and line, the reason, what works instead.

    Behind the first of them the search goes on as if every operation gave spikes. A forward that depends on values
    cannot be followed further, so that the place of it is the last one.

    Args:
        model: in evaluation mode; it takes uint8 images (N, C, H, W).
        input_shape: (C, H, W) of an image.

    Returns:
        Nothing where the network exports.
    """
    found: list[str] = []
    try:
        Lowering(model, input_shape, lambda error: found.append(str(error))).run()
    except ExportError as error:
        found.append(str(error))
    return tuple(dict.fromkeys(found))
