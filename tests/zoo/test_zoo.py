"""The fast part of the zoo: a few models of each family, captured and compared with eager at another size.

`python benchmarks/zoo.py` runs all of it, in every format and beside PyTorch's own tools.
"""

import importlib.util
import inspect
from pathlib import Path

import pytest
import torch
from zoo_models import ZOO, ZooModel
from zoo_models.comparison import capture_of, difference, run, run_captured

import deploypipe
from deploypipe.formats import format_named

CAPTURED = (
    "transformers/BertModel",
    "transformers/GPT2LMHeadModel",
    "transformers/LlamaForCausalLM",
    "transformers/MambaForCausalLM",
    "transformers/T5ForConditionalGeneration",
    "transformers/ViTForImageClassification",
    "transformers/WhisperForConditionalGeneration",
    "torchvision/vit",
    "torchvision/squeezenet1_1",
    "timm/resnet10t",
    "timm/vit_tiny_patch16_224",
    "diffusers/UNet2DModel",
    "pyg/GCN",
    "smp/Unet",
    "own/yolo",
    "own/einops",
    "own/lstm-tagger",
    "own/transformer-encoder",
)
EXPORTED = (
    ("transformers/DistilBertModel", "pt2"),
    ("transformers/GPT2LMHeadModel", "onnx"),
    ("own/einops", "torchscript"),
)


def needed(id: str) -> ZooModel:
    model = ZOO[id]
    if importlib.util.find_spec(model.library) is None:
        pytest.skip(f"{model.library} is not installed (pip install 'deploypipe[zoo]')")
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("id", CAPTURED)
def test_a_model_is_captured_with_its_axes(id: str) -> None:
    model = needed(id)
    captured = capture_of(model.module(), model.example, model.dynamic)
    expected = run(model.module(), model.another_call)
    assert not difference(expected, run_captured(captured, model.module(), model.another_call))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("id", "format"), EXPORTED)
def test_an_artifact_answers_its_users_call(id: str, format: str, tmp_path: Path) -> None:
    model = needed(id)
    path = tmp_path / f"model{format_named(format).suffix}"
    args, kwargs = model.example
    deploypipe.export(model.module(), args, kwargs, format=format, path=path, dynamic=model.dynamic)
    runner = deploypipe.load(path)
    assert not difference(run(model.module(), model.another_call), run(runner, model.another_call))


def test_the_table_has_every_kind() -> None:
    families = {model.family for model in ZOO.values()}
    assert {"encoder", "decoder", "decoder with cache", "encoder-decoder", "vision", "audio", "mixture of experts",
            "state space", "classification", "detection", "segmentation", "optical flow", "video", "timm", "diffusers",
            "PyG", "segmentation-models", "YOLO", "exportdb"} <= families  # fmt: skip
    assert sum(id.startswith("transformers/") for id in ZOO) >= 40
    assert sum(id.startswith("timm/") for id in ZOO) >= 20
    assert sum(id.startswith("exportdb/") for id in ZOO) == 36


@pytest.mark.parametrize("id", ["own/yolo", "own/einops", "torchvision/vit", "exportdb/list_unpack"])
def test_a_model_is_the_same_each_time_it_is_built_and_takes_its_other_call(id: str) -> None:
    model = needed(id)
    assert not difference(run(model.module(), model.another_call), run(model.module(), model.another_call))
    sizes = [
        leaf.shape for leaf in torch.utils._pytree.tree_leaves(tuple(model.another_call)) if hasattr(leaf, "shape")
    ]
    assert sizes and set(model.dynamic) <= {*inspect.signature(model.module().forward).parameters}
