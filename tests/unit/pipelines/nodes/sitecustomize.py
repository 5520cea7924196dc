"""Start of Python on the nodes of `cluster.py`: what workers of Ray start are forks, as in `tests/forks`."""

import os
import sys

if any(each.endswith("default_worker.py") for each in sys.orig_argv):
    sys.executable = os.environ["FORKS"]
    os.environ.pop("PYTHONPATH")
    if before := os.environ["FORKS_BEFORE"]:
        os.environ["PYTHONPATH"] = before
