"""What the rooms agree on, without torch.

environment.py  the versions and the commit that something was made with
run.py          the record of a run: run.json and the files beside it
tasks.py        what a server makes of a model
"""
