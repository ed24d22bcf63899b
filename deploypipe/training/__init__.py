"""What a training is made of; `deploypipe.train` puts it together.

config.py       TrainConfig: everything that decides the weights, and what goes before what; read without torch
parsing.py      dataclasses out of TOML, dotted keys and JSON
recipes.py      named sets of settings
schedules.py    learning rate schedules, by name
prepare.py      the data, the device and the configuration, on which the processes of a group agree
seeds.py        every random number as a function of the seed and the step
optim.py        optimizers, by name
muon.py         the Muon optimizer
average.py      a mean of the weights over the steps
augment.py      images moved, turned and scaled as tensors
loop.py         the state of a training and one step of it
leader.py       what the leading process does: the steps, and what they leave in the run directory
follower.py     what the other processes of a group do
distributed.py  the processes of one training, which torchrun starts
launch.py       whether torchrun started this process; read without torch
checkpoint.py   the state as a file: the last and the one before
run_folder.py   the run directory's files: whose they are, and how they are written
pictures.py     curves, confusion matrix and worst mistakes as PNG files
range_test.py   the search for a learning rate
memory.py       out of memory, answered by a batch size that fits
device.py       which device, and whether its kernels must be deterministic
stop.py         signals that wait for the end of a step
clock.py        seconds by phase
"""
