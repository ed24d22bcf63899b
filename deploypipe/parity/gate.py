"""The gate: all that an artifact of one model must show."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from deploypipe.contract.call import CallForm
from deploypipe.contract.signature import Signature
from deploypipe.data import Split
from deploypipe.errors import ParityError, UsageError
from deploypipe.formats.reading import inspect_artifact, read_runner
from deploypipe.formats.runner import Runner
from deploypipe.parity.budget import LeftOut
from deploypipe.parity.classification import check_task, test_set_probes
from deploypipe.parity.comparison import compare_outputs, output_names, returned_by
from deploypipe.parity.file_structure import check_structure
from deploypipe.parity.fresh import FreshProcess
from deploypipe.parity.localisation import locate
from deploypipe.parity.non_finite import NonFinite, try_non_finite
from deploypipe.parity.probes import GivenProbe, Probe, as_probe
from deploypipe.parity.provenance import check_provenance
from deploypipe.parity.reference import Reference
from deploypipe.parity.refusals import check_refusals
from deploypipe.parity.runtime_settings import representatives, settings
from deploypipe.parity.standards import Standard, standard_of
from deploypipe.parity.tolerances import NO_OVERRIDES, Overrides
from deploypipe.parity.verdict import Culprit, Evidence, Finding, Outcome, Report


@dataclass(frozen=True)
class Gate:
    """What the artifacts of one model are held to. Eager answers each probe once, for as many as are examined."""

    reference: Reference
    probes: tuple[Probe, ...]
    test: Split | None = None
    """Of an image classifier: every image goes through the artifact."""
    overrides: Overrides = NO_OVERRIDES
    signature: Signature | None = None
    """What a file that deploypipe did not write is meant to take: whether its axes are free."""
    weights_sha256: str | None = None
    """Of the run, which an artifact's provenance must name."""
    seed: int = 0
    non_finite: tuple[Probe, ...] = ()
    """Inputs with NaN and infinities, on which a difference is stated and no failure."""

    @cached_property
    def representatives(self) -> list[Probe]:
        return representatives(self.probes, self.reference.is_cheap)

    @cached_property
    def test_probes(self) -> list[Probe]:
        return test_set_probes(self.test) if self.test else []

    def examine(self, path: Path, device: str = "cpu", *, title: str = "", fresh: bool = True) -> Report:
        """Everything that can be asked of a file: the probes and the test set, also under other settings, and what is
        in it. `fresh` adds a process of its own.

        A difference is in the Report. ParityError for a file that cannot be loaded, UsageError for probes that eager
        itself does not take.
        """
        runner = read_runner(path, device)
        module, signature = self.reference.module, runner.signature or self.signature
        examination = _Examination(self, runner, title or str(path))
        with closing(FreshProcess(path, device, runner.session)) if fresh else nullcontext() as process:
            # What cannot be ended here is asked where it can, before anything is asked here.
            elsewhere_first = process is not None and not runner.stoppable
            if process and elsewhere_first:
                examination.ask_all(Runner(process), "fresh process")
            elif process:
                examination.see_it_survive(Runner(process), "fresh process")
            if examination.passed or not (elsewhere_first or examination.is_over):
                examination.ask()
            if examination.passed and process and not elsewhere_first:
                examination.ask_elsewhere(Runner(process), "fresh process")
        # That process has ended: what follows loads the artifact again, which may be as large as the model.
        if examination.passed and examination.standard.limits_non_finite():
            examination.ask_non_finite(lambda inputs: locate(module, inspect_artifact(path), inputs))
        examination.findings += check_structure(
            module, inspect_artifact(path), signature, examination.standard, own=runner.signature is not None
        )
        examination.findings.append(check_provenance(path, runner, self.weights_sha256))
        if not examination.is_over:
            examination.findings += filter(None, [check_refusals(runner, self.probes[0].inputs)])
        if examination.passed:
            examination.ask_under_settings(path, device)
        evidence = examination.evidence
        return examination.report(locate(module, inspect_artifact(path), evidence.probe.inputs) if evidence else None)

    def examine_runner(self, runner: Runner, title: str) -> Report:
        """The probes and the test set, through whatever answers like an artifact."""
        examination = _Examination(self, runner, title)
        examination.ask()
        return examination.report()


class _Examination:
    """One artifact, or whatever answers like one, on its way through the gate."""

    def __init__(self, gate: Gate, runner: Runner, title: str) -> None:
        """UsageError where the gate has not what the artifact's standard needs."""
        self.gate, self.runner, self.title = gate, runner, title
        self.standard = standard_of(runner.precision, gate.overrides, title)
        if self.standard.needs_test_set() and gate.test is None:
            raise UsageError(
                f"{title} is {runner.precision}, which is held to its accuracy: that needs the run's test set",
                "Verify it with the run that it was written from, or say with --atol how far it may be.",
            )
        self.outcomes: list[Outcome] = []
        self.findings: list[Finding] = []
        self.evidence: Evidence | None = None
        self.non_finite = NonFinite(0)
        self.started = time.process_time()
        self.left_out: list[str] = []
        """What the budget had no room for."""
        self.is_over = False
        """A call had to be ended, or ended its process: so would the next ones, and a search for the place."""

    @property
    def passed(self) -> bool:
        return self.report().passed

    def report(self, culprit: Culprit | None = None) -> Report:
        return Report(
            self.title, self.runner.runtime, self.runner.provider, tuple(self.outcomes), tuple(self.findings), culprit,
            seed=self.gate.seed, evidence=self.evidence, claims=self.standard.claims(self.findings),
            non_finite=self.non_finite.stated, budget=self.gate.reference.seconds,
            left_out=(*self.gate.reference.left_out, *self.left_out),
        )  # fmt: skip

    @property
    def is_spent(self) -> bool:
        return time.process_time() - self.started > self.gate.reference.seconds

    def ask(self) -> None:
        """The probes; and if all of them agree, some of them again, and the test set."""
        gate = self.gate
        self._compare(self.runner, gate.probes, gate.reference, self.standard)
        if self.evidence is not None or self.is_over:
            return
        self.ask_elsewhere(self.runner, "same call again")
        self.evidence = None  # a script that calls the artifact once would not show that its second answer differs
        if gate.test is not None:
            outcomes, findings = check_task(gate.reference, self.runner, gate.test_probes, gate.test, self.standard)
            self.outcomes += outcomes
            self.findings += findings
        self.findings += self.standard.check_answers(self.runner, gate.probes)

    def see_it_survive(self, runner: Runner, family: str) -> None:
        """The probes that cost little, in a process of its own, before they are asked here: an artifact that ends its
        process would end this one. What it returns is compared later."""
        for probe in filter(self.gate.reference.is_cheap, _cheap_first(self.gate.probes)):
            answer = self.gate.reference.answer(probe)
            returned = returned_by(runner, probe, answer.seconds)
            if returned.is_last:
                self.outcomes += compare_outputs(answer, returned, probe, runner, self.standard, family)
                self.is_over = True
                return

    def ask_non_finite(self, locate: Callable[[tuple[Tensor, ...]], Culprit | None]) -> None:
        gate = self.gate
        if gate.non_finite and self.is_spent:
            self.left_out.append("NaN and infinities")
        elif gate.non_finite:
            self.non_finite = try_non_finite(gate.reference, self.runner, gate.non_finite, self.standard, locate)
            self.findings.append(self.non_finite.finding())

    def ask_under_settings(self, path: Path, device: str) -> None:
        for name, load in settings(path, device).items():
            if self.is_spent:
                self.left_out.append(name)
                continue
            try:
                self.ask_elsewhere(load(), name)
            except (UsageError, ParityError) as cause:  # a device that this runtime cannot use; a file it cannot load
                self.findings.append(Finding(name, isinstance(cause, UsageError), cause.message))

    def ask_all(self, runner: Runner, family: str) -> None:
        """Every probe, through the same artifact run otherwise."""
        self._compare(runner, self.gate.probes, self.gate.reference, self.standard, family)

    def ask_elsewhere(self, runner: Runner, family: str) -> None:
        """One probe a family, through the same artifact run otherwise."""
        self._compare(runner, self.gate.representatives, *self._elsewhere, family)

    @cached_property
    def _elsewhere(self) -> tuple[Reference, Standard]:
        return self.standard.under_other_settings(self.gate.reference, self.runner, self.gate.representatives)

    def _compare(
        self, runner: Runner, probes: Sequence[Probe], reference: Reference, standard: Standard, family: str = ""
    ) -> None:
        for probe in _cheap_first(probes):
            if probe.optional and self.is_spent:
                what = family or f"{probe.family} [{probe.shapes}]"
                self.left_out += [what] if what not in self.left_out else []
                continue
            answer = reference.answer(probe)
            names = output_names(runner.signature, answer)
            if unknown := standard.overrides.names() - set(names):
                raise UsageError(f"no output {', '.join(sorted(unknown))}", f"The outputs: {', '.join(names)}.")
            returned = returned_by(runner, probe, answer.seconds)
            found = compare_outputs(answer, returned, probe, runner, standard, family)
            if returned.is_last:
                self.outcomes += found
                self.is_over = True
                return
            if self.evidence is None and not all(outcome.passed for outcome in found):
                tolerances = tuple((outcome.atol, outcome.rtol) for outcome in found)
                self.evidence = Evidence(probe, answer.leaves, tuple(names), tolerances)
            self.outcomes += found


def _cheap_first(probes: Sequence[Probe]) -> list[Probe]:
    """Those that must be asked, then the drawn ones, small ones first: what is left out in the end is the dearest."""
    return sorted(probes, key=lambda probe: probe.values if probe.optional else -1)


def usable(
    reference: Reference, probes: Iterable[GivenProbe], form: CallForm | None = None
) -> tuple[list[Probe], list[str]]:
    """The probes (calls of this form; without one tuples of tensors) that eager takes, and a line for each drawn one
    that it does not: it may be outside of what the model is for (too long a sequence), and proves nothing. UsageError
    for a given one. What does not fit into the budget, the reference notes."""
    given, untried = [as_probe(item, form) for item in probes], []
    taken: set[int] = set()
    for probe in _cheap_first(given):
        try:
            reference.answer(probe)
        except LeftOut:
            continue
        except UsageError as cause:
            if not probe.optional:
                raise
            if not probe.speculative:
                untried.append(f"not proven: {cause.message}")
        else:
            taken.add(id(probe))
    return [probe for probe in given if id(probe) in taken], untried
