"""NNSmith's list (ise-uiuc/nnsmith, doc/bugs.md): torch's exporter, ONNX Runtime, and the kinds of torch.compile's
silent bugs, each written anew for the ONNX exporter."""

import torch
import torch.nn.functional as F
from case import INF, NAN, PublishedBug, bug
from torch import nn

torch.manual_seed(0)
X = torch.tensor([[0.3, -1.2, 2.5, 0.7], [1.1, 0.4, -2.2, 3.5], [-0.6, 0.0, -3.5, 0.9]])
EDGES = torch.tensor([[0.5, -0.5, 1.5, -1.5], [2.5, -2.5, -0.0, 1e20], [3.0, -7.0, 1e-8, -1e10]])
MISSING = torch.tensor([[NAN, 1.0, -1.0, 0.0], [INF, -INF, 0.5, NAN]])
WHOLE = torch.tensor([[3, -1, 0, 7], [-5, 4, 2, -7]], dtype=torch.int32)
LONG = WHOLE.long()
BYTES = torch.tensor([[0, 1, 200, 255], [100, 128, 127, 3]], dtype=torch.uint8)
IMAGE = torch.rand(2, 3, 5, 7) - 0.3
WIDE = torch.rand(2, 6, 9, 4) * 4 - 2
ROWS = (X, X * 2 + 1)


def in_place(x: torch.Tensor) -> torch.Tensor:
    stacked = torch.stack([x, x + 1])
    stacked[0].mul_(2)
    return stacked.transpose(0, 1)


def windows(x: torch.Tensor) -> torch.Tensor:
    y = x + 1
    y.unfold(1, 2, 2).abs_()
    return y


def returns_its_weight() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.layer(x), self.layer.weight

    return Net()


PRELU = nn.PReLU(3)
with torch.no_grad():
    PRELU.weight.copy_(torch.tensor([0.1, 0.5, -0.3]))
CONV = nn.Conv2d(3, 2, 3, padding=1)

OPERATORS: dict[str, PublishedBug] = {
    "leaky_relu of float64": bug("pytorch #85316", lambda x: x * F.leaky_relu(x), X.double(), EDGES.double()),
    "maximum of two dtypes": bug("pytorch #87609", torch.maximum, (LONG, X[:2]), (LONG, X[1:])),
    "prelu, a weight a channel": bug("pytorch #70571", PRELU, IMAGE, -IMAGE),
    "clamp of int32": bug("pytorch #72401", lambda x: x.clamp(-2, 3), WHOLE),
    "minimum of int32": bug("pytorch #72401", torch.minimum, (WHOLE, -WHOLE)),
    "maximum of int64": bug("pytorch #72401", torch.maximum, (LONG, -LONG)),
    "relu of int32": bug("pytorch #72401", F.relu, WHOLE),
    "pad of int64": bug("pytorch #72401", lambda x: F.pad(x, (1, 2), value=-3), LONG),
    "matmul of many ranks": bug(
        "pytorch #70534",
        lambda x, y: (x @ y[0, :, 0], x @ y, y[0, :, 0] @ y),
        (torch.rand(2, 3, 4), torch.rand(2, 4, 4)),
    ),
    "flatten of a scalar": bug("pytorch #74142", lambda x: (x.sum().flatten(), x.flatten(1), x.flatten(0, 1)), IMAGE),
    "log2 of a scalar": bug("pytorch #78701", lambda x: x.exp().sum().log2(), X, EDGES.clamp(-3, 3)),
    "interpolate to one pixel": bug(
        "pytorch #79361, #183523",
        lambda x: [F.interpolate(x, size=(1, 1), mode=mode) for mode in ("bilinear", "bicubic")],
        IMAGE,
        IMAGE * 50 - 9,
    ),
    "interpolate, bicubic": bug(
        "onnxruntime #11496", lambda x: F.interpolate(x, size=(3, 11), mode="bicubic"), IMAGE, -IMAGE
    ),
    "interpolate, nearest": bug(
        "onnxruntime #12098",
        lambda x: (
            F.interpolate(x, size=(7, 3)),
            F.interpolate(x, scale_factor=(1.6, 0.7)),
            F.interpolate(x, size=(8, 11), mode="nearest-exact"),
        ),
        IMAGE,
        -IMAGE,
    ),
    "relu, then clip": bug(
        "onnxruntime #9753, #10936", lambda x: (F.relu(x).clamp(-1, 1), F.relu(x).clamp(0.5, 2)), X, MISSING
    ),
    "matmul, scaled by a scalar": bug("onnxruntime #10950", lambda x: (x @ x.mT) * x.sum() / 3, X),
    "gemm with a transposed bias": bug(
        "onnxruntime #12071",
        lambda x, y: torch.addmm(y.mT, x, y, beta=0.5, alpha=2.0),
        (torch.rand(4, 4), torch.rand(4, 4)),
        dynamic={},
    ),
    "reflection with negative padding": bug(
        "onnxruntime #11828", lambda x: F.pad(x, (-1, 2, 2, -1), mode="reflect"), IMAGE
    ),
    "float to int32 to bool": bug("onnxruntime #11994", lambda x: (x.int().bool(), x.bool()), X, EDGES[:1]),
    "float64 to int64": bug("onnxruntime #11994", lambda x: (x.long(), x.trunc()), X.double(), EDGES[:1].double()),
    "broadcast to a common shape": bug(
        "onnxruntime #11870", lambda x: (x[:, None] + x[None].sum(1, keepdim=True)).expand(2, -1, -1, -1), X
    ),
    "floor of large values": bug(
        "onnxruntime #12076", lambda x: (x.floor(), x.ceil(), x.double().floor()), X, EDGES, EDGES * 1e10
    ),
    "a weight as an output": PublishedBug("onnxruntime #13425", returns_its_weight, (X,)),
    "stack, then in place": bug("pytorch #93283", in_place, X),
    "cat of an expanded tensor": bug("pytorch #93357", lambda x: torch.cat([x, x[:, :1].expand(-1, 3)], 1) * 2, X),
    "cat, then multiply": bug("pytorch #93365", lambda x: torch.cat([x, x * x, x[:, :0]], 1) * x[:, :1], X),
    "linear of one vector": bug("pytorch #93372", nn.Linear(4, 2), X[0], dynamic={}),
    "where of two dtypes": bug("pytorch #93374", lambda x: torch.where(x > 0, x, 1), X, MISSING),
    "expand, then divide in place": bug("pytorch #93377", lambda x: x[:, :1].expand(-1, 4).clone().div_(x), X, EDGES),
    "masked_fill by NaN's mask": bug("pytorch #93823", lambda x: x.masked_fill(x.isnan() | (x < 0), -1), X, MISSING),
    "reciprocal of zeros": bug("pytorch #93824", torch.reciprocal, X + 0.05, torch.tensor([[0.0, -0.0, INF, -INF]])),
    "negation of uint8": bug("pytorch #93829", lambda x: -x, BYTES),
    "pad, then compare": bug("pytorch #93351", lambda x: F.pad(x, (1, -1)) > 0, X, MISSING),
    "comparison of integers": bug("pytorch #95695", lambda x: (x >= 2, x >= 2.5, x.ge(x.flip(1))), LONG),
    "unfold, then in place": bug(
        "pytorch #98143", windows, X, refused="torch.export writes windows in place with the example's batch"
    ),
    "pow, then cos": bug("pytorch #98149", lambda x: torch.cos(torch.pow(2, x)), X),
    "dstack, then reciprocal": bug("pytorch #93078", lambda x: torch.dstack([x, x + 9]).reciprocal(), X + 5),
    "bilinear interpolation": bug(
        "pytorch #93262",
        lambda x: [
            F.interpolate(x, scale_factor=s, mode="bilinear", align_corners=a, recompute_scale_factor=r)
            for s in (2.0, 0.6)
            for a, r in ((True, None), (False, None), (False, True))
        ],
        IMAGE,
    ),
    "fmod": bug("pytorch #97333", lambda x, y: (torch.fmod(x, y), torch.fmod(x, -2.0)), ROWS, (EDGES, X)),
    "convolution, then interpolate": bug("pytorch #100794", lambda x: F.interpolate(CONV(x), scale_factor=2.0), IMAGE),
    "index_select of a vector": bug("pytorch #94340", lambda x: x.sum(1).index_select(0, torch.tensor(0)), X),
    "convolution, max and clip": bug("pytorch #86556", lambda x: CONV(x).amax(1).clamp(-0.2, 0.3), IMAGE, IMAGE * 9),
}
