"""The compiler reads and writes source: neither torch nor what runs the rewritten code is loaded with it."""

import subprocess
import sys

from support import PROJECT

LOAD = """
import importlib, pkgutil, sys
import deploypipe.compiler
for module in pkgutil.walk_packages(deploypipe.compiler.__path__, "deploypipe.compiler."):
    importlib.import_module(module.name)
print(sorted(n for n in sys.modules if n.partition(".")[0] == "torch" or n.startswith("deploypipe.")))
"""


def test_the_compiler_loads_neither_torch_nor_another_room() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=PROJECT, capture_output=True, text=True, check=True)
    loaded = [name for name in eval(done.stdout) if not name.startswith("deploypipe.compiler")]
    assert loaded == []
