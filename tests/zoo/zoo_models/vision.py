"""torchvision (every family), timm, segmentation models, and a YOLO-like detector of our own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo_models.model import BATCH, Axes, ZooCall, ZooModel, call, image

IMAGES: Axes = {"x": BATCH}


def images(batch: int, size: int) -> ZooCall:
    return call(image(batch, size))


def clips(batch: int, size: int, frames: int) -> ZooCall:
    return call(torch.randn(batch, 3, frames, size, size))


def image_list(count: int, size: int) -> ZooCall:
    """A list of images between 0 and 1, as the detectors take them."""
    return call([torch.rand(3, size, size + 16 * i) for i in range(count)])


def image_pair(batch: int, size: int) -> ZooCall:
    return call(image(batch, size), image(batch, size), num_flow_updates=2)


def from_torchvision(name: str, **settings: Any) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, **settings)


def torchvision_model(
    family: str,
    name: str,
    how: Callable[..., ZooCall] = images,
    dynamic: Axes = IMAGES,
    sizes: tuple[int, ...] = (2, 64),
    other_sizes: tuple[int, ...] | None = None,
    **settings: Any,
) -> ZooModel:
    other = other_sizes or (3, *sizes[1:])
    return ZooModel(f"torchvision/{name}", family, partial(from_torchvision, name, **settings), how, dynamic, sizes,
                    other)  # fmt: skip


def small_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64)


def small_swin(version: int) -> nn.Module:
    from torchvision.models.swin_transformer import (
        PatchMergingV2,
        SwinTransformer,
        SwinTransformerBlock,
        SwinTransformerBlockV2,
    )

    parts = {} if version == 1 else {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    settings = {"block": SwinTransformerBlock, **parts}
    return SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], **settings)  # type: ignore[arg-type]


def small_maxvit() -> nn.Module:
    from torchvision.models import MaxVit

    return MaxVit((64, 64), 16, 2, [16, 32], [1, 1], 8, 0.0)


classification = partial(torchvision_model, "classification")
detection = partial(torchvision_model, "detection", how=image_list, dynamic={}, sizes=(2, 64), other_sizes=(2, 64),
                    weights_backbone=None)  # fmt: skip
segmentation = partial(torchvision_model, "segmentation", weights_backbone=None)
video = partial(torchvision_model, "video", how=clips)

TORCHVISION = [
    *(classification(name) for name in ("alexnet", "vgg11", "resnet18", "resnext50_32x4d", "wide_resnet50_2",
      "squeezenet1_1", "densenet121", "shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5",
      "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "convnext_tiny")),
    classification("inception_v3", sizes=(2, 96), init_weights=False, aux_logits=True),
    classification("googlenet", init_weights=False, aux_logits=True),
    ZooModel("torchvision/vit", "classification", small_vit, images, IMAGES, (2, 32), (3, 32)),
    ZooModel("torchvision/swin", "classification", partial(small_swin, 1), images, IMAGES, (2, 64), (3, 64)),
    ZooModel("torchvision/swin_v2", "classification", partial(small_swin, 2), images, IMAGES, (2, 64), (3, 64)),
    ZooModel("torchvision/maxvit", "classification", small_maxvit, images, IMAGES, (2, 64), (3, 64)),
    segmentation("fcn_resnet50"),
    segmentation("deeplabv3_mobilenet_v3_large"),
    segmentation("lraspp_mobilenet_v3_large", dynamic={"input": BATCH}),
    detection("fasterrcnn_mobilenet_v3_large_320_fpn", min_size=64, max_size=96),
    detection("maskrcnn_resnet50_fpn", min_size=64, max_size=96),
    detection("keypointrcnn_resnet50_fpn", min_size=64, max_size=96),
    detection("retinanet_resnet50_fpn", min_size=64, max_size=96),
    detection("fcos_resnet50_fpn", min_size=64, max_size=96),
    detection("ssdlite320_mobilenet_v3_large"),
    detection("ssd300_vgg16"),
    torchvision_model("optical flow", "raft_small", how=image_pair, dynamic={"image1": BATCH, "image2": BATCH},
                      sizes=(2, 128)),
    *(video(name, sizes=(2, 32, 8)) for name in ("r3d_18", "mc3_18", "r2plus1d_18")),
    video("s3d", sizes=(2, 224, 16)),
    video("swin3d_t", sizes=(2, 32, 4)),
]  # fmt: skip


def from_timm(name: str, **settings: Any) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, **settings)  # type: ignore[no-any-return]


def timm_model(name: str, size: int = 64, **settings: Any) -> ZooModel:
    build = partial(from_timm, name, **settings)
    return ZooModel(f"timm/{name}", "timm", build, images, IMAGES, (2, size), (3, size), "timm")


TIMM = [
    *(timm_model(name) for name in ("resnet10t", "mobilenetv3_small_050", "convnext_atto", "convnextv2_atto",
      "regnetx_002", "ghostnet_100", "hrnet_w18_small", "repvgg_a0", "lcnet_035", "tinynet_e", "dla34",
      "edgenext_xx_small", "mobilevit_xxs", "poolformer_s12", "starnet_s1", "mambaout_femto", "efficientnet_b0",
      "pvt_v2_b0", "fastvit_t8", "inception_next_atto")),
    *(timm_model(name, img_size=64) for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "resmlp_12_224",
      "gmlp_ti16_224", "coat_lite_tiny", "twins_svt_small", "xcit_nano_12_p16_224")),
    *(timm_model(name, size=224) for name in ("levit_128s", "efficientformer_l1")),
    timm_model("swin_tiny_patch4_window7_224", img_size=56, size=56, depths=(1, 1, 1, 1)),
    timm_model("cait_xxs24_224", img_size=64, depth=2),
]  # fmt: skip


def from_smp(name: str, **settings: Any) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, name)(encoder_name="resnet18", encoder_weights=None, classes=2, **settings)  # type: ignore[no-any-return]


SEGMENTATION = [
    ZooModel(f"smp/{name}", "segmentation-models", partial(from_smp, name), images, IMAGES, (2, 64), (3, 64),
             "segmentation_models_pytorch")
    for name in ("Unet", "UnetPlusPlus", "FPN", "DeepLabV3Plus", "PSPNet", "Linknet", "MAnet", "Segformer")
]  # fmt: skip


class Yolo(nn.Module):
    """A detector of one stage in the manner of YOLO: three scales, anchors kept by the module and made anew for each
    size of image, boxes decoded and returned with their scores."""

    def __init__(self, classes: int = 4, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.SiLU())
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.SiLU()) for _ in range(3)
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, 4 + classes, 1) for _ in range(3))
        self.strides = (4, 8, 16)
        self.shape: tuple[int, ...] | None = None
        self.anchors = torch.empty(0)
        self.scales = torch.empty(0)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.stem(x)
        raw = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            raw.append(head(x))
        shape = tuple(raw[0].shape[2:])
        if self.shape != shape:
            self.anchors, self.scales = self.make_anchors(raw)
            self.shape = shape
        flat = torch.cat([each.flatten(2) for each in raw], 2)
        box, score = flat.split((4, flat.shape[1] - 4), 1)
        centre = (self.anchors + box[:, :2].sigmoid() - 0.5) * self.scales
        size = box[:, 2:].exp() * self.scales
        return torch.cat((centre - size / 2, centre + size / 2, score.sigmoid()), 1), raw

    def make_anchors(self, raw: list[Tensor]) -> tuple[Tensor, Tensor]:
        points, scales = [], []
        for each, stride in zip(raw, self.strides, strict=True):
            height, width = each.shape[2:]
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            points.append(torch.stack((columns, rows)).flatten(1) + 0.5)
            scales.append(torch.full((1, height * width), float(stride)))
        return torch.cat(points, 1), torch.cat(scales, 1)


class YoloWithNms(Yolo):
    """The same, with the boxes of the first image filtered by their scores and overlaps."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        from torchvision.ops import nms

        found, _ = super().forward(x)
        boxes, scores = found[0, :4].T, found[0, 4:].amax(0)
        likely = scores > 0.5
        boxes, scores = boxes[likely], scores[likely]
        kept = nms(boxes, scores, 0.5)
        return boxes[kept], scores[kept]


YOLO = [
    ZooModel("own/yolo", "YOLO", Yolo, images, IMAGES, (2, 64), (3, 64)),
    ZooModel("own/yolo-any-size", "YOLO", Yolo, images, {"x": {0: "batch", 2: "16*h", 3: "16*w"}}, (2, 64), (3, 96)),
    ZooModel("own/yolo+nms", "YOLO", YoloWithNms, images, IMAGES, (2, 64), (3, 64)),
]

MODELS = [*TORCHVISION, *TIMM, *SEGMENTATION, *YOLO]
