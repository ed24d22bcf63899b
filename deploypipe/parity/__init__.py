"""Parity: does an artifact return what the eager model returns?

Every probe goes through the author's module (eager, eval mode, CPU) and through the artifact, loaded again from its
file. Names, order, number, shapes and dtypes must be the same; NaN and infinities must stand at the same places; every
other value must satisfy |artifact - eager| <= atol + rtol * |eager|, computed in float64, and must not be further from
a float64 run of the module than rounding explains.

gate.py              all checks, in order
budget.py            what the gate may spend, and what does not fit
probes.py            the inputs to compare on, by families
edges.py             the sizes at which artifacts turn wrong
refusals.py          whether the artifact refuses sizes outside of what it states
eager_signature.py   what an artifact of a module must take and return, by running the module
reference.py         what eager returns for them, in its own dtype and in float64
rounding.py          how values move when what they are computed from is rounded
ties.py              where a choice among equal values may be another
comparison.py        one artifact's outputs beside eager's
non_finite.py        what an artifact makes of NaN and infinities
tolerances.py        how far an artifact may be from eager
standards.py         what an artifact is held to: to equal eager, or to do its task as well
lower_precision.py   the checks of an artifact of lower precision
runtime_settings.py  the same artifact under other settings of its runtime: threads, optimisation, devices
fresh.py             the same artifact in a process of its own
nursery.py           where such processes come from
answering.py         what they are asked, and how they answer
classification.py    the classes of every test image
file_structure.py    what the saved graph must hold and must not
weights.py           whether the file holds the module's weights to the bit
provenance.py        whether the file is the one that its sidecar describes
localisation.py      the first operator of an artifact that departs from eager
recording.py         what each operator of eager computes
matching.py          which of eager's results a tensor is
reproduction.py      a failure as a script of its own
own_files.py         the files that a verification leaves, and how they are recognised
verdict.py           outcomes, findings, and the report that they make
"""
