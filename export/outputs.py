"""Some of the outputs of a classifier: those that are the classes of the images."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from export.fold.folded import ExportError
from nqlava.command.files import reading
from nqlava.errors import InputError, shown


class Outputs(nn.Module):
    """Some of the scores (N, K), in the given order."""

    def __init__(self, chosen: Sequence[int]) -> None:
        super().__init__()
        self.chosen = list(chosen)

    def forward(self, scores: Tensor) -> Tensor:
        return scores[:, self.chosen]


@torch.no_grad()
def with_outputs(model: nn.Module, chosen: Sequence[int] | None, shape: tuple[int, int, int]) -> nn.Module:
    """The network with the outputs ``chosen``, in this order; itself where that is None.

    Args:
        model: in evaluation mode; it takes uint8 images (N, C, H, W).
        chosen: numbers of outputs, from 0 on.
        shape: (C, H, W) of an image.

    Raises:
        ExportError: no output, one that is not there, or one that is named twice.
    """
    if chosen is None:
        return model
    try:
        scores = model(torch.zeros(1, *shape, dtype=torch.uint8))
    except Exception:  # of the user's code: lowering names the place
        return _behind(model, chosen)
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        raise ExportError("outputs: the model gives no scores (N, K); allowed: outputs of one that does")
    if not chosen:
        raise ExportError(f"outputs: there are none; allowed: some of 0..{scores.shape[1] - 1}")
    seen: set[int] = set()
    for number in chosen:
        if number not in range(scores.shape[1]) or number in seen:
            what = "is named twice" if number in seen else "is not there"
            raise ExportError(f"outputs: {number} {what}; allowed: each of 0..{scores.shape[1] - 1} once")
        seen.add(number)
    return _behind(model, chosen)


def _behind(model: nn.Module, chosen: Sequence[int]) -> nn.Module:
    """The modules keep their paths where the model is a plain Sequential, such as export.convert.normalised makes."""
    parts = dict(model.named_children()) if type(model) is nn.Sequential else {"network": model}
    return nn.Sequential(OrderedDict(**parts, outputs=Outputs(chosen))).eval()


def read_outputs(words: Sequence[str]) -> list[int]:
    """The numbers in ``words``, or those in the text file that a single word names.

    Raises:
        InputError: a word that is no number, or a file that cannot be read.
    """
    where = "--outputs"
    if len(words) == 1 and not words[0].isdecimal():
        path, where = Path(words[0]), f"--outputs {words[0]}"
        with reading(path):
            if not path.is_file():
                raise InputError(f"{where}: is no file; allowed: numbers, or a text file of them")
            words = path.read_text(encoding="utf-8", errors="replace").split()
    for word in words:
        if not (word.isascii() and word.isdecimal()):
            raise InputError(f"{where}: {shown(word, 40)} is no number; allowed: numbers of outputs, from 0 on")
    return [int(word) for word in words]
