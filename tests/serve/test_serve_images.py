"""What becomes of every kind of image: a table of files and the pixels they must give."""

import time

import numpy as np
import pytest
from odd_images import IMAGES, NO_IMAGES, image_file
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from deploypipe.contract.rejection import Rejection
from deploypipe.serve.service.images import PIXELS_FACTOR, decode_image


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
    begun = time.process_time()
    with pytest.raises(Rejection) as caught:
        _decode(data)
    assert caught.value.status == status, caught.value
    assert says in caught.value.message
    assert time.process_time() - begun < 1


def _grey(kind: str, width: int, height: int) -> bytes:
    """Dark on the left, bright on the right."""
    half = np.zeros((height, width), np.uint8)
    half[:, width // 2 :] = 200
    return image_file(Image.fromarray(half), kind)


def test_a_phones_photo_is_decoded_small() -> None:
    """12 megapixels for 28x28."""
    with pytest.MonkeyPatch.context() as patch:
        sizes = []
        load = JpegImageFile.load
        patch.setattr(JpegImageFile, "load", lambda self: sizes.append(self.size) or load(self))
        found = _decode(_grey("JPEG", 4000, 3000))
    assert sizes[0] == (2000, 1500)
    assert np.abs(found[0, :, :13].astype(int)).max() <= 3 and np.abs(found[0, :, 15:].astype(int) - 200).max() <= 3


def test_an_image_is_bounded_by_what_the_model_needs() -> None:
    most = PIXELS_FACTOR * 28 * 28
    assert _decode(_grey("PNG", 2534, 2534)).shape == (1, 28, 28)
    with pytest.raises(Rejection, match=rf"2535x2535 pixels; at most {most} are accepted") as caught:
        _decode(_grey("PNG", 2535, 2535))
    assert caught.value.status == 422
    # For a larger model the same image is small.
    decode_image(_grey("PNG", 2535, 2535), np.empty((1, 224, 224), np.uint8))
