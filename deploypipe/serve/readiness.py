"""Is a server ready? Not by what it says of itself: every worker loaded, and packaged samples answered over HTTP.

TorchServe's `/ping` is healthy while workers crash-loop, and the management API may call a dead worker READY; so
neither is trusted alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from deploypipe.errors import first_line
from deploypipe.serve.archive import Archive
from deploypipe.serve.rejection import Rejection
from deploypipe.serve.tensors import disagreement, from_protocol, to_protocol


@dataclass(frozen=True)
class ModelStatus:
    name: str
    version: str
    workers: int
    """How many are loaded."""
    workers_wanted: int
    problem: str
    """Why the model is not ready; "" when it is."""

    @property
    def ready(self) -> bool:
        return not self.problem


def check(archive: Archive, url: str, management_url: str, tokens: Mapping[str, str], timeout: float) -> ModelStatus:
    """Ask for the model's workers, and for its answer to its own sample."""
    loaded, wanted, problem = 0, 0, ""
    try:
        loaded, wanted = _workers(archive, management_url, tokens, timeout)
        if wanted == 0 or loaded < wanted:
            problem = f"{loaded} of {wanted} workers are loaded"
        else:
            problem = _sample_problem(archive, url, tokens, timeout)
    except httpx.TimeoutException:
        problem = f"no answer within {timeout:g} s"
    except httpx.HTTPError as cause:
        problem = first_line(cause)
    return ModelStatus(archive.name, archive.version, loaded, wanted, problem)


def _workers(archive: Archive, url: str, tokens: Mapping[str, str], timeout: float) -> tuple[int, int]:
    response = httpx.get(
        f"{url}/models/{archive.name}/{archive.version}",
        headers=_authorization(tokens, "management"),
        timeout=timeout,
        trust_env=False,
    )
    if response.status_code != 200:
        return 0, 0
    (described,) = response.json()
    loaded = sum(worker["status"] == "READY" for worker in described["workers"])
    return loaded, int(described["minWorkers"])


def _sample_problem(archive: Archive, url: str, tokens: Mapping[str, str], timeout: float) -> str:
    signature, sample = archive.signature, archive.sample
    inputs = [to_protocol(spec.name, value) for spec, value in zip(signature.inputs, sample.inputs, strict=True)]
    response = httpx.post(
        f"{url}/predictions/{archive.name}/{archive.version}",
        content=json.dumps({"inputs": inputs}),
        headers={"content-type": "application/json", **_authorization(tokens, "inference")},
        timeout=timeout,
        trust_env=False,
    )
    if response.status_code != 200:
        return f"it answers its packaged sample with HTTP {response.status_code}: {response.text[:200].strip()}"
    try:
        outputs = from_protocol(response.json()["outputs"], signature.outputs, "outputs")
    except (ValueError, KeyError, TypeError, Rejection) as cause:
        return f"its answer cannot be read: {first_line(cause)}"
    for spec, wanted, found, (atol, rtol) in zip(
        signature.outputs, sample.outputs, outputs, archive.tolerances, strict=True
    ):
        if problem := disagreement(wanted, found, atol, rtol):
            return f"its answer to its packaged sample is not eager's: output {spec.name!r}: {problem}"
    return ""


def _authorization(tokens: Mapping[str, str], kind: str) -> dict[str, str]:
    return {"authorization": f"Bearer {tokens[kind]}"} if kind in tokens else {}
