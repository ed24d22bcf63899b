"""Archives: a proven artifact, what serves it and its samples in one reproducible file.

pack.py         the file itself
proof.py        what must be proven of an artifact before it is packed
travel.py       which modules of deploypipe are packed with it
fresh_start.py  what is packed answers its samples in a process of its own
"""
