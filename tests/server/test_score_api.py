"""Scores over real HTTP: files and data URLs, events, limits, sidecars, Prometheus, the API's description."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2 as httpx
import pytest
from dng import dng
from PIL import Image
from serving import running

from aesr1.app.score import Scorer
from aesr1.model.predict import PredictSettings
from aesr1.server import batching as module
from aesr1.server.application import create_app
from aesr1.server.settings import ServeConfig

SAME = 1e-5
"""Scores of a picture in different batches differ by rounding alone."""


@pytest.fixture(scope="module")
def address():
    with running(
        ServeConfig("tiny", device="cpu", max_new_tokens=120, max_pictures=8, max_upload=2_000_000, max_batch=8)
    ) as address:
        yield address


@pytest.fixture(scope="module")
def scenes(scene_folder):
    return [scene_folder / f"{number:02d}.png" for number in range(8)]


@pytest.fixture(scope="module")
def alone(scenes):
    """What scoring gives from Python: with reasons, and fast."""
    return {
        reasons: Scorer("tiny", device="cpu", settings=PredictSettings(max_new_tokens=120, fast=not reasons)).score(
            scenes
        )
        for reasons in (True, False)
    }


def send(address, pictures, headers=None, **fields):
    """Pictures: paths, or pairs of name and bytes."""
    files = [("images", (each.name, each.read_bytes()) if isinstance(each, Path) else each) for each in pictures]
    return httpx.post(f"{address}/v1/score", files=files, data=fields, headers=headers, timeout=60)


def data_url(path):
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def events(answer):
    parts = [part.split("\n") for part in answer.text.split("\n\n") if part]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


@pytest.mark.parametrize("reasons", [True, False])
def test_files_and_data_urls_get_what_scoring_gives(address, scenes, alone, reasons):
    form = send(address, scenes, reasons=json.dumps(reasons)).json()
    body = {"images": list(map(data_url, scenes)), "reasons": reasons}
    in_json = httpx.post(f"{address}/v1/score", json=body, timeout=60).json()
    for answer in (form, in_json):
        assert (answer["model"], answer["decoding"]) == ("tiny", alone[reasons][0].decoding)
        for row, expected in zip(answer["predictions"], alone[reasons], strict=True):
            assert row["score"] == pytest.approx(expected.score, abs=SAME)
            assert row["score_std"] == pytest.approx(expected.score_std, abs=SAME)
            assert (row["reasoning"], row["readable"]) == (expected.reasoning, expected.readable)
            assert (row["stars"], row["score_10"]) == (expected.stars, expected.score_10)
    assert [row["name"] for row in form["predictions"]] == [path.name for path in scenes]


def test_the_photo_model_gives_percentiles_of_its_reference(scenes):
    with running(ServeConfig(device="cpu")) as address:
        (row,) = send(address, scenes[:1], reasons="false").json()["predictions"]
    (expected,) = Scorer(device="cpu", settings=PredictSettings(fast=True)).score(scenes[:1])
    assert row["percentile"] == pytest.approx(expected.percentile, abs=0.1) and row["reference"] == expected.reference


def test_events_come_one_a_picture_with_the_end_last(address, scenes, alone):
    answer = send(address, scenes, {"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pictures, (last, about) = events(answer)
    assert last == "end" and about["model"] == "tiny"
    assert {name for name, _ in pictures} == {"prediction"}
    scores = {row["index"]: row["score"] for _, row in pictures}
    assert [scores[index] for index in range(8)] == pytest.approx([row.score for row in alone[True]], abs=SAME)


def test_a_broken_picture_is_an_error_in_its_place(address, scenes):
    pictures = [scenes[0], ("notes.txt", b"no picture"), ("cut.png", scenes[1].read_bytes()[:90]), scenes[1]]
    rows = send(address, pictures, reasons="false").json()["predictions"]
    assert [row["score"] is None for row in rows] == [False, True, True, False]
    assert "is of no picture format" in rows[1]["error"] and "cut off" in rows[2]["error"]


def test_camera_raw_is_known_by_its_name(address, tmp_path):
    pytest.importorskip("rawpy")
    raw = tmp_path / "shot.DNG"
    raw.write_bytes(dng(128, 96, [30_000] * (128 * 96)))
    (row,) = send(address, [raw], reasons="false", thumbnail="64").json()["predictions"]
    assert row["error"] is None and row["thumbnail"].startswith("data:image/jpeg")


def test_a_killed_process_that_opens_pictures_is_replaced(scenes):
    config = ServeConfig("tiny", device="cpu")
    app = create_app(config)
    with running(config, app) as address:
        send(address, scenes[:1], reasons="false")
        for process in list(app.state.openers._processes):
            os.kill(process, signal.SIGKILL)
        rows = send(address, scenes, reasons="false").json()["predictions"]
    assert [row["error"] for row in rows] == [None] * 8


def test_a_thumbnail_has_the_longest_side_that_was_asked_for(address, scenes):
    (row,) = send(address, scenes[:1], reasons="false", thumbnail="40").json()["predictions"]
    small = Image.open(io.BytesIO(base64.b64decode(row["thumbnail"].partition(",")[2])))
    assert small.format == "JPEG" and max(small.size) == 40
    (row,) = send(address, scenes[:1], reasons="false").json()["predictions"]
    assert row["thumbnail"] is None


def test_stars_and_captions_in_a_file_are_told(address):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x4746], exif[0x010E] = 4, "our garden"
    Image.new("RGB", (40, 40), "teal").save(file, "JPEG", exif=exif)
    (row,) = send(address, [("a.jpg", file.getvalue())], reasons="false").json()["predictions"]
    assert row["has_rating"] and row["has_description"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"images": []}, 400, "images: List should have at least 1 item"),
        ({}, 400, "images: Field required"),
        ({"images": "x"}, 400, "images: Input should be a valid"),
        ({"images": ["x"], "reasons": 1}, 400, "reasons: Input should be a valid boolean"),
        ({"images": ["x"], "thumbnail": -1}, 400, "thumbnail: Input should be greater than or equal to 0"),
        ({"images": ["x"], "seed": 1}, 400, "seed: Extra inputs are not permitted"),
        ({"images": ["x"] * 9}, 400, "the request has 9 pictures; send at most 8 at a time"),
        ({"images": ["x" * 20_100_000]}, 413, "larger than 20,000,000 bytes"),
    ],
)
def test_a_body_that_is_no_request_says_why(address, body, status, words):
    answer = httpx.post(f"{address}/v1/score", json=body, timeout=60)
    assert answer.status_code == status and words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("pictures", "headers", "fields", "status", "words"),
    [
        (1, {}, {"reasons": "yes"}, 400, "neither true, false nor a number"),
        (1, {}, {"reasons": "[" * 90}, 400, "neither true, false nor a number"),
        (1, {}, {"thumbnail": "5000"}, 400, "thumbnail: Input should be less than or equal to 1024"),
        (1, {}, {"seed": "1"}, 400, "seed: Extra inputs are not permitted"),
        (16, {}, {}, 400, "Too many files"),
        (1, {"Origin": "https://evil.example"}, {}, 403, "a page of https://evil.example; use the page of this server"),
        (1, {"Origin": "http://["}, {}, 403, "a page of http://["),
        (1, {"Content-Type": "multipart/form-data; boundary=x; charset=punycode"}, {}, 415, "send UTF-8"),
        (1, {}, {"reasons": " " * 200}, 400, "exceeded maximum size"),
        (1, {"Content-Type": "text/plain"}, {}, 415, "send Content-Type: application/json or multipart/form-data"),
    ],
)
def test_a_form_that_is_no_request_says_why(address, scenes, pictures, headers, fields, status, words):
    answer = send(address, (scenes * 2)[:pictures], headers, **fields)
    assert answer.status_code == status and words in answer.json()["error"]["message"]


def test_files_that_are_too_large_are_refused_and_a_form_without_pictures_too(address):
    large = send(address, [("big.jpg", bytes(2_100_000))])
    assert large.status_code == 413 and "larger than 2,000,000 bytes" in large.json()["error"]["message"]
    none = httpx.post(f"{address}/v1/score", files={"other": ("a.png", b"x")})
    assert none.status_code == 400 and "the form has no pictures" in none.json()["error"]["message"]


def test_addresses_are_fetched_only_from_listed_servers(scenes):
    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", "/00.png")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(scenes[0].read_bytes() if self.path == "/00.png" else bytes(3_000_000))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        threading.Thread(target=server.serve_forever).start()
        listed = f"http://127.0.0.1:{server.server_port}"
        config = ServeConfig("tiny", device="cpu", fetch_from=(listed,), max_upload=2_000_000)
        names = [
            f"{listed}/00.png",
            f"{listed}/away",
            f"{listed}/large",
            f"http://localhost:{server.server_port}/00.png",
        ]
        names += [
            f"{listed}@evil.example/00.png",
            "file:///etc/passwd",
            f"http://u:p@127.0.0.1:{server.server_port}/00.png",
        ]
        with running(config) as address:
            body = {"images": names, "reasons": False}
            rows = httpx.post(f"{address}/v1/score", json=body, timeout=60).json()["predictions"]
        server.shutdown()
    assert [row["score"] is not None for row in rows] == [True, *[False] * 6]
    words = ["status 302", "more than 2,000,000 bytes", "does not fetch from", *["is no address of a server"] * 3]
    assert all(word in row["error"] for word, row in zip(words, rows[1:], strict=True))


def test_a_full_queue_is_503_with_the_seconds_to_wait(scenes, monkeypatch):
    begun, slow, real = threading.Event(), threading.Event(), module.Batcher._results

    def held(self, jobs):
        begun.set()
        slow.wait(30)
        return real(self, jobs)

    monkeypatch.setattr(module.Batcher, "_results", held)
    config = ServeConfig("tiny", device="cpu", max_waiting=2, max_batch=1)
    with running(config) as address, ThreadPoolExecutor(3) as pool:
        served = [pool.submit(send, address, scenes[:1], reasons="false")]
        begun.wait(10)
        served += [pool.submit(send, address, scenes[:1], reasons="false") for _ in range(2)]
        while "aesr1_waiting 2.0" not in httpx.get(f"{address}/metrics").text:
            time.sleep(0.02)
        answer = send(address, scenes[:1], reasons="false")
        slow.set()
        assert [each.result().status_code for each in served] == [200] * 3
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
    assert "2 replies are waiting already; try again in" in answer.json()["error"]["message"]


def test_many_clients_at_once_share_batches_and_get_their_own(address, scenes, alone):
    def ask(number):
        (row,) = send(address, [scenes[number % 8]], reasons="false").json()["predictions"]
        return row["score"]

    with ThreadPoolExecutor(16) as pool:
        scores = list(pool.map(ask, range(32)))
    assert scores == pytest.approx([alone[False][number % 8].score for number in range(32)], abs=SAME)
    text = httpx.get(f"{address}/metrics").text
    batches = float(text.partition("aesr1_batch_size_count ")[2].partition("\n")[0])
    pictures = float(text.partition('aesr1_pictures_total{outcome="scored"} ')[2].partition("\n")[0])
    assert pictures >= 32 and batches < pictures


def test_a_failing_model_is_an_error_and_the_server_goes_on(address, scenes, monkeypatch):
    def broken(self, jobs):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(module.Batcher, "_results", broken)
        answer = send(address, scenes[:2])
        stream = send(address, scenes[:2], {"Accept": "text/event-stream"})
    assert answer.status_code == 500 and "the model failed: RuntimeError" in answer.json()["error"]["message"]
    assert events(stream)[-1][0] == "error"
    assert send(address, scenes[:2]).status_code == 200


def test_the_key_is_asked_of_all_but_the_page_and_health(scenes):
    with running(ServeConfig("tiny", device="cpu", api_key="secret")) as address:
        for path in ("/", "/health", "/openapi.json"):
            assert httpx.get(address + path).status_code == 200
        for path in ("/metrics", "/v1/models"):
            assert httpx.get(address + path).status_code == 401
        assert send(address, scenes[:1]).status_code == 401
        assert send(address, scenes[:1], {"Authorization": "Bearer secret"}, reasons="false").status_code == 200


def test_metrics_count_requests_pictures_and_batches_by_known_names_alone(address, scenes):
    send(address, [scenes[0], ("x.png", b"x")], reasons="false")
    httpx.get(f"{address}/made-up")
    text = httpx.get(f"{address}/metrics").text
    for line in (
        'aesr1_requests_total{path="/v1/score",status="200"}',
        'aesr1_request_seconds_bucket{le="1.0",path="/v1/score"}',
        'aesr1_pictures_total{outcome="error"}',
        'aesr1_score_bucket{le="0.5"}',
        "aesr1_batch_size_sum",
        "aesr1_waiting 0.0",
        "process_resident_memory_bytes",
    ):
        assert line in text
    assert "made-up" not in text


def rows_of(*names, **changes):
    return json.dumps(
        [{"name": name, "stars": 4, "score": 0.7, "reasoning": "Soft light.", **changes} for name in names]
    )


def zipped(address, rows, sidecars=()):
    files = [("rows", (None, rows)), ("paths", (None, json.dumps([name for name, _ in sidecars])))]
    files += [("sidecars", ("sidecar.xmp", content)) for _, content in sidecars]
    answer = httpx.post(f"{address}/v1/sidecars", files=files, timeout=60)
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_sidecars_come_in_a_zip_and_keep_what_a_person_wrote(address):
    pytest.importorskip("libxmp")
    by_person = (
        zipped(address, rows_of("old.jpg", stars=2))["old.xmp"]
        .replace("<xmp:Rating>2</xmp:Rating>", "<xmp:Rating>5</xmp:Rating>")
        .replace('xmp:Rating="2"', 'xmp:Rating="5"')
    )
    made = zipped(address, rows_of("trip/a.jpg", "trip/a.dng", "old.jpg", score=0.6), [("old.xmp", by_person)])
    assert sorted(made) == ["not-changed.txt", "old.xmp", "trip/a.dng.xmp", "trip/a.jpg.xmp"]
    assert 'xmp:Rating="4"' in made["trip/a.jpg.xmp"] or "<xmp:Rating>4<" in made["trip/a.jpg.xmp"]
    assert 'xmp:Rating="5"' in made["old.xmp"] or "<xmp:Rating>5<" in made["old.xmp"]
    assert "Soft light." in made["trip/a.jpg.xmp"]


def test_a_dropped_picture_is_rejected_in_its_sidecar_and_stars_in_its_file_stay(address):
    pytest.importorskip("libxmp")
    dropped = zipped(address, rows_of("a.jpg", stars=-1))["a.xmp"]
    assert 'xmp:Rating="-1"' in dropped or "<xmp:Rating>-1<" in dropped
    rated = zipped(address, rows_of("a.jpg", has_rating=True))["a.xmp"]
    assert "xmp:Rating" not in rated and "aesr1:Score" in rated


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/a.jpg", "a/../../b.jpg", ".", "a\0.jpg", "é" * 130, "a/" * 20 + "b.jpg"]
)
def test_a_name_outside_of_the_folder_or_too_long_is_refused(address, name):
    answer = httpx.post(f"{address}/v1/sidecars", files={"rows": (None, rows_of(name))})
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and ("no relative path" in message or "too long" in message)


def test_sidecars_of_odd_names_are_found_and_written(address):
    pytest.importorskip("libxmp")
    names = ["2024-05-01 12:30:00.jpg", 'a "b".jpg', "back\\slash.jpg", "<script>.jpg", "b.xmp/c.jpg"]
    assert {name.replace(".jpg", ".xmp") for name in names} == set(zipped(address, rows_of(*names)))
    upper = zipped(address, rows_of("A.jpg", stars=2))["A.xmp"].replace("<xmp:Rating>2<", "<xmp:Rating>5<")
    changed = zipped(
        address, rows_of("A.jpg", score=0.1), [("A.XMP", upper.replace('xmp:Rating="2"', 'xmp:Rating="5"'))]
    )
    assert sorted(changed) == ["A.XMP", "not-changed.txt"] and "1 pictures keep the stars" in changed["not-changed.txt"]


def test_broken_rows_and_names_that_collide_are_refused(address):
    pytest.importorskip("libxmp")
    for rows, words in (("[]", "rows or paths: List should have at least 1"), ("{", "rows or paths: Invalid JSON")):
        answer = httpx.post(f"{address}/v1/sidecars", files={"rows": (None, rows)})
        assert answer.status_code == 400 and words in answer.json()["error"]["message"]
    for paths, words in ((["a.xmp"], "a name cannot be used"), (["a.xmp", "b.xmp"], "not as many paths as sidecars")):
        files = {
            "rows": (None, rows_of("a.xmp/b.jpg")),
            "paths": (None, json.dumps(paths)),
            "sidecars": ("a.xmp", b"x"),
        }
        answer = httpx.post(f"{address}/v1/sidecars", files=files)
        assert answer.status_code == 400 and words in answer.json()["error"]["message"]


@pytest.mark.slow
def test_the_description_of_the_api_holds_for_made_up_requests(address, tmp_path):
    schemathesis = Path(sys.executable).with_name("schemathesis")
    if not schemathesis.exists():
        pytest.skip("schemathesis is not installed")
    # a schema cannot say that messages hold one picture, nor what is within the text of rows
    command = [schemathesis, "run", f"{address}/openapi.json", "--checks", "all", "--seed", "0", "--max-examples", "5"]
    command += ["--exclude-checks", "positive_data_acceptance", "--phases", "coverage,fuzzing", "--no-color"]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
