"""Edges of single operators, as they were reported one by one: rounding, integers, pooling, attention, statistics."""

import torch
import torch.nn.functional as F
from case import INF, Function, PublishedBug, bug
from published_operators import BYTES, EDGES, IMAGE, LONG, MISSING, WHOLE, WIDE, X
from torch import Tensor

HALVES = torch.tensor([[0.5, 1.5, 2.5, -0.5], [-1.5, -2.5, 3.5, 0.4999999], [1e9, -0.2, 7.5, 8.5]])
SEEN = torch.tensor([[True, True, False, True], [True, False, True, True], [False, True, True, True]])
UNSEEN = torch.tensor([[True, True, False, True], [False, False, False, False], [False, True, True, True]])
BIG = torch.tensor([[2**31 - 1, -(2**31), 5, -3]], dtype=torch.int32)
HUGE = torch.tensor([[2**62, -(2**62), 2**53 + 1, -(2**53) - 1]])
SPREAD = torch.tensor([[-INF, -INF, 3.0, 0.0], [-INF] * 4, [INF, 1.0, -1.0, 2.0]])
DIVISORS = torch.tensor([[2, -3, 4, -7], [3, 3, -2, 2]], dtype=torch.int32)
SQUARE = torch.rand(2, 4, 4)
GRID = torch.rand(2, 3, 3, 2) * 2.6 - 1.3


def scattered(reduce: str, include_self: bool) -> Function:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return x.scatter_reduce(1, y, x * 2 + 1, reduce, include_self=include_self)

    return function


def attended(x: Tensor, mask: Tensor) -> Tensor:
    q = x[:, None, :, None].expand(-1, 1, -1, 2)
    return F.scaled_dot_product_attention(q, q + 1, q * 2, attn_mask=mask[:, None, None].expand(-1, 1, 4, -1))


def put(x: Tensor, y: Tensor) -> Tensor:
    z = x.clone()
    z[:, [0, 0, 2]] = y[:, :3]
    return z.index_put((torch.tensor([0, 0]),), y[:1], accumulate=True)


def gathered(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x.gather(1, y), x.gather(1, y.flip(1))


def squared(x: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(x.unflatten(1, (2, 2))) ** 2)


INDEX = torch.tensor([[0, 0, 1, 3], [2, 2, 2, 2], [3, 1, 0, 0]])

ELSEWHERE: dict[str, PublishedBug] = {
    "scatter_reduce mean, without self": bug("pytorch #152419", scattered("mean", False), (X, INDEX)),
    "scatter_reduce amax, without self": bug(
        "pytorch #152419", scattered("amax", False), (X, INDEX), (MISSING, INDEX[:2])
    ),
    "scatter_reduce prod": bug("pytorch #152419", scattered("prod", True), (X, INDEX)),
    "attention, a row that sees nothing": bug("pytorch #103749", attended, (X, SEEN), (X, UNSEEN)),
    "round half to even": bug("onnx's kinds", lambda x: x.round(), X, HALVES, MISSING),
    "round to decimals": bug("pytorch #88350", lambda x: (x.round(decimals=1), x.round(decimals=-1)), X, HALVES * 7),
    "integer quotients": bug(
        "pytorch #148098",
        lambda x, y: (x // y, torch.div(x, y, rounding_mode="trunc"), x / y, x // 4, x // -3),
        (WHOLE, DIVISORS),
        (-WHOLE, DIVISORS),
    ),
    "integer remainders": bug(
        "pytorch #148098", lambda x, y: (x % y, torch.fmod(x, y), x % 4, x % -3), (WHOLE, DIVISORS), (-WHOLE, DIVISORS)
    ),
    "float quotients and remainders": bug(
        "pytorch #148098", lambda x, y: (x // y, x % y, x % -1.5), (X, X.flip(0) + 0.2), (EDGES, X), (X, X * 0)
    ),
    "uint8 wraps around": bug("Jajal et al.: types", lambda x: (x + x, x * 3, x - 5), BYTES),
    "int32 wraps around": bug("Jajal et al.: types", lambda x: (x + x, x * x, -x, x.abs()), WHOLE, BIG),
    "int64 beyond 2**53": bug("Jajal et al.: types", lambda x: (x + 1, x * 2, x % 7, x.sum(1)), LONG, HUGE),
    "sum of bytes and of booleans": bug(
        "Jajal et al.: types", lambda x: (x.sum(1), (x > 9).sum(1), x.cumsum(1)), BYTES
    ),
    "power of integers": bug("Jajal et al.: types", lambda x: (x**2, x**3, 2.0**x, x.pow(0)), LONG),
    "shifts": bug("Jajal et al.: types", lambda x: (x >> 1, x << 2, x & 6, x | 1, x ^ 3, ~x), LONG),
    "float to uint8": bug("Jajal et al.: types", lambda x: (x.abs() * 20).to(torch.uint8), X),
    "average pool, ceil mode": bug(
        "onnxruntime #16752",
        lambda x: [
            F.avg_pool2d(x, 3, 2, padding=p, ceil_mode=True, count_include_pad=c) for p in (0, 1) for c in (True, False)
        ],
        IMAGE,
        IMAGE * 50 - 9,
    ),
    "average pool, own divisor": bug("pytorch exporter", lambda x: F.avg_pool2d(x, 3, 2, divisor_override=5), IMAGE),
    "max pool, ceil mode and dilation": bug(
        "pytorch exporter",
        lambda x: (
            F.max_pool2d(x, 3, 2, ceil_mode=True),
            F.max_pool2d(x, 2, 2, padding=1, ceil_mode=True),
            F.max_pool2d(x, 2, 1, dilation=2),
        ),
        IMAGE,
        IMAGE * 50 - 9,
    ),
    "max pool with NaN": bug(
        "pytorch exporter",
        lambda x: F.max_pool1d(x[:, None], 2),
        X,
        MISSING,
        refused="ONNX Runtime's MaxPool passes over NaN; to find it would take a second pass",
    ),
    "max pool with indices": bug("pytorch exporter", lambda x: F.max_pool2d(x, 2, 2, return_indices=True), IMAGE),
    "adaptive average pool": bug(
        "pytorch exporter", lambda x: (F.adaptive_avg_pool2d(x, (2, 3)), F.adaptive_avg_pool2d(x, 1)), IMAGE
    ),
    "lp pool": bug("pytorch exporter", lambda x: F.lp_pool2d(x, 2, 3, 2, ceil_mode=True), IMAGE.abs()),
    "std and var, corrections": bug(
        "pytorch exporter",
        lambda x: (x.std(1), x.std(1, correction=0), x.var(1, correction=2), x.var(1), x.std((0, 1))),
        X,
        EDGES.clamp(-9, 9),
    ),
    "var_mean and std_mean": bug(
        "pytorch exporter", lambda x: (*torch.var_mean(x, 1), *torch.std_mean(x, 1, correction=0)), X
    ),
    "var of a single value": bug("pytorch exporter", lambda x: (x[:, :1].var(1), x[:, :1].std(1, correction=0)), X),
    "softmax of minus infinity": bug("onnxruntime", lambda x: (x.softmax(1), x.log_softmax(1)), X, SPREAD),
    "logsumexp of minus infinity": bug(
        "pytorch exporter", lambda x: (x.logsumexp(1), torch.logaddexp(x, x.flip(1))), X, SPREAD
    ),
    "argmax of ties": bug("onnxruntime", lambda x: (x.round().argmax(1), x.round().argmin(1)), X, HALVES),
    "min and max with NaN": bug(
        "onnxruntime", lambda x: (x.amax(1), x.max(1), torch.maximum(x, -x), x.min(1).values), X, MISSING
    ),
    "sign and signbit": bug("onnxruntime", lambda x: (x.sign(), x.signbit(), x.copysign(x.flip(1))), X, MISSING, EDGES),
    "cumulative sums": bug("pytorch exporter", lambda x: (x.cumsum(1), x.cumsum(0), x.flip(1).cumsum(1)), X),
    "atan2 of zeros": bug(
        "pytorch exporter", lambda x: torch.atan2(x, x.flip(1)), X, torch.tensor([[0.0, -0.0, 0.0, -0.0]])
    ),
    "power of zero and negatives": bug(
        "onnxruntime", lambda x: (x**0, x**2, x**-1, x**0.5, (-2.0) ** x.round()), X, EDGES.clamp(-9, 9), X * 0
    ),
    "nan_to_num": bug("pytorch exporter", lambda x: (x.nan_to_num(), x.nan_to_num(1, 2, 3)), X, MISSING),
    "isclose, isinf, isnan": bug(
        "pytorch exporter", lambda x: (x.isinf(), x.isnan(), x.isfinite(), x.isposinf()), X, MISSING
    ),
    "nanmean and nansum": bug("pytorch exporter", lambda x: (x.nansum(1), x.nanmean(1)), X, MISSING),
    "gelu, both forms": bug("pytorch exporter", lambda x: (F.gelu(x), F.gelu(x, approximate="tanh")), X, X * 9),
    "softplus of large values": bug(
        "pytorch exporter", lambda x: (F.softplus(x), F.softplus(x, 2, 5), F.mish(x)), X, X * 50
    ),
    "hard activations": bug(
        "pytorch exporter", lambda x: (F.hardswish(x), F.hardsigmoid(x), F.hardtanh(x), F.relu6(x)), X, X * 9, MISSING
    ),
    "shrinking activations": bug(
        "pytorch exporter",
        lambda x: (F.softshrink(x), F.hardshrink(x), F.threshold(x, 0.1, -9), F.tanhshrink(x)),
        X,
        MISSING,
    ),
    "logsigmoid of large values": bug(
        "pytorch exporter", lambda x: (F.logsigmoid(x), F.softsign(x), F.silu(x)), X, X * 60
    ),
    "logit and xlogy": bug(
        "pytorch exporter", lambda x: (x.sigmoid().logit(1e-6), torch.special.xlogy(x, x.abs())), X, EDGES
    ),
    "erf, erfinv, lgamma": bug("pytorch exporter", lambda x: (x.erf(), (x / 4).erfc()), X),
    "norms of orders": bug(
        "pytorch exporter",
        lambda x: [torch.linalg.vector_norm(x, p, dim=1) for p in (0, 1, 2, 3, INF, -INF)],
        X,
        torch.zeros(2, 4),
    ),
    "normalize of zeros": bug(
        "pytorch exporter", lambda x: (F.normalize(x), F.cosine_similarity(x, x.flip(1))), X, X * 0
    ),
    "grid_sample": bug(
        "pytorch exporter",
        lambda x, y: [
            F.grid_sample(x, y, mode=m, padding_mode=p, align_corners=a)
            for m in ("bilinear", "nearest")
            for p in ("zeros", "border", "reflection")
            for a in (True, False)
        ],
        (IMAGE, GRID),
    ),
    "grid_sample, bicubic": bug(
        "pytorch exporter", lambda x, y: F.grid_sample(x, y, mode="bicubic", align_corners=False), (IMAGE, GRID)
    ),
    "interpolate, linear and trilinear": bug(
        "pytorch exporter",
        lambda x: (
            F.interpolate(x[:, 0], size=9, mode="linear"),
            F.interpolate(x[:, None], size=(2, 7, 3), mode="trilinear"),
        ),
        IMAGE,
    ),
    "interpolate, antialias": bug(
        "pytorch exporter", lambda x: F.interpolate(x, size=(3, 4), mode="bilinear", antialias=True), IMAGE
    ),
    "interpolate, area": bug("pytorch exporter", lambda x: F.interpolate(x, size=(2, 3), mode="area"), IMAGE),
    "pixel shuffles": bug("pytorch exporter", lambda x: F.pixel_shuffle(x, 2), torch.rand(2, 8, 3, 2)),
    "pixel unshuffle": bug("pytorch exporter", lambda x: F.pixel_unshuffle(x, 2), torch.rand(2, 2, 4, 6)),
    "unfold of images": bug("pytorch exporter", lambda x: F.unfold(x, (2, 3), 1, 1, 2), IMAGE),
    "fold of images": bug(
        "pytorch exporter", lambda x: F.fold(F.unfold(x, 2, stride=2), (4, 6), 2, stride=2), torch.rand(2, 3, 4, 6)
    ),
    "circular and replicated padding": bug(
        "pytorch exporter",
        lambda x: (F.pad(x, (1, 2, 1, 0), mode="circular"), F.pad(x, (2, 1, 0, 0), mode="replicate")),
        IMAGE,
    ),
    "group and instance normalisation": bug(
        "pytorch #94261",
        lambda x: (F.group_norm(x, 3, eps=1e-3), F.instance_norm(x), F.layer_norm(x, x.shape[2:])),
        IMAGE,
    ),
    "local response normalisation": bug(
        "pytorch exporter", lambda x: F.local_response_norm(x, 2, 0.1, 0.5, 2.0), IMAGE
    ),
    "transposed convolution": bug(
        "pytorch exporter",
        lambda x: F.conv_transpose2d(x, torch.ones(3, 2, 3, 3), stride=2, padding=1, output_padding=1, dilation=1),
        IMAGE,
    ),
    "convolution, even kernel, same": bug(
        "pytorch exporter", lambda x: F.conv2d(x, torch.ones(2, 3, 2, 4) / 9, padding="same", dilation=(1, 2)), IMAGE
    ),
    "negative indices": bug("pytorch exporter", lambda x: (x[:, -1], x[:, [-1, 0, -2]], x[..., 1::2], x[:, -3:-1]), X),
    "gather": bug("pytorch exporter", gathered, (X, INDEX)),
    "index_put, repeated places": bug("pytorch exporter", put, (X, X + 9)),
    "index_add and index_fill": bug(
        "pytorch exporter",
        lambda x: (x.index_add(1, torch.tensor([0, 0, 2]), x[:, :3]), x.index_fill(1, torch.tensor([1]), 7)),
        X,
    ),
    "masked_scatter": bug("pytorch exporter", lambda x: x.masked_scatter(x > 0, x.flip(0)), X),
    "roll, flip, rot90": bug("pytorch exporter", lambda x: (x.roll(1, 1), x.roll((1, -2), (0, 1)), x.flip((0, 1))), X),
    "triangles and diagonals": bug(
        "pytorch exporter", lambda x: (x.tril(-1), x.triu(1), x.diagonal(1, 1, 2), torch.diag_embed(x[:, 0])), SQUARE
    ),
    "repeat_interleave and tile": bug(
        "pytorch exporter", lambda x: (x.repeat_interleave(2, 1), x.tile(1, 2), x.repeat(1, 3)), X
    ),
    "one_hot and embedding": bug("pytorch exporter", lambda x: (F.one_hot(x, 5), F.embedding(x, torch.eye(5))), INDEX),
    "bucketize, both sides": bug(
        "pytorch exporter",
        lambda x: [torch.bucketize(x, torch.tensor([-1.5, 0.5, 2.5]), right=r) for r in (False, True)],
        X,
        HALVES,
        MISSING,
    ),
    "topk and sort of ties": bug(
        "pytorch exporter", lambda x: (x.round().topk(2).values, x.sort(1).values), X, MISSING
    ),
    "einsum and bilinear": bug(
        "pytorch exporter", lambda x: (torch.einsum("bij,bjk->bki", x, x), torch.einsum("bii->b", x)), SQUARE
    ),
    "cdist": bug("pytorch exporter", lambda x: (torch.cdist(x, x), torch.cdist(x, x, p=1.0)), SQUARE),
    "cross and dot": bug(
        "pytorch exporter", lambda x: (torch.linalg.cross(x[:, :3], x[:, 1:]), torch.linalg.vecdot(x, x)), X
    ),
    "addcdiv, addcmul, lerp": bug(
        "pytorch exporter",
        lambda x: (torch.addcmul(x, x, x, value=0.5), torch.addcdiv(x, x, x + 9, value=2), torch.lerp(x, -x, 0.3)),
        X,
    ),
    "trunc and frac": bug("pytorch exporter", lambda x: (x.trunc(), x.frac(), x.fix()), X, HALVES, EDGES[:2]),
    "deg2rad, hypot, sinc": bug("pytorch exporter", lambda x: (torch.deg2rad(x), torch.hypot(x, x + 1)), X, EDGES[2:]),
    "mean of integers and booleans": bug(
        "pytorch exporter",
        lambda x: ((x > 0).float().mean(1), x.float().mean((0, 1)), (x > 0).any(1), (x > 0).all(1)),
        LONG,
    ),
    "glu and channel shuffle": bug("pytorch exporter", lambda x: (F.glu(x, 1), F.channel_shuffle(x, 3)), WIDE),
    "complex power": bug("pytorch exporter", squared, X, refused="neither exporter has powers of complex numbers"),
}
