"""Serving: what answers a request, and the engines that carry requests to it. Importing this package imports nothing.

defaults.py    what a server is started with unless something else is asked for
store.py       the model store: a folder of archives
network.py     ports and addresses
processes.py   a server's processes: recognised, watched and ended
sessions.py    a packed archive and a running server as sessions, for comparing them with eager
service/       what answers a request, the same on every engine
torchserve/    the engine: TorchServe
"""
