"""Threads that share a scorer: each gets its own rows, errors stay where they belong, and nobody waits in vain."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from PIL import Image

from aesr1 import Scorer
from aesr1.app import shared_batches
from aesr1.app.shared_batches import SharedBatches
from aesr1.model.model_thread import ModelThread
from aesr1.model.predict import Origin, PredictSettings, empty_row

ROW = empty_row(Origin("model", "revision", "decoding"))


class HeldModel:
    """A model that waits until it is let go. Its row names the width of the picture; it fails at a width of 99."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()

    def __call__(self, pictures):
        self.batches.append([picture.width for picture in pictures])
        assert self.go.wait(10)
        if any(picture.width == 99 for picture in pictures):
            raise ZeroDivisionError
        return [replace(ROW, reply=str(picture.width)) for picture in pictures]


@pytest.fixture
def model():
    return HeldModel()


def pictures_of(*widths):
    return [Image.new("RGB", (width, 10)) for width in widths]


def asked(pool, batches, model, *calls):
    """The futures of calls with pictures of these widths; each begins when the one before runs or waits."""
    futures = []
    for number, widths in enumerate(calls):
        futures.append(pool.submit(batches, pictures_of(*widths)))
        until(lambda count=number: model.batches and len(model.batches) + len(batches._waiting) > count)
    return futures


def until(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def replies(future):
    return replies_of(future.result(10))


def replies_of(rows):
    return [row.reply for row in rows]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def ctrl_c():
    """Python's own Ctrl-C, whatever the commands of other tests left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_comes_meanwhile_is_one_batch_in_the_order_in_which_it_came(pool, model):
    calls = [[1], [2], [3, 4], [5], [6], [7]]
    futures = asked(pool, SharedBatches(ModelThread(), model, 4), model, *calls)
    model.go.set()
    assert [replies(future) for future in futures] == [[str(width) for width in call] for call in calls]
    assert model.batches == [[1], [2, 3, 4, 5], [6, 7]]


def test_threads_that_come_again_and_again_meet_in_every_batch(pool, model, monkeypatch):
    monkeypatch.setattr(shared_batches, "PATIENCE", 50.0)
    batches = SharedBatches(ModelThread(), lambda pictures: time.sleep(0.02) or model(pictures), 4)

    def five(width):
        return [replies_of(batches(pictures_of(width))) for _ in range(5)]

    first = pool.submit(five, 1)
    until(lambda: model.batches)
    second = pool.submit(five, 2)
    until(lambda: batches._waiting)
    model.go.set()
    assert (first.result(10), second.result(10)) == ([["1"]] * 5, [["2"]] * 5)
    assert [sorted(batch) for batch in model.batches] == [[1], *[[1, 2]] * 4, [2]]


def test_a_thread_that_is_alone_does_not_wait(model, monkeypatch):
    monkeypatch.setattr(shared_batches, "PATIENCE", 1000.0)
    model.go.set()
    batches = SharedBatches(ModelThread(), lambda pictures: time.sleep(0.05) or model(pictures), 4)
    started = time.monotonic()
    for _ in range(3):
        batches(pictures_of(1))
    assert time.monotonic() - started < 10


def test_a_long_call_and_short_ones_take_turns(pool, model):
    batches = SharedBatches(ModelThread(), model, 2)

    def long():
        return [row.reply for start in range(0, 6, 2) for row in batches(pictures_of(10 + start, 11 + start))]

    first = pool.submit(long)
    until(lambda: model.batches)
    others = [pool.submit(batches, pictures_of(width)) for width in (1, 2)]
    until(lambda: len(batches._waiting) == 2)
    model.go.set()
    assert first.result(10) == [str(width) for width in range(10, 16)]
    assert sorted(reply for future in others for reply in replies(future)) == ["1", "2"]
    assert sorted(model.batches[1]) == [1, 2]


def test_calls_that_must_not_be_joined_take_turns(pool, model):
    futures = asked(pool, SharedBatches(ModelThread(), model, 4, joined=False), model, [1], [2, 3], [4])
    model.go.set()
    assert [replies(future) for future in futures] == [["1"], ["2", "3"], ["4"]]
    assert model.batches == [[1], [2, 3], [4]]


def test_an_error_of_the_model_reaches_the_call_that_caused_it_and_no_other(pool, model):
    batches = SharedBatches(ModelThread(), model, 4)
    futures = asked(pool, batches, model, [1], [2], [99, 5], [3])
    model.go.set()
    assert [type(future.exception(10)) for future in futures] == [type(None)] * 2 + [ZeroDivisionError, type(None)]
    assert "raise ZeroDivisionError" in traceback.format_exception(futures[2].exception())[-2]
    assert model.batches == [[1], [2, 99, 5, 3], [2], [99, 5, 3], [99, 5], [3]]
    assert batches(pictures_of(4))[0].reply == "4"


@pytest.mark.parametrize("others", [[], [[1]]], ids=["while its batch runs", "while it waits"])
def test_ctrl_c_costs_no_other_thread_its_rows(pool, model, others, ctrl_c):
    batches = SharedBatches(ModelThread(), model, 4)
    futures = asked(pool, batches, model, *others)

    def interrupt():
        until(lambda: len(model.batches) + len(batches._waiting) > len(others))
        time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        batches(pictures_of(5))
    model.go.set()
    assert [replies(future) for future in futures] == [["1"]] * len(others)
    assert replies(pool.submit(batches, pictures_of(6))) == ["6"]
    assert not batches._waiting


def test_who_waited_for_an_interrupted_batch_is_served_after_it(pool, model, ctrl_c):
    batches = SharedBatches(ModelThread(), model, 4)

    def interrupt():
        until(lambda: model.batches)
        (future,) = asked(pool, batches, model, [7])
        time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return replies(future)

    waited = pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        batches(pictures_of(5))
    model.go.set()
    assert waited.result(10) == ["7"]


@pytest.fixture(scope="module")
def scorer(random_model):
    return Scorer(str(random_model), device="cpu", settings=PredictSettings(max_new_tokens=6))


def test_eight_threads_get_the_rows_that_each_gets_alone(scorer, scene_folder, pool):
    paths = sorted(scene_folder.glob("*.png"))[:32]
    alone = [scorer.score([path])[0] for path in paths]
    together = list(pool.map(lambda path: scorer.score([path])[0], paths))
    assert [row.image for row in together] == [str(path) for path in paths]
    for field in ("score", "score_std"):
        values = [[getattr(row, field) for row in rows] for rows in (together, alone)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert [replace(row, score=0, score_std=0) for row in together] == [
        replace(row, score=0, score_std=0) for row in alone
    ]


def test_a_bad_picture_of_one_thread_is_its_own_row(scorer, scene_folder, tmp_path, pool):
    (tmp_path / "bad.jpg").write_text("no picture")
    calls = [[scene_folder / "00.png", tmp_path / "bad.jpg"], [tmp_path / "gone.jpg"], [scene_folder / "01.png"]] * 4
    found = list(pool.map(scorer.score, calls))
    assert [[row.error is None for row in rows] for rows in found] == [[True, False], [False], [True]] * 4


def test_samples_of_threads_are_those_of_each_alone(random_model, scene_folder, pool):
    scorer = Scorer(str(random_model), device="cpu", settings=PredictSettings(samples=2, max_new_tokens=6))
    calls = [[scene_folder / f"0{number}.png"] for number in range(8)]
    alone = [scorer.score(call) for call in calls]
    assert list(pool.map(scorer.score, calls)) == alone
