"""Calibration images in the forms in which users have them become the same uint8 images."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from export.fold.folded import ExportError
from export.images import image_set
from tests.tiny import image_set as some_images

DATA = some_images(12)
PIXELS = DATA.images.permute(0, 3, 1, 2).contiguous()
MEAN, STD = (0.5, 0.4, 0.6), (0.25, 0.2, 0.3)


class Normalised(Dataset):
    """A user's data set: images through a transform, and labels."""

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(DATA.images[index].numpy()), int(DATA.labels[index])


def test_arrays_and_image_sets() -> None:
    for given in (PIXELS, PIXELS.numpy(), DATA):
        found = image_set(given)
        assert torch.equal(found.images.images, DATA.images) and found.mean is None
        assert found.labels == found.classes == (given is DATA)


def test_a_data_loader_tells_its_normalisation() -> None:
    """The floats become the pixels that they were made from."""
    found = image_set(DataLoader(Normalised(), batch_size=5))
    assert torch.equal(found.images.images, DATA.images) and torch.equal(found.images.labels, DATA.labels)
    assert (tuple(found.mean or ()), tuple(found.std or ())) == (MEAN, STD) and found.labels


def test_a_list_of_batches_of_floats() -> None:
    """From 0 to 1: the network takes x/255."""
    found = image_set([PIXELS[:7] / 255, PIXELS[7:].double() / 255])
    assert torch.equal(found.images.images, DATA.images)
    assert (found.mean, found.std) == ([0.0] * 3, [1.0] * 3)


def test_batches_are_taken_up_to_500_images() -> None:
    assert len(image_set([PIXELS] * 100).images) == 500
    assert len(image_set(PIXELS.repeat(100, 1, 1, 1)).images) == 1200


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"^images: there are none; allowed: some hundred, for calibration$"),
        (PIXELS.long(), r"^images: are torch.int64; allowed: uint8, or floats from 0 to 1$"),
        (PIXELS.float(), r"^images: are from 0 to 2\d\d; allowed: uint8, from 0 to 1, or normalised by the given mean"),
        (np.zeros((3, 4)), r"^images: are of the shape \(3, 4\); allowed: \(N, C, H, W\)$"),
        ([PIXELS, PIXELS[:, :, 1:]], r"^images: are of the shapes \[\(3, 7, 6\), \(3, 8, 6\)\]; allowed: one$"),
    ],
)
def test_others_are_refused(given: object, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        image_set(given)  # type: ignore[arg-type]


def test_a_mean_needs_a_deviation() -> None:
    with pytest.raises(ExportError, match=r"^mean and std: one is missing; allowed: both or none$"):
        image_set(PIXELS, mean=MEAN)
