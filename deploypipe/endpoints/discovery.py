"""Which protocol a server speaks, found out by asking it."""

from collections.abc import Callable

import httpx

from deploypipe.endpoints.asking import Asker, json_object, said_by
from deploypipe.endpoints.endpoint import Endpoint
from deploypipe.endpoints.inference_protocol import protocol_model
from deploypipe.endpoints.tensorflow_rest import tensorflow_model
from deploypipe.errors import ServingError

PROTOCOLS: tuple[Callable[[Asker, str], Endpoint | None], ...] = (protocol_model, tensorflow_model)


def endpoint_at(asker: Asker, name: str) -> Endpoint | None:
    """The model called `name`; None where the server answers as TorchServe, which deploypipe's own client asks.

    ServingError where nobody answers, where there is no such model or it is not ready, and where the server speaks no
    protocol that is known here.
    """
    for protocol in PROTOCOLS:
        if (found := protocol(asker, name)) is not None:
            return found
    ping = asker.get("/ping")
    if "Healthy" in str((json_object(ping) or {}).get("status", "")):
        return None
    asked = {"/v2": asker.get("/v2"), f"/v1/models/{name}": asker.get(f"/v1/models/{name}"), "/ping": ping}
    raise ServingError(
        f"{asker.url} has no model {name!r} by a protocol that is known here: "
        + "; ".join(f"GET {path} gives {_shown(answer)}" for path, answer in asked.items()),
        "It must speak the Open Inference Protocol v2, TensorFlow Serving's REST, or be `deploypipe serve`.",
    )


def _shown(answer: httpx.Response) -> str:
    said = said_by(answer) if answer.status_code != 200 else "something else"
    return f"HTTP {answer.status_code}" + (f" ({said[:100]})" if said else "")
