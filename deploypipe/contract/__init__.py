"""What the rooms agree on, without torch, so that commands, clients and light servers can read it.

archive.py      the record of an archive: what it serves, and what it must answer
call.py         the form of a call: its arguments, which of them are tensors, and what is constant
environment.py  the versions and the commit that something was made with
protocol.py     arrays as JSON: the Open Inference Protocol v2, and nested lists
records.py      frozen dataclasses to JSON documents and back, with checks
rejection.py    the answer to a request that cannot be served
run.py          the record of a run: run.json and the files beside it
sample.py       inputs of a model and what it answers to them
seal.py         the proof that is carried from the weights to the server, and where it breaks
sidecar.py      the document beside each artifact: what it takes, returns, comes from and proved
signature.py    what a model takes and returns: names, dtypes and shapes
sizes.py        sizes of dynamic axes: how an author writes one, and the limits that an artifact states
structure.py    how a model's outputs nest, and the flat list of them that artifacts carry
tasks.py        what a server makes of a model
tensors.py      arrays, and their bytes as text
"""
