"""What a training is made of; `deploypipe.train` puts it together.

settings.py    dataclasses out of TOML, dotted keys and JSON
config.py      TrainConfig: everything that decides the weights, and what goes before what
recipes.py     named sets of settings
seeds.py       every random number as a function of the seed and the step
optim.py       optimizers and learning rate schedules, by name
augment.py     images moved, turned and scaled as tensors
loop.py        the state of a training and one step of it
checkpoint.py  that state as a file: the last and the one before
device.py      which device, and whether its kernels must be deterministic
stop.py        signals that wait for the end of a step
clock.py       seconds by phase
launch.py      whether torchrun started this process, and whether it is the one that speaks
record.py      the run directory's files
"""
