"""The model's thread: work is done in order, errors and Ctrl-C reach the caller, and no process hangs or crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest
import torch

from aesr1.errors import AesError
from aesr1.model.model_thread import ModelThread, model_thread

HEAD = """
import os, sys, time
import torch
from aesr1 import Scorer
from aesr1.model.model_thread import model_thread
from aesr1.model.predict import PredictSettings

scorer = Scorer(sys.argv[1], device="cpu", settings=PredictSettings(fast=True))

def busy():
    while True:
        torch.ones(100, 100) @ torch.ones(100, 100)
"""


@pytest.fixture
def program(random_model, scene_folder):
    def start(code):
        command = [sys.executable, "-c", HEAD + code, str(random_model), str(scene_folder / "00.png")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def test_all_is_done_in_one_thread_and_each_device_has_one():
    thread = ModelThread()
    names = {thread.run(threading.get_ident) for _ in range(3)}
    assert len(names) == 1 and threading.get_ident() not in names
    assert model_thread("cpu") is model_thread("cpu") is not model_thread("meta")


def test_what_is_called_within_the_thread_is_done_at_once():
    thread = ModelThread()
    assert thread.run(lambda: thread.run(lambda: thread.run(threading.get_ident))) == thread.run(threading.get_ident)


def test_an_error_reaches_its_caller_with_its_traceback_and_the_thread_goes_on():
    def fails():
        raise AesError("no model", fix="name one")

    thread = ModelThread()
    with pytest.raises(AesError, match="no model") as error:
        thread.run(fails)
    assert "in fails" in "".join(traceback.format_exception(error.value))
    assert error.value.fix == "name one"
    assert thread.run(lambda: 3) == 3


def test_it_computes_with_as_many_openmp_threads_as_its_caller():
    thread, before = ModelThread(), torch.get_num_threads()
    try:
        for count in (1, 3, 2):
            torch.set_num_threads(count)
            assert thread.run(torch.get_num_threads) == count
    finally:
        torch.set_num_threads(before)


def test_modes_of_the_caller_do_not_change_what_is_computed():
    thread = ModelThread()
    with torch.autocast("cpu", torch.bfloat16):
        assert thread.run(lambda: (torch.ones(2, 2) @ torch.ones(2, 2)).dtype) == torch.float32


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("", marks=pytest.mark.slow),
        "scorer.score([sys.argv[2]])",
        pytest.param("model_thread('cpu').submit(busy)", marks=pytest.mark.slow),
    ],
)
def test_a_process_with_a_scorer_ends(program, code):
    process = program(code + "\nprint(time.time())")
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert time.time() - float(out) < 10  # it would last for ever


@pytest.mark.slow
def test_ctrl_c_ends_the_wait_and_the_process_at_once(program):
    process = program("print('ready', flush=True); model_thread('cpu').run(busy)")
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert process.returncode == -signal.SIGINT and errors.endswith("KeyboardInterrupt\n")


@pytest.mark.slow
def test_a_scorer_works_while_python_ends(program):
    process = program("import atexit; atexit.register(lambda: print(scorer.score([sys.argv[2]])[0].error))\n")
    assert process.communicate(timeout=60) == ("None\n", "")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_scorer_works_in_a_forked_process(program):
    process = program("""
scorer.score([sys.argv[2]])
child = os.fork()
print(scorer.score([sys.argv[2]])[0].score, flush=True)
if child:
    sys.exit(os.waitpid(child, 0)[1])
""")
    out, errors = process.communicate(timeout=60)
    first, second = out.split()
    assert (process.returncode, errors, first) == (0, "", second)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
@pytest.mark.slow
def test_callers_in_other_threads_cost_no_openmp_threads(program):
    process = program("""
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

torch.set_num_threads(3)
scorer.score([sys.argv[2]])
before, together = len(os.listdir("/proc/self/task")), Barrier(4)
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda _: (together.wait(), scorer.score([sys.argv[2]])), range(4)))
    print(before >= 4, len(os.listdir("/proc/self/task")) - before)
""")
    assert process.communicate(timeout=60) == ("True 4\n", "")
