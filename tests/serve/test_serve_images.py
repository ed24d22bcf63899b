"""What becomes of every kind of image: a table of files and the pixels they must give."""

import time

import numpy as np
import pytest
from odd_images import IMAGES, NO_IMAGES, image_file
from PIL import Image

from deploypipe.contract.rejection import Rejection
from deploypipe.serve.service.images import decode_image


def _decode(data: bytes, channels: int = 1) -> np.ndarray:
    into = np.full((channels, 28, 28), 99, np.uint8)
    decode_image(data, into)
    return into


@pytest.mark.parametrize(("data", "wanted", "atol"), IMAGES.values(), ids=IMAGES)
def test_images(data: bytes, wanted: np.ndarray, atol: int) -> None:
    assert np.abs(_decode(data)[0].astype(int) - wanted).max() <= atol


def test_a_model_of_three_channels_gets_colours() -> None:
    found = _decode(image_file(Image.new("RGB", (5, 5), (1, 2, 3))), channels=3)
    assert (found == np.array([1, 2, 3]).reshape(3, 1, 1)).all()


@pytest.mark.parametrize(("data", "status", "says"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_whole_image_is_refused(data: bytes, status: int, says: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(Rejection) as caught:
        _decode(data)
    assert caught.value.status == status, caught.value
    assert says in caught.value.message
    assert time.perf_counter() - begun < 1
