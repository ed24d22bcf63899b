"""TorchServe's management API, as far as it is needed: what is loaded, load and unload, which version is the default.

It listens on this machine alone. Registering takes its settings from the query string: TorchServe 0.12 batches wrongly
for a model that was registered with a JSON body.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploypipe.contract.server import Server, authorization
from deploypipe.errors import ServingError
from deploypipe.serve.torchserve.loopback import Reply, ask


@dataclass(frozen=True)
class Loaded:
    """One version of a model, as TorchServe describes it."""

    version: str
    workers_wanted: int
    workers: int
    """How many have loaded it."""
    pids: tuple[int, ...]
    """Of the workers."""
    batch: int
    delay_ms: int
    waiting: int
    """Requests in its queue; those that a worker has in its hands are not counted."""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Loaded":
        workers = document["workers"]
        return cls(
            version=document["modelVersion"],
            workers_wanted=document["minWorkers"],
            workers=sum(worker["status"] == "READY" for worker in workers),
            pids=tuple(worker["pid"] for worker in workers if worker["pid"] > 0),
            batch=document["batchSize"],
            delay_ms=document["maxBatchDelay"],
            waiting=document["jobQueueStatus"]["pendingRequests"],
        )


class Management:
    """The management API of one server. Its methods raise Unanswered when it does not answer, and ServingError when it
    refuses."""

    def __init__(self, server: Server, timeout: float = 10.0) -> None:
        self._url = server.management_url
        self._headers = authorization(server, "management")
        self._timeout = timeout

    def names(self) -> list[str]:
        """The names of the models that are loaded."""
        listed = self._ask("GET", "/models", {"limit": 100}).json()
        return [model["modelName"] for model in listed.get("models", ())]

    def versions(self, name: str) -> dict[str, Loaded]:
        """What is loaded under `name`, by version; nothing for a name that is not known."""
        return {found.version: found for found in self._described(f"{name}/all")}

    def loaded(self, name: str, version: str) -> Loaded | None:
        return next(iter(self._described(f"{name}/{version}")), None)

    def default(self, name: str) -> str | None:
        """The version that answers requests which name none; None for a name that is not known."""
        return next((found.version for found in self._described(name)), None)

    def _described(self, path: str) -> list[Loaded]:
        response = self._ask("GET", f"/models/{path}")
        if response.status != 200:
            return []
        return [Loaded.from_json(document) for document in response.json()]

    def register(self, file: str, like: Loaded, timeout: float) -> None:
        """Load the archive `file` of the model store with the workers, batch size and delay of `like`; return once
        its workers have loaded it. ServingError, with nothing left loaded, when they cannot."""
        settings: dict[str, str | int] = {
            "url": file,
            "initial_workers": like.workers_wanted,
            "batch_size": like.batch,
            "max_batch_delay": like.delay_ms,
            "synchronous": "true",
        }
        response = self._ask("POST", "/models", settings, timeout)
        if response.status == 405:
            raise ServingError(
                "this server was started so that nothing can be loaded later", "`deploypipe serve --deployable`."
            )
        _accepted(response)

    def unregister(self, name: str, version: str) -> None:
        """End the version's workers, whatever they have in their hands."""
        _accepted(self._ask("DELETE", f"/models/{name}/{version}"))

    def set_default(self, name: str, version: str) -> None:
        """From the next request on; requests that wait for another version are still answered by that."""
        _accepted(self._ask("PUT", f"/models/{name}/{version}/set-default"))

    def refuse_new(self, name: str, version: str) -> None:
        """Answer new requests with 503, and those that are accepted as before.

        Wanting no worker but allowing as many as there are makes TorchServe forget them without ending them: for new
        requests there is "no worker", while the forgotten ones go on with the queue. There is no way back.
        """
        found = self.loaded(name, version)
        if found and found.workers_wanted:
            settings = {"min_worker": 0, "max_worker": found.workers_wanted}
            _accepted(self._ask("PUT", f"/models/{name}/{version}", settings))

    def _ask(
        self, method: str, path: str, parameters: Mapping[str, str | int] | None = None, timeout: float | None = None
    ) -> Reply:
        return ask(method, self._url + path, parameters=parameters, content=b"" if method in ("POST", "PUT") else None,
                   headers=self._headers, timeout=timeout or self._timeout)  # fmt: skip


def _accepted(response: Reply) -> None:
    if response.status not in (200, 202):
        try:
            text = response.json()["message"]
        except (ValueError, KeyError, TypeError):
            text = response.text[:200]
        raise ServingError(f"TorchServe refuses (HTTP {response.status}): {text.strip()}")
