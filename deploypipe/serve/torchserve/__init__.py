"""TorchServe: how it is started, proven, watched, drained and stopped, and what runs in its workers.

The server, from outside:

lifecycle.py      start, and serve until a signal comes
stopping.py       drain and end
configuration.py  its properties, its command line and its environment
folder.py         the folder of one server: its files, its lock, and who owns its record
java.py           which Java runs the front end
log4j.py          what it logs, and how much of it is kept
capacity.py       how many requests may wait
loopback.py       HTTP to a server on this machine
management.py     its management API
readiness.py      whether it answers its samples correctly
deployment.py     a new version for a running server
draining.py       wait until it has answered what it accepted
diagnosis.py      why it did not start, out of its logs

Inside a worker; all but the first of these modules travel inside archives:

worker.py         the worker's program
handler.py        TorchServe's hooks around the service
wire.py           its batches, read in one piece
metrics.py        what a worker counts
slots.py          in which files it counts
exposition.py     one address where all of it can be scraped
worker_log.py     what a worker logs is one line an event
"""
