"""What answers requests, through the gate: an archive's handler, a server started here, or anybody's endpoint."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from deploypipe.client import client_for
from deploypipe.contract.server import started_here
from deploypipe.contract.signature import Signature, TensorSpec, dtype_name
from deploypipe.contract.structure import leaf_names
from deploypipe.eager import eager_outputs, input_names
from deploypipe.endpoints.asking import Asker
from deploypipe.endpoints.discovery import endpoint_at
from deploypipe.endpoints.endpoint import Endpoint
from deploypipe.endpoints.endpoint_session import EndpointSession
from deploypipe.endpoints.fitting import Fit, fitted
from deploypipe.formats.reading import read_runner
from deploypipe.formats.runner import Runner
from deploypipe.formats.torch_session import to_array
from deploypipe.parity.gate import Gate
from deploypipe.parity.verdict import Finding, Report
from deploypipe.serve.sessions import ServingSession, archive_session, server_session

Served = ServingSession | Endpoint
"""What answers requests; of an endpoint it is not known yet which of the module's outputs each of its own is."""


@contextmanager
def serving(
    archive: Path | None, url: str | None, name: str | None, headers: Mapping[str, str], device: str, like: Path | None
) -> Iterator[dict[str, Served]]:
    """By title, what answers requests as an artifact would. `like` says what the model of a TorchServe takes and
    returns that was not started here; every other server says so itself."""
    found: dict[str, Served] = {}
    with ExitStack() as stack:
        if archive is not None:
            found[str(archive)] = stack.enter_context(archive_session(archive, device))
        if url is not None:
            client = client_for(url, name, headers)
            title, endpoint = f"{client.name} at {client.url}", None
            if not started_here(client.url):
                asker = stack.enter_context(closing(Asker(client.url, headers)))
                endpoint = endpoint_at(asker, client.name)
            if endpoint:
                client.close()
                found[title] = endpoint
            else:
                known = read_runner(like) if like else None
                runner = server_session(client, known.signature, known.precision) if known else server_session(client)
                found[title] = stack.enter_context(runner)
        yield found


def examine_answering(gate: Gate, title: str, answering: Served) -> Report:
    """ServingError when a server does not answer."""
    if isinstance(answering, Endpoint):
        return _examine_endpoint(gate, title, answering)
    return examine_served(gate, title, answering)


def _examine_endpoint(gate: Gate, title: str, endpoint: Endpoint) -> Report:
    module, first = gate.reference.module, gate.probes[0]
    leaves, structure = eager_outputs(module, first.inputs)
    names = leaf_names(structure)
    outputs = [TensorSpec(*facts) for facts in zip(names, *_facts(leaves), strict=True)]
    fit = _fit(endpoint, module, first.inputs)
    report = examine_served(gate, title, EndpointSession(endpoint, fit, outputs))
    said = [Finding("protocol", True, endpoint.protocol)]
    said += [Finding("names", True, fit.renamed)] if fit.renamed else []
    return replace(report, findings=(*said, *report.findings))


def signature_known(served: Served) -> Signature | None:
    return None if isinstance(served, Endpoint) else served.signature


def declared_by(
    served: Served, module: nn.Module, example: Sequence[Tensor], limits: Sequence[str]
) -> tuple[Sequence[TensorSpec], Sequence[str]]:
    """What it takes, in the order of the module's inputs, and what must hold of the sizes."""
    if not isinstance(served, Endpoint):
        return served.inputs, limits
    fit = _fit(served, module, example)
    return fit.inputs, fit.limits


def _fit(endpoint: Endpoint, module: nn.Module, example: Sequence[Tensor]) -> Fit:
    names = input_names(module, tuple(example))
    return fitted(endpoint, [TensorSpec(*facts) for facts in zip(names, *_facts(example), strict=True)])


def _facts(tensors: Sequence[Tensor]) -> tuple[list[str], list[tuple[int, ...]]]:
    return [dtype_name(tensor.dtype) for tensor in tensors], [tuple(tensor.shape) for tensor in tensors]


def examine_served(gate: Gate, title: str, session: ServingSession | EndpointSession) -> Report:
    """The probes that one request can carry each; how many are not sent is a finding. ServingError when nobody
    answers."""
    reasons = [session.unsent(list(map(to_array, probe.inputs))) for probe in gate.probes]
    sent = tuple(probe for probe, reason in zip(gate.probes, reasons, strict=True) if not reason)
    report = replace(gate, probes=sent).examine_runner(Runner(session), title)
    report = replace(report, evidence=None)  # which is for a script about a file
    unsent = list(filter(None, reasons))
    if not unsent:
        return report
    detail = f"{len(unsent)} of {len(reasons)}; of the first, {unsent[0]}"
    return replace(report, findings=(*report.findings, Finding("probes not sent", True, detail)))
