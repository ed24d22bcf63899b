"""Whatever a client sends is answered with 200 or a 4xx of its own, and its neighbour with the truth."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzed_bodies import bodies
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn
from without_server import Context, load

from deploypipe.serve.torchserve.handler import Handler


@pytest.fixture(scope="module")
def loaded(artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Handler, Context]:
    return load(artifacts["onnx"], tmp_path_factory.mktemp("fuzzed"))


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(body=bodies)
def test_no_body_costs_more_than_its_own_4xx(
    loaded: tuple[Handler, Context], network: nn.Module, images: Tensor, body: bytes
) -> None:
    handler, context = loaded
    fresh = Context(context.manifest, context.system_properties)
    neighbour = json.dumps({"instances": images[:1].tolist()}).encode()
    answers: list[Any] = handler.handle([{"body": bytearray(body)}, {"body": bytearray(neighbour)}], fresh)
    first, second = map(json.loads, answers)
    assert fresh.statuses.get(0, 200) in (200, 400, 415, 422), first
    assert fresh.statuses.get(0, 200) == 200 or first["error"]
    wanted = network(images[:1]).softmax(1)[0]
    assert torch.allclose(torch.tensor(second["predictions"][0]["probabilities"]), wanted, atol=1e-5)
