import base64
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from urllib.parse import quote

import httpx2 as httpx
import openai
import pytest
from PIL import Image
from serving import running

import aesr1
from aesr1.contract import PROMPT, VERSION, parse_reply
from aesr1.errors import AesError
from aesr1.images.load import open_image
from aesr1.model.generate import generate
from aesr1.model.load import load
from aesr1.model.model_thread import model_thread
from aesr1.server import batching as module
from aesr1.server.batching import Batcher
from aesr1.server.chat_request import ReplyRequest
from aesr1.server.serve import serve
from aesr1.server.settings import ServeConfig


@pytest.fixture(scope="module")
def address():
    with running(ServeConfig("tiny", device="cpu", max_new_tokens=120, max_body=400_000, max_batch=8)) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def tiny():
    return load("tiny", device="cpu")


def data_url(raw, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def picture_part(url):
    return {"type": "image_url", "image_url": {"url": url}}


def question(url, text=PROMPT):
    return [{"role": "user", "content": [picture_part(url), {"type": "text", "text": text}]}]


def drawn(size, kind="PNG"):
    file = BytesIO()
    Image.new("RGB", size, "teal").save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def scenes(scene_folder):
    return [data_url((scene_folder / f"{number:02d}.png").read_bytes()) for number in range(16)]


@pytest.fixture
def batches(monkeypatch):
    """The sizes of the batches that are generated from here on."""
    sizes, real = [], module.generate_batch

    def spy(vlm, requests, stopping, has_left):
        sizes.append(len(requests))
        return real(vlm, requests, stopping, has_left)

    monkeypatch.setattr(module, "generate_batch", spy)
    return sizes


def test_health_and_models_name_what_is_served(address, client, tiny):
    health = httpx.get(f"{address}/health").json()
    expected = {"status": "ok", "model": "tiny", "revision": tiny.revision}
    assert health == {**expected, "contract": VERSION, "aesr1": aesr1.__version__}
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_the_scoring_prompt_gives_what_scoring_gives(client, tiny, scene_folder, scenes):
    picture = open_image(scene_folder / "00.png", max_pixels=tiny.max_pixels)
    ((expected,),) = generate(tiny, [picture], max_new_tokens=120)
    text_first = [{"role": "user", "content": list(reversed(question(scenes[0])[0]["content"]))}]
    for messages in (question(scenes[0]), text_first):
        reply = client.chat.completions.create(model="tiny", messages=messages, temperature=0)
        assert reply.choices[0].message.content == expected
        assert reply.choices[0].finish_reason == "stop" and reply.object == "chat.completion"
    assert parse_reply(expected) is not None


def test_usage_counts_every_token_of_picture_and_replies(client, tiny, scenes):
    reply = client.chat.completions.create(
        model="tiny", messages=question(scenes[0]), temperature=1, n=2, max_tokens=5, seed=3
    )
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    text = tiny.processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    raw = base64.b64decode(scenes[0].partition(",")[2])
    tokens = tiny.processor(text=[text], images=[[Image.open(BytesIO(raw)).convert("RGB")]])["input_ids"][0]
    assert reply.usage.prompt_tokens == len(tokens) > 20
    assert (reply.usage.completion_tokens, reply.usage.total_tokens) == (10, len(tokens) + 10)
    assert [choice.finish_reason for choice in reply.choices] == ["length", "length"]
    assert [choice.index for choice in reply.choices] == [0, 1]


def test_sixteen_at_once_are_batched_and_each_gets_its_own_answer(client, scenes, batches):
    def ask(url, tokens):
        reply = client.chat.completions.create(model="tiny", messages=question(url), temperature=0, max_tokens=tokens)
        return reply.choices[0].message.content

    lengths = [10 + 3 * (number % 4) for number in range(16)]
    alone = list(map(ask, scenes[:3], lengths))
    batches.clear()
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, scenes, lengths))
    assert together[:3] == alone and len(set(together)) > 1
    assert sum(batches) == 16 and len(batches) <= 6 and max(batches) <= 8


def test_a_seed_fixes_a_draw_whatever_company_it_has(client, scenes):
    def ask(seed, n=1):
        reply = client.chat.completions.create(
            model="tiny", messages=question(scenes[0]), temperature=1.5, n=n, max_tokens=30, seed=seed
        )
        return [choice.message.content for choice in reply.choices]

    two = ask(7, n=2)
    assert ask(7) == two[:1] and two[0] != two[1]
    with ThreadPoolExecutor(4) as pool:
        crowd = list(pool.map(ask, [7, 8, 9, 7]))
    assert crowd[0] == crowd[3] == two[:1] and len({texts[0] for texts in crowd}) == 3


def test_a_stop_ends_a_reply_before_it(client, scenes):
    whole = client.chat.completions.create(model="tiny", messages=question(scenes[0]), temperature=0)
    text = whole.choices[0].message.content
    stop = text[20:24]
    reply = client.chat.completions.create(model="tiny", messages=question(scenes[0]), temperature=0, stop=stop)
    assert reply.choices[0].message.content == text[: text.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.completion_tokens < whole.usage.completion_tokens


JSON = {"content-type": "application/json"}


def post(address, fields):
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return httpx.post(f"{address}/v1/chat/completions", content=body, headers=JSON, timeout=60)


FINE = data_url(drawn((32, 32)))
BROKEN_JPEG = drawn((64, 64), "JPEG")[:300]


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": "gpt-5"}, 404, "has no model 'gpt-5'; ask for model tiny"),
        ({"model": None}, 404, "has no model None; ask for model tiny"),
        ({"messages": None}, 400, "no messages"),
        ({"messages": []}, 400, "no messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "no role, or one that is not known"),
        ({"messages": [{"role": "user"}]}, 400, "no content"),
        ({"messages": [{"role": "user", "content": "beautiful?"}]}, 400, "hold 0 pictures; send exactly one"),
        ({"messages": question(FINE) * 2}, 400, "hold 2 pictures; send exactly one"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 400, "neither text nor image_url"),
        ({"messages": [{"role": "user", "content": [picture_part(7)]}]}, 400, "neither text nor image_url"),
        (
            {"messages": question("https://example.com/a.jpg")},
            400,
            "'https://example.com/a.jpg', and this server fetches",
        ),
        ({"messages": question("file:///etc/passwd")}, 400, "fetches nothing; send the picture itself"),
        ({"messages": question("data:image/png,abc")}, 400, "not in base64"),
        ({"messages": question("data:image/png;base64,a*b")}, 400, "base64 is broken"),
        ({"messages": question("data:image/png;base64,abcde")}, 400, "base64 is broken"),
        ({"messages": question(data_url(b"no picture"))}, 400, "is of no picture format"),
        ({"messages": question(data_url(b""))}, 400, "has 0 bytes"),
        ({"messages": question(data_url(b"%!PS-Adobe-3.0 EPSF-3.0"))}, 400, "is PostScript, not a picture"),
        ({"messages": question(data_url(BROKEN_JPEG))}, 400, "cut off"),
        ({"messages": question(data_url(drawn((300, 300))[:150]))}, 400, "cut off"),
        ({"messages": question(data_url(drawn((4, 4))))}, 400, "4 × 4 pixels, too small"),
        ({"messages": question(data_url(drawn((2000, 8))))}, 400, "too small or too thin"),
        ({"messages": question(FINE, "x" * 16_001)}, 400, "16,001 characters; send at most 16,000"),
        ({"messages": question(FINE, "<|image_pad|>")}, 400, "holds <|image_pad|>, a special token of the model"),
        ({"messages": question(FINE, "\U0001f600" * 4_000)}, 400, "tokens; send at most 4,096"),
        ({"messages": [{"role": "user", "content": ""}] * 65}, 400, "65 messages; send at most 64"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 65}]}, 400, "65 parts; send at"),
        ({"messages": question(FINE, "\ud800")}, 400, "not Unicode"),
        ({"stream": True}, 400, "'stream' is not supported; leave it out"),
        ({"top_p": 0.5}, 400, "'top_p' is not supported"),
        ({"tools": [{"type": "function"}]}, 400, "'tools' is not supported"),
        ({"temperature": -1}, 400, "temperature is '-1'; give a number from 0 to 2"),
        ({"temperature": float("nan")}, 400, "temperature is 'nan'"),
        ({"temperature": True}, 400, "temperature is 'True'"),
        ({"max_tokens": 0}, 400, "max_tokens is '0'; give a whole number from 1"),
        ({"max_completion_tokens": 1.5}, 400, "max_completion_tokens is '1.5'"),
        ({"n": 9}, 400, "n is '9'; give a whole number from 1 to 8"),
        ({"seed": "x"}, 400, "seed is 'x'"),
        ({"stop": [""]}, 400, "stop is neither"),
        ({"stop": ["a"] * 5}, 400, "up to 4"),
        ({"user": "x" * 500_000}, 413, "larger than 400,000 bytes; send a smaller copy"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_and_what_to_do(address, changes, status, words):
    answer = post(address, {"model": "tiny", "messages": question(FINE), **changes})
    error = answer.json()["error"]
    assert answer.status_code == status and words in error["message"]
    assert "; " in error["message"]
    assert (error["type"], error["param"]) == ("invalid_request_error", None) and error["code"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"[" * 200_000, b'"text"'])
def test_a_body_that_is_no_request_is_refused(address, body):
    answer = post(address, body)
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and message.startswith("the request is not") and "JSON" in message


def test_what_asks_for_nothing_is_accepted(client):
    neutral = {"top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "stream": False, "user": "me"}
    reply = client.chat.completions.create(
        model="tiny", messages=question(FINE, "Beautiful?"), max_completion_tokens=10**6, temperature=0, **neutral
    )
    assert 0 < reply.usage.completion_tokens <= 120


def test_an_unknown_address_is_told_in_the_same_form(address):
    answer = httpx.get(f"{address}/v1/chat/completions")
    assert answer.status_code == 405 and "Method Not Allowed; GET /openapi.json" in answer.json()["error"]["message"]
    assert httpx.get(f"{address}/nothing").json()["error"]["code"] == "unknown_url"


def test_a_client_that_goes_away_breaks_nothing_and_is_not_generated_for(address, client, batches):
    slow, body = threading.Event(), json.dumps({"model": "tiny", "messages": question(FINE), "max_tokens": 3}).encode()
    spied = module.generate_batch

    def held(*arguments):
        slow.wait(20)
        return spied(*arguments)

    module.generate_batch = held  # the fixture puts the real one back
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, address, body)
        time.sleep(0.3)
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/chat/completions", content=body, headers=JSON, timeout=0.2)
        time.sleep(0.2)
        slow.set()
        assert first.result().status_code == 200
    assert client.chat.completions.create(model="tiny", messages=question(FINE), max_tokens=3).choices
    assert batches == [1, 1]


@pytest.fixture
def picture():
    return Image.new("RGB", (32, 32), "teal")


@contextmanager
def batcher(tiny, **settings):
    batcher = Batcher(tiny, ServeConfig(**settings), model_thread())
    try:
        yield batcher
    finally:
        batcher.close()


def test_one_bad_request_does_not_take_its_batch_along(tiny, picture, batches):
    message = [{"role": "user", "content": [{"type": "image"}]}]
    good = ReplyRequest(tiny.processor.apply_chat_template(message, tokenize=False), picture, max_tokens=2)
    with batcher(tiny, gather=0.3) as busy:
        futures = busy.submit([good, ReplyRequest("no picture's mark", picture), good, good])
        assert [future.exception(30) is None for future in futures] == [True, False, True, True]
    assert batches == [4, 2, 1, 1, 2]


def test_more_than_may_wait_are_turned_away_and_closing_refuses_the_rest(tiny, picture, monkeypatch):
    begun = threading.Event()

    def held(vlm, requests, stopping, has_left):
        begun.set()
        while not stopping():
            time.sleep(0.01)
        raise AesError("stopped", fix="none")

    monkeypatch.setattr(module, "generate_batch", held)
    request = ReplyRequest("", picture)
    with batcher(tiny, max_waiting=3, max_batch=1) as busy:
        futures = busy.submit([request])
        begun.wait(10)
        futures += busy.submit([request] * 3)
        with pytest.raises(AesError, match="3 replies are waiting already") as refusal:
            busy.submit([request])
        assert refusal.value.status == 503
    problems = [future.exception(1).problem for future in futures]
    assert problems == ["stopped"] + ["the server is stopping"] * 3


@pytest.mark.parametrize("settings", [{"max_batch": 0}, {"port": 70_000}, {"max_new_tokens": 0}, {"gather": -1}])
def test_settings_that_serve_nothing_are_refused(settings):
    with pytest.raises(AesError):
        ServeConfig(**settings)


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_a_missing_server_library_names_its_extra(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(AesError, match=missing) as error:
        serve(ServeConfig("tiny", port=0))
    assert error.value.fix == "in your clone of aesr1: pip install '.[serve]'"


def test_a_port_in_use_is_an_error_before_the_model_loads(monkeypatch):
    monkeypatch.setattr("aesr1.model.load.load", lambda *_, **__: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AesError, match=f"port {port} cannot be served"):
            serve(ServeConfig("tiny", port=port))


SLOW_SERVER = """
import sys, time
from aesr1.server import batching as module
assert "torch" not in sys.modules

def slow(vlm, requests, stopping, has_left, real=module.generate_batch):
    while requests[0].max_tokens == 7 and not stopping():
        time.sleep(0.02)
    return real(vlm, requests, stopping, has_left)

module.generate_batch = slow
from aesr1.server.settings import ServeConfig
from aesr1.server.serve import serve
serve(ServeConfig("tiny", port=0, device="cpu", grace=0))
"""


def test_ctrl_c_ends_the_server_cleanly_and_tells_who_still_waits():
    process = subprocess.Popen([sys.executable, "-c", SLOW_SERVER], stderr=subprocess.PIPE, text=True)
    try:
        said = process.stderr.readline()
        address = re.search(r"aesr1 serves tiny at (http://\S+)/v1, and a page at \1; Ctrl-C ends it", said)[1]
        request = {"model": "tiny", "messages": question(FINE), "max_tokens": 5}
        assert post(address, request).status_code == 200
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(post, address, {**request, "max_tokens": 7})
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            _, printed = process.communicate(timeout=30)
            assert answer.result().status_code == 503
            assert "the server is stopping" in answer.result().json()["error"]["message"]
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in printed


@pytest.mark.parametrize(
    "form",
    [
        lambda url: url.rstrip("="),
        lambda url: url.replace("+", "-").replace("/", "_").replace("image_png", "image/png"),
        lambda url: url.partition(",")[0] + "," + quote(url.partition(",")[2], safe=""),
        lambda url: url[:60] + "\n" + url[60:],
    ],
    ids=["unpadded", "for addresses", "percent-encoded", "with line breaks"],
)
def test_data_urls_in_every_form_hold_the_same_picture(client, scenes, form):
    def text(url):
        reply = client.chat.completions.create(model="tiny", messages=question(url), max_tokens=8, temperature=0)
        return reply.choices[0].message.content

    assert text(form(scenes[0])) == text(scenes[0])


def test_an_address_as_text_and_the_role_developer_are_understood(address):
    messages = [
        {"role": "developer", "content": "Judge."},
        {"role": "user", "content": [{"type": "image_url", "image_url": FINE}, {"type": "text", "text": "x"}]},
    ]
    assert post(address, {"model": "tiny", "messages": messages, "max_tokens": 2}).status_code == 200


@pytest.fixture(scope="module")
def guarded():
    limits = {"header_seconds": 0.4, "body_seconds": 0.6, "max_connections": 4}
    with running(ServeConfig("tiny", device="cpu", api_key="sesame", max_new_tokens=8, **limits)) as address:
        yield address


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "sesame"}, 401),
        ({"authorization": "Bearer sesame"}, 200),
        ({"authorization": "Bearer sesame", "host": "evil.example"}, 400),
        ({"authorization": "Bearer sesame", "host": "localhost:80"}, 200),
        ({"authorization": "Bearer sesame", "content-type": "text/plain"}, 415),
        ({"authorization": "Bearer sesame", "content-type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_who_may_ask_and_in_which_form(guarded, headers, status):
    body = json.dumps({"model": "tiny", "messages": question(FINE), "max_tokens": 2})
    answer = httpx.post(f"{guarded}/v1/chat/completions", content=body, headers={**JSON, **headers}, timeout=30)
    assert answer.status_code == status


def test_a_key_is_needed_for_the_models_and_none_for_health(guarded):
    assert httpx.get(f"{guarded}/v1/models").status_code == 401
    assert httpx.get(f"{guarded}/v1/models", headers={"authorization": "Bearer sesame"}).status_code == 200
    assert httpx.get(f"{guarded}/health").status_code == 200


def connection(address):
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10)


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-"])
def test_a_head_that_does_not_come_ends_the_connection(guarded, sent):
    began = time.monotonic()
    with connection(guarded) as slow:
        slow.sendall(sent)
        assert slow.recv(100) == b""
    assert time.monotonic() - began < 3


def test_a_body_that_does_not_come_is_refused(guarded):
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\n"
    with connection(guarded) as slow:
        slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{".encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_connections_above_the_limit_are_closed(guarded):
    time.sleep(1)  # those of other tests end
    kept = [connection(guarded) for _ in range(4)]
    with connection(guarded) as more:
        assert more.recv(10) == b""
    for each in kept:
        each.close()


def test_a_batch_holds_no_more_tokens_than_its_limit(tiny, picture, batches):
    message = [{"role": "user", "content": [{"type": "image"}]}]
    prompt = tiny.processor.apply_chat_template(message, tokenize=False)
    short, long = (ReplyRequest(prompt, picture, max_tokens=n, prompt_tokens=98) for n in (2, 102))
    with batcher(tiny, gather=0.3, max_batch_tokens=400) as busy:
        for future in busy.submit([short, short, short, short, long, long, long]):
            future.result(60)
    assert batches == [4, 2, 1]


def test_a_reply_whose_client_left_ends_and_the_others_go_on(tiny, picture):
    message = [{"role": "user", "content": [{"type": "image"}]}]
    prompt = tiny.processor.apply_chat_template(message, tokenize=False)
    requests = [ReplyRequest(prompt, picture, max_tokens=60, seed=seed) for seed in (1, 2)]
    steps = []

    def has_left(place):
        steps.append(place)
        return place == 0 and len(steps) > 10

    first, second = module.generate_batch(tiny, requests, lambda: False, has_left)
    (alone,) = module.generate_batch(tiny, requests[1:], lambda: False)
    assert first.finish == "left" and first.reply_tokens < 10
    assert second == alone


STUCK_SERVER = """
import time
from aesr1.server import batching as module
module.generate_batch = lambda *_: time.sleep(600)
from aesr1.server.settings import ServeConfig
from aesr1.server.serve import serve
serve(ServeConfig("tiny", port=0, device="cpu", grace=1))
"""


@pytest.mark.slow
def test_a_server_ends_soon_after_its_grace_even_if_the_model_is_at_work():
    process = subprocess.Popen([sys.executable, "-c", STUCK_SERVER], stderr=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())[0]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(post, address, {"model": "tiny", "messages": question(FINE)})
            time.sleep(1)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        assert time.monotonic() - began < 6
    finally:
        process.kill()
        process.stderr.close()
