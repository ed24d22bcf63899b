"""What a server is started with unless something else is asked for. Imports nothing, so that the command line can show
it."""

PORT = 8080
"""Of the predictions."""
BATCH = 64
"""Most requests in one run."""
ANSWER_WITHIN = 2.0
"""Seconds: more requests than are answered within them are refused at once."""
DRAIN = 20.0
"""Seconds: with what TorchServe needs to end, less than the 30 after which Kubernetes kills."""
