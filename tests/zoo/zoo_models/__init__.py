"""Models that people ship, tiny and with random weights, each with its call as its users write it.

model                     what an entry of the table says
comparison                eager and an artifact, called alike and compared
transformers_text         Hugging Face transformers: encoders, decoders, both, experts, state spaces
transformers_perception   the same library's vision, audio and time series models
vision                    torchvision, timm, segmentation-models-pytorch, and a YOLO-like detector of our own
others                    diffusers, PyTorch Geometric, einops, torch.nn, and torch's exportdb
"""

from zoo_models import others, transformers_perception, transformers_text, vision
from zoo_models.model import ZooCall, ZooModel

ZOO: dict[str, ZooModel] = {
    model.id: model
    for model in (*transformers_text.MODELS, *transformers_perception.MODELS, *vision.MODELS, *others.MODELS)
}

__all__ = ["ZOO", "ZooCall", "ZooModel"]
