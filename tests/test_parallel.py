"""The processes of torchrun meet, and part in order."""

import os
import subprocess
import sys

LEAVES = """
import atexit
atexit.register(lambda: print("left" if not distributed.is_initialized() else "pulled from under its threads"))  # runs after all that is registered later
from torch import distributed
from shvc_lib import parallel
parallel.join()
parallel.join()
assert distributed.is_initialized()
print("joined")
"""


def test_the_group_is_left_before_the_process_ends(tmp_path):
    """Else one run in four under torchrun aborted with its work done: "terminate called without an active exception"."""
    (tmp_path / "leaves.py").write_text(LEAVES)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", tmp_path / "leaves.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(start, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.split("\n")[:2] == ["joined", "left"], done.stdout + done.stderr
