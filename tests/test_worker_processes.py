"""Worker processes end when their parent ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

WORK = """
import os, time
from aesr1.worker_processes import worker_pool

def work(number):
    time.sleep(0.2)
    return os.getpid()

if __name__ == "__main__":
    with worker_pool(3) as pool:
        print(*set(pool.map(work, range(6))), flush=True)
        time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path, end):
    script = tmp_path / "work.py"
    script.write_text(WORK)
    command = [sys.executable, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers and all(map(alive, workers))
        parent.send_signal(end)
        assert parent.stdout.read() == ""  # returns once nobody holds the pipe any more
    limit = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(alive, workers))
