"""The gate: all that an artifact of one model must show."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from deploypipe.contract.signature import Signature
from deploypipe.data import Split
from deploypipe.errors import ParityError, UsageError
from deploypipe.formats.reading import inspect_artifact, read_runner
from deploypipe.formats.runner import Runner
from deploypipe.parity.classification import check_task, test_set_probes
from deploypipe.parity.comparison import call, compare, output_names
from deploypipe.parity.file_structure import check_structure
from deploypipe.parity.fresh import FreshProcess
from deploypipe.parity.localisation import locate
from deploypipe.parity.probes import Probe, as_probe
from deploypipe.parity.provenance import check_provenance
from deploypipe.parity.reference import Reference
from deploypipe.parity.rounded import ANY, PRECISION, Itself, check_rows, tolerance
from deploypipe.parity.runtime_settings import representatives, settings
from deploypipe.parity.tolerances import NO_OVERRIDES, Overrides
from deploypipe.parity.verdict import Evidence, Finding, Outcome, Report


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

    @cached_property
    def test_probes(self) -> list[Probe]:
        return test_set_probes(self.test) if self.test else []

    def examine(self, path: Path, device: str = "cpu", *, title: str = "", fresh: bool = True) -> Report:
        """Everything that can be asked of a file: the probes and the test set, also under other settings, and
        what is in it. `fresh` adds a process of its own, which takes seconds to start.

        A difference is in the Report. ParityError for a file that cannot be loaded, UsageError for probes that eager
        itself does not take.
        """
        runner = read_runner(path, device)
        inspection = inspect_artifact(path)
        with ExitStack() as stack:
            process = stack.enter_context(closing(FreshProcess(path, device, runner.session))) if fresh else None
            report = self.examine_runner(runner, title or str(path))
            signature = runner.signature or self.signature
            found = check_structure(self.reference.module, inspection, signature, runner.precision)
            found.append(check_provenance(path, runner, self.weights_sha256))
            report = _extended(report, findings=found)
            elsewhere = self._elsewhere(runner) if report.passed else self
            if report.passed:
                report = elsewhere._under_settings(report, path, device)
            if report.passed and process:
                report = _extended(
                    report, *elsewhere._compare(Runner(process), representatives(self.probes), "fresh process")
                )
        if report.evidence:
            culprit = locate(self.reference.module, inspection, report.evidence.probe.inputs)
            report = replace(report, culprit=culprit)
        return report

    def examine_runner(self, runner: Runner, title: str) -> Report:
        """The probes and the test set, through whatever answers like an artifact."""
        overrides = self._overrides(runner, title)
        outcomes, evidence = self._compare(runner, self.probes, overrides=overrides)
        findings: list[Finding] = []
        if evidence is None:
            again = self._elsewhere(runner)
            outcomes += again._compare(runner, representatives(self.probes), "same call again")[0]
        if evidence is None and self.test is not None:
            more, found = check_task(self.reference, runner, self.test_probes, self.test, overrides)
            outcomes += more
            findings += found
        if evidence is None and runner.precision:
            findings.append(check_rows(runner, self.probes))
        return Report(
            title, runner.runtime, runner.provider, tuple(outcomes), tuple(findings), seed=self.seed, evidence=evidence,
            precision=runner.precision,
        )  # fmt: skip

    def _overrides(self, runner: Runner, title: str) -> Overrides:
        """Of lower precision, values are not compared unless the user says how far they may be; the accuracy is."""
        if not runner.precision or self.overrides != NO_OVERRIDES:
            return self.overrides
        if runner.precision != PRECISION:
            raise UsageError(f"{title} is {runner.precision!r}, a precision that is not known here")
        if self.test is None:
            raise UsageError(
                f"{title} is {runner.precision}, which is held to its accuracy: that needs the run's test set",
                "Verify it with the run that it was written from, or say with --atol how far it may be.",
            )
        return ANY

    def _elsewhere(self, runner: Runner) -> "Gate":
        """What `runner` is held to under other settings: to eager; of lower precision, to itself."""
        if not runner.precision:
            return self
        itself = Itself(self.reference.module, runner)
        answers = [leaf for probe in representatives(self.probes) for leaf in itself.answer(probe).leaves]
        allowed = tolerance(answers)
        return replace(self, reference=itself, overrides=Overrides({"": allowed.atol}, {"": allowed.rtol}))

    def _under_settings(self, report: Report, path: Path, device: str) -> Report:
        probes = representatives(self.probes)
        for name, load in settings(path, device).items():
            try:
                outcomes, evidence = self._compare(load(), probes, name)
            except (UsageError, ParityError) as cause:  # a device that this runtime cannot use; a file it cannot load
                finding = Finding(name, isinstance(cause, UsageError), cause.message)
                report = _extended(report, findings=[finding])
            else:
                report = _extended(report, outcomes, evidence)
        return report

    def _compare(
        self, runner: Runner, probes: Sequence[Probe], family: str = "", overrides: Overrides | None = None
    ) -> tuple[list[Outcome], Evidence | None]:
        overrides = self.overrides if overrides is None else overrides
        outcomes: list[Outcome] = []
        evidence = None
        for probe in probes:
            answer = self.reference.answer(probe)
            names = output_names(runner.signature, answer)
            if unknown := overrides.names() - set(names):
                raise UsageError(f"no output {', '.join(sorted(unknown))}", f"The outputs: {', '.join(names)}.")
            found = compare(answer, call(runner, probe), probe, runner, overrides, family)
            if evidence is None and not all(outcome.passed for outcome in found):
                tolerances = tuple((outcome.atol, outcome.rtol) for outcome in found)
                evidence = Evidence(probe, answer.leaves, tuple(names), tolerances)
            outcomes += found
        return outcomes, evidence


def _extended(
    report: Report,
    outcomes: Sequence[Outcome] = (),
    evidence: Evidence | None = None,
    findings: Sequence[Finding] = (),
) -> Report:
    return replace(
        report,
        outcomes=(*report.outcomes, *outcomes),
        findings=(*report.findings, *findings),
        evidence=report.evidence or evidence,
    )


def usable(reference: Reference, probes: Iterable[Probe | tuple[Tensor, ...]]) -> tuple[list[Probe], list[str]]:
    """The probes that eager takes, and a line for each drawn one that it does not: it may be outside of what the model
    is for (too long a sequence), and proves nothing. UsageError for a given one."""
    taken, untried = [], []
    for probe in map(as_probe, probes):
        try:
            reference.answer(probe)
        except UsageError as cause:
            if not probe.optional:
                raise
            if not probe.speculative:
                untried.append(f"not proven: {cause.message}")
        else:
            taken.append(probe)
    return taken, untried
