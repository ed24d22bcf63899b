"""Whole networks of which users reported other answers in ONNX. Their weights are random, with the statistics that a
batch normalisation has after training; images are small, so that each takes seconds."""

import torch
import torch.nn.functional as F
from case import PublishedBug
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.segmentation import lraspp_mobilenet_v3_large


def trained_like(module: nn.Module) -> nn.Module:
    """Statistics and factors that are not those of a fresh batch normalisation, which change nothing."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
            with torch.no_grad():
                layer.weight.uniform_(0.6, 1.1)
                layer.bias.uniform_(-0.1, 0.1)
    return module


class Encoder(nn.Module):
    """The fast path of eager's encoder is another implementation than what is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(15, 16)
        layer = nn.TransformerEncoderLayer(16, nhead=4, dim_feedforward=16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.embed(x))


class SegmentSum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros(4, x.shape[1]).scatter_add(0, y[:, None].expand(-1, x.shape[1]), x)


class Segmentation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = trained_like(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)["out"]


class NormalisedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(3, eps=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x * 1e-3) + F.group_norm(x, 3)


torch.manual_seed(0)
IMAGES = torch.rand(2, 3, 64, 64)
WORDS = torch.tensor([[1, 2, 3, 4], [5, 6, 14, 0]])

ISSUES = {
    "ResNet50": PublishedBug("pytorch #168224, #166797", lambda: trained_like(resnet50(num_classes=10)), (IMAGES,)),
    "ResNet18": PublishedBug("pytorch #169178", lambda: trained_like(resnet18(num_classes=10)), (IMAGES,)),
    "ResNet18, an example of one image": PublishedBug(
        "pytorch #157621", lambda: trained_like(resnet18(num_classes=10)), (IMAGES[:1],), ((IMAGES,),)
    ),
    "segmentation, at each level of optimisation": PublishedBug("onnxruntime #18959", Segmentation, (IMAGES,)),
    "transformer encoder": PublishedBug(
        "pytorch #110557", Encoder, (WORDS,), ((WORDS[:, :3],),), {"x": {0: "b", 1: "t"}}
    ),
    "sum of segments": PublishedBug(
        "pytorch #91357",
        SegmentSum,
        (torch.rand(5, 3), torch.tensor([0, 1, 1, 3, 0])),
        (),
        {"x": {0: "rows"}, "y": {0: "rows"}},
    ),
    "instance normalisation of small values": PublishedBug("pytorch #60582", NormalisedTwice, (IMAGES[:, :, :8, :8],)),
}
