"""Diffusion models, graph networks, and the cases that torch's own wheel carries for its exporter."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from zoo_models.model import BATCH, Axes, ZooCall, ZooModel, call, ids, image

BLOCKS = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}


def from_diffusers(name: str, **settings: Any) -> nn.Module:
    import diffusers

    return getattr(diffusers, name)(**settings)  # type: ignore[no-any-return]


def diffusion(
    name: str, how: Callable[..., ZooCall], dynamic: Axes, sizes: tuple[int, ...] = (2,), **settings: Any
) -> ZooModel:
    other = (3, *(size + 1 for size in sizes[1:]))
    return ZooModel(f"diffusers/{name}", "diffusers", partial(from_diffusers, name, **settings), how, dynamic, sizes,
                    other, "diffusers")  # fmt: skip


def noisy(batch: int) -> ZooCall:
    return call(image(batch, 16), torch.tensor(10))


def noisy_with_text(batch: int, length: int) -> ZooCall:
    return call(image(batch, 16, 4), torch.tensor(10), encoder_hidden_states=torch.randn(batch, length, 16))


def noisy_with_class(batch: int) -> ZooCall:
    steps, labels = torch.randint(0, 100, (batch,)), torch.randint(0, 5, (batch,))
    return call(image(batch, 8, 4), timestep=steps, class_labels=labels)


DIFFUSERS = [
    diffusion("UNet2DModel", noisy, {"sample": BATCH}, sample_size=16, down_block_types=("DownBlock2D",
              "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4, **BLOCKS),
    diffusion("UNet2DConditionModel", noisy_with_text, {"sample": BATCH, "encoder_hidden_states": {0: "batch",
              1: "length"}}, (2, 6), sample_size=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
              up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16, attention_head_dim=4,
              **BLOCKS),
    diffusion("AutoencoderKL", lambda batch: call(image(batch, 16)), {"sample": BATCH}, sample_size=16,
              down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **BLOCKS),
    diffusion("VQModel", lambda batch: call(image(batch, 16)), {"sample": BATCH}, sample_size=16, num_vq_embeddings=16,
              down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **BLOCKS),
    diffusion("DiTTransformer2DModel", noisy_with_class, {"hidden_states": BATCH, "timestep": BATCH,
              "class_labels": BATCH}, num_layers=1, num_attention_heads=2, attention_head_dim=8, norm_num_groups=4,
              sample_size=8, num_embeds_ada_norm=100),
]  # fmt: skip


def graph(nodes: int, edges: int) -> ZooCall:
    return call(torch.randn(nodes, 8), torch.randint(0, nodes, (2, edges)))


def from_pyg(name: str) -> nn.Module:
    import torch_geometric.nn

    return getattr(torch_geometric.nn, name)(8, 16, num_layers=2, out_channels=4)  # type: ignore[no-any-return]


GRAPHS = [
    ZooModel(f"pyg/{name}", "PyG", partial(from_pyg, name), graph, {"x": {0: "nodes"}, "edge_index": {1: "edges"}},
             (6, 14), (9, 23), "torch_geometric")
    for name in ("GCN", "GraphSAGE", "GIN", "GAT")
]  # fmt: skip


class Patches(nn.Module):
    """Patches of an image, mixed by einops' functions and layers."""

    def __init__(self) -> None:
        super().__init__()
        from einops.layers.torch import Rearrange

        self.cut = Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=8, q=8)
        self.mix = nn.Linear(192, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from einops import rearrange, reduce

        heads = rearrange(self.mix(self.cut(x)), "b n (h d) -> b h n d", h=4)
        return reduce(heads, "b h n d -> b d", "mean")


class Tagger(nn.Module):
    """A recurrent tagger with torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(90, 16)
        self.layers = nn.LSTM(16, 16, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embedding(tokens))[0])  # type: ignore[no-any-return]


OWN = [
    ZooModel("own/einops", "einops", Patches, lambda batch: call(image(batch)), {"x": BATCH}, (2,), (3,), "einops"),
    ZooModel("own/lstm-tagger", "torch.nn", Tagger, lambda batch: call(ids(batch, 8)), {"tokens": BATCH}, (2,), (3,)),
    ZooModel("own/transformer-encoder", "torch.nn",
             lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2),
             lambda batch, length: call(torch.randn(batch, length, 16)), {"src": {0: "batch", 1: "length"}}),
]  # fmt: skip

EXPORTDB = (
    "assume_constant_result", "autograd_function", "class_method", "cond_branch_class_method",
    "cond_branch_nested_function", "cond_branch_nonlocal_variables", "cond_closed_over_variable", "cond_operands",
    "cond_predicate", "constrain_as_size_example", "constrain_as_value_example", "decorator", "dictionary",
    "dynamic_shape_assert", "dynamic_shape_constructor", "dynamic_shape_if_guard", "dynamic_shape_map",
    "dynamic_shape_round", "dynamic_shape_slicing", "dynamic_shape_view", "fn_with_kwargs", "list_contains",
    "list_unpack", "model_attr_mutation", "nested_function", "null_context_manager", "optional_input",
    "pytree_flatten", "scalar_output", "specialized_attribute", "static_for_loop", "static_if", "tensor_setattr",
    "type_reflection_method", "unsupported_operator", "user_input_mutation",
)  # fmt: skip


def exportdb_case(name: str) -> Any:
    from torch._export.db.examples import all_examples

    return all_examples()[name]


def exportdb_module(name: str) -> nn.Module:
    model = exportdb_case(name).model
    return model() if isinstance(model, type) else model  # type: ignore[no-any-return]


def exportdb_call(name: str, fresh: int) -> ZooCall:
    """The call that the case comes with, and for the comparison the same with other values."""
    case = exportdb_case(name)

    def other(leaf: Any) -> Any:
        return torch.randn_like(leaf) if fresh and isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    args, kwargs = torch.utils._pytree.tree_map(other, (case.example_args, case.example_kwargs or {}))
    return ZooCall(tuple(args), dict(kwargs))


CASES = [
    ZooModel(f"exportdb/{name}", "exportdb", partial(exportdb_module, name), partial(exportdb_call, name), {}, (0,),
             (1,))
    for name in EXPORTDB
]  # fmt: skip

MODELS = [*DIFFUSERS, *GRAPHS, *OWN, *CASES]
