"""A real Ray Serve, on this machine: our policy brings replicas under load and takes them away after it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or importlib.util.find_spec("ray.serve") is None,
    reason="needs Ray Serve: pip install 'textnlp-fast[ray]'",
)

HERE = Path(__file__).parent


@pytest.mark.slow
def test_replicas_come_under_load_and_go_after_it(tmp_path: Path) -> None:
    # Sockets of Ray's have long names below this folder: the names of pytest's are too long for them.
    temporary = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    settings = {"policy": "integrations.standins:Following", "period_s": 0.5, "capacity_concurrency": 2}
    command = [
        sys.executable,
        str(HERE / "ray_application.py"),
        str(tmp_path / "go"),
        temporary,
        json.dumps(settings),
    ]
    environment = {
        **os.environ,
        # The policy is unpickled in Ray's controller, which finds modules as this process does.
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *(path for path in sys.path if path)]),
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.2",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.2",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_prestart_worker_first_driver": "0",
    }
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=150)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        shutil.rmtree(temporary, ignore_errors=True)
    assert process.returncode == 0, errors[-4000:]
    seen = [json.loads(line)["replicas"] for line in out.splitlines() if line.startswith('{"replicas"')]
    assert seen[0] <= 1
    assert max(seen) == 3
    assert seen[-1] == 1
