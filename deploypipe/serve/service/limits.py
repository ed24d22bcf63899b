"""How large requests and answers may be, on every engine. Travels inside archives."""

MAX_BODY = 4 << 20
"""Bytes of one request; TorchServe answers 413 beyond. It copies a whole batch of them at once, which must fit twice
into its memory (`-Xmx`, which bounds its buffers too)."""

MAX_ANSWER = 16 << 20
"""Bytes of one answer: TorchServe takes a larger one for a broken worker, and ends it."""
