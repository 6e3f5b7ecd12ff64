"""Programs run in a Python of their own, with as many fake CPU devices as they ask for."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def run_python(*args, num_devices=1, cwd=REPOSITORY, timeout_s=300):
    """The finished process of `python ARGS`, its output as text."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout_s)
