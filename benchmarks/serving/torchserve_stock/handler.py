"""TorchServe's own image classifier with what an MNIST needs of it, as in its examples: another transform, and the
answer with all probabilities."""

from torch import Tensor
from torchvision.transforms import PILToTensor
from ts.torch_handler.image_classifier import ImageClassifier


class DigitClassifier(ImageClassifier):
    image_processing = PILToTensor()  # the artifact takes raw pixels

    def postprocess(self, data: Tensor) -> list[dict[str, object]]:
        odds = data.softmax(dim=1)
        best = odds.max(dim=1)
        return [
            {"class": label, "probability": probability, "probabilities": row}
            for label, probability, row in zip(best.indices.tolist(), best.values.tolist(), odds.tolist(), strict=True)
        ]
