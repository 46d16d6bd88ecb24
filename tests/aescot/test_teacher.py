"""AesCoT with a teacher over real HTTP, and everything that a server may do wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from faults import Faults, completion, critique

from aesr1.aescot.build import build, read_batch, write_batch
from aesr1.aescot.export import export
from aesr1.aescot.prompts import template
from aesr1.aescot.select import refilter
from aesr1.aescot.settings import SCORER, TEACHER, CotConfig, FilterSettings, Teacher
from aesr1.aescot.teacher import critique_of
from aesr1.contract import LEVELS, PROMPT, Judgement, parse_reply, render_reply
from aesr1.endpoint import client, rate_limit
from aesr1.endpoint.settings import EndpointConfig
from aesr1.errors import AesError
from aesr1.json_lines import Appender, read_rows
from aesr1.records import Draft, Rationale

LOOSE = FilterSettings(near=1.0, template=1.0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Waits of hundredths of a second."""
    monkeypatch.setattr(rate_limit, "FIRST_WAIT", 0.02)


@pytest.fixture
def settings(scene_folder, tmp_path):
    """A build of nine rationales with this server as teacher."""

    def make(server: Faults, *, n: int = 9, name: str = "cot", attempts: int = 3, **more: object) -> CotConfig:
        about_endpoint = {
            key: more.pop(key) for key in list(more) if key in EndpointConfig.__dataclass_fields__ and key != "model"
        }
        asked = EndpointConfig(server.url, "test", **{"timeout": 20.0, "in_flight": 8, **about_endpoint})
        teacher = Teacher(asked, **more)
        ratings = scene_folder / "ratings.jsonl"
        return CotConfig(ratings, tmp_path / name, n=n, attempts=attempts, filters=LOOSE, teacher=teacher)

    return make


def rows(config, name="rationales", kind=Rationale):
    return read_rows(config.output / f"{name}.jsonl", kind)


def test_a_willing_teacher_fills_every_level(settings):
    with Faults(lambda *_: None) as server:
        config = settings(server)
        summary = build(config)
    assert summary.kept == dict.fromkeys(LEVELS, 3)
    assert (summary.tokens_in, summary.tokens_out) == (9 * 900, 9 * 100)
    assert len(server.requests) == 9  # not one more than was needed
    assert {row.prompt for row in rows(config)} == {TEACHER}
    assert {row.critic for row in rows(config)} == {"test"}
    assert all(draft.refused is None for draft in rows(config, "raw", Draft))


def test_the_score_is_asked_for_as_a_secret_with_the_picture(settings):
    with Faults(lambda *_: None) as server:
        build(settings(server))
    (message,) = server.requests[0]["messages"]
    picture, text = message["content"]
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert "their mean is 0." in text["text"]
    for word in ("light and shadow", "mood and narrative", "composition", "colour", "exposure", "no digit"):
        assert word in template(TEACHER)


TRANSIENT = [
    "429", "429 0", "429 0.05", "429 soon", "500", "502", "503", "529", "408", "hang", "close", "drip", "json", "html",
    "empty", "null", "ids", "busy as 200",
]  # fmt: skip


@pytest.mark.parametrize("fault", TRANSIENT)
def test_what_passes_is_tried_again_and_loses_nothing(settings, fault):
    with Faults(lambda _number, _body, times: fault if times == 1 else None) as server:
        config = settings(server, timeout=2.0 if fault in ("hang", "drip") else 20.0)
        summary = build(config)
    assert summary.kept == dict.fromkeys(LEVELS, 3)
    assert server.faults[fault] == 9
    assert set(server.answered.values()) == {1}  # nobody is asked twice
    assert len(rows(config, "raw", Draft)) == 9


def test_all_of_them_at_once(settings):
    def plan(number, _body, times):
        return TRANSIENT[number % len(TRANSIENT)] if number % 2 else None

    with Faults(plan) as server:
        config = settings(server, n=18, in_flight=16, timeout=3.0)
        summary = build(config)
    assert summary.kept == dict.fromkeys(LEVELS, 6)
    assert set(server.answered.values()) == {1}
    raw = rows(config, "raw", Draft)
    assert len(raw) == len({draft.image for draft in raw}) == 18


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("filtered", "filtered: the service's content filter stopped"),
        ("policy", "filtered: "),
        ("policy as 200", "filtered: "),
        ("refusal", "refused: I cannot judge"),
        ("400", "rejected: HTTP 400"),
        ("413", "rejected: HTTP 413"),
    ],
)
def test_a_refusal_is_recorded_and_that_picture_is_not_asked_again(settings, fault, reason):
    with Faults(lambda number, _body, _times: fault if number < 3 else None) as server:
        config = settings(server)
        summary = build(config)
    assert summary.kept == dict.fromkeys(LEVELS, 3)
    assert set(server.times.values()) == {1}
    refused = rows(config, "refused", Draft)
    assert len(refused) == 3
    assert all(draft.refused.startswith(reason) and not draft.text for draft in refused)
    assert sum(summary.refused[reason.split(":")[0]].values()) == 3


def test_a_text_that_was_cut_off_is_refused_and_asked_for_again(settings):
    with Faults(lambda _number, _body, times: "cut" if times == 1 else None) as server:
        summary = build(settings(server, n=3))
    assert sum(summary.refused["length"].values()) == 3
    assert summary.kept == dict.fromkeys(LEVELS, 1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", "refuses the key in OPENAI_API_KEY"),
        ("404", "has no model test"),
        ("quota", "the account has no credit left"),
        ("spent as 200", "the account has no credit left"),
    ],
)
def test_what_no_request_can_mend_stops_at_once(settings, fault, message):
    with Faults(lambda *_: fault) as server, pytest.raises(AesError, match=message):
        build(settings(server))
    assert len(server.requests) <= 16


def test_answers_on_their_way_when_the_credit_ends_are_kept(settings):
    def ends(number, *_):
        server.latency = 0.0 if number >= 5 else 0.3
        return "quota" if number >= 5 else None

    with Faults(ends) as server:
        config = settings(server)
        with pytest.raises(AesError, match="no credit left"):
            build(config)
        assert len(rows(config, "raw", Draft)) == sum(server.answered.values()) == 5


def test_a_server_that_is_gone_is_given_up_and_the_same_command_goes_on(settings, monkeypatch):
    monkeypatch.setattr("aesr1.aescot.teacher.MAX_UNANSWERED", 5)
    with Faults(lambda number, *_: "500" if number >= 4 else None) as server:
        config = settings(server, retries=1, in_flight=2)
        with pytest.raises(AesError, match=r"has not answered for 5 pictures.*HTTP 500"):
            build(config)
        done = {draft.image for draft in rows(config, "raw", Draft) if draft.refused is None}
        assert len(done) == 4
    with Faults(lambda *_: None) as server:
        teacher = replace(config.teacher, endpoint=replace(config.teacher.endpoint, url=server.url))
        summary = build(replace(config, teacher=teacher))
    assert summary.kept == dict.fromkeys(LEVELS, 3)
    assert len(server.requests) == 5
    assert done <= {row.image for row in rows(config)}


def test_a_killed_build_goes_on_and_asks_nothing_twice(scene_folder, tmp_path):
    with Faults(lambda *_: None, latency=0.15) as server:
        command = [sys.executable, "-m", "aesr1", "cot", "build", str(scene_folder / "ratings.jsonl"), "--n", "18"]
        flags = ["--teacher", server.url, "--model", "test", "-o", str(tmp_path / "cot"), "--in-flight", "2"]
        loose = ["--near", "1", "--template", "1"]
        secret = {**os.environ, "OPENAI_API_KEY": "sk-very-secret"}
        process = subprocess.Popen([*command, *flags, *loose], env=secret, stderr=subprocess.DEVNULL)
        ledger = tmp_path / "cot" / "raw.jsonl"
        while process.poll() is None and (not ledger.exists() or ledger.read_bytes().count(b"\n") < 6):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = [json.loads(line)["image"] for line in ledger.read_text().splitlines() if line.endswith("}")]
        answered = sum(server.answered.values())
        assert answered - len(before) <= 2  # what was in flight
        done = subprocess.run([*command, *flags, *loose], env=secret, capture_output=True, text=True, check=True)
    assert "| kept | 6 | 6 | 6 | 18 |" in done.stdout
    asked_again = Counter(server.answered.values())
    assert asked_again[1] >= 16 and max(asked_again) <= 2 and asked_again[2] <= 2
    assert server.keys == {"Bearer sk-very-secret"}
    written = b"".join(path.read_bytes() for path in (tmp_path / "cot").rglob("*") if path.is_file())
    assert b"sk-very-secret" not in written + done.stdout.encode() + done.stderr.encode()


def test_asking_stops_before_it_costs_too_much(settings):
    with Faults(lambda *_: None) as server:
        config = settings(server, n=18, in_flight=2, price_in=1000.0, price_out=1000.0, max_cost=10.0)  # 1 an answer
        summary = build(config)
        assert 7 <= sum(summary.kept.values()) <= 10
        assert len(server.requests) <= 10
        assert "--max-cost" in summary.stopped
        assert not (config.output / "rationales.jsonl").exists()  # so that the same command goes on
        more = replace(config, teacher=replace(config.teacher, max_cost=100.0))
        assert build(more).kept == dict.fromkeys(LEVELS, 6)
    assert set(server.answered.values()) == {1}


def test_texts_that_the_others_make_common_are_made_up_for(settings, monkeypatch):
    monkeypatch.setattr("faults.WORDS", ("same",) * 13)  # one text, again and again
    with Faults(lambda *_: None) as server:
        config = replace(settings(server, n=6, attempts=1), filters=FilterSettings(template=1.0))
        summary = build(config)
    assert sum(summary.kept.values()) == 1
    assert len(server.requests) == 24  # every picture was asked about in the search for others
    assert sum(summary.refused["near"].values()) == 23


def test_the_pace_gives_way_to_a_busy_server(settings):
    with Faults(lambda number, *_: "429 0.01" if number < 8 else None, latency=0.01) as server:
        summary = build(settings(server, n=18, in_flight=8))
    assert summary.kept == dict.fromkeys(LEVELS, 6)
    assert server.most_at_once <= 8


def test_requests_a_minute_are_kept_to(settings):
    with Faults(lambda *_: None) as server:
        began = time.monotonic()
        build(settings(server, n=9, rpm=600))
    assert time.monotonic() - began >= 0.8  # eight gaps of a tenth


def test_judges_are_asked_without_the_secret_and_may_refuse(settings):
    with Faults(lambda *_: None) as server:
        config = settings(server, n=3, judges=("leak", "align", "fact"), attempts=1)
        summary = build(config)
    asked = [body["messages"][0]["content"] for body in server.requests]
    judging = [parts for parts in asked if "their mean is" not in parts[-1]["text"]]
    assert len(judging) == 3 * len([parts for parts in asked if "their mean is" in parts[-1]["text"]])
    assert {len(parts) for parts in judging} == {1, 2}  # the judge of facts sees the picture
    drafts = rows(config, "raw", Draft)
    assert all(set(draft.judged) == {"leak", "align", "fact"} for draft in drafts)
    assert all("not a number" in draft.refused for draft in drafts)  # the server says "none" to everything
    assert summary.kept == dict.fromkeys(LEVELS, 0)
    with pytest.raises(AesError, match="not a judge"):
        build(replace(config, output=config.output.with_name("x"), teacher=replace(config.teacher, judges=("taste",))))


def test_other_thresholds_ask_nobody(settings, tmp_path):
    with Faults(lambda *_: None) as server:
        config = settings(server)
        build(config)
        asked = len(server.requests)
        strict = refilter(
            config.output / "raw.jsonl", tmp_path / "strict", n=9, filters=FilterSettings(shortest=500, longest=900)
        )
        same = refilter(config.output / "raw.jsonl", tmp_path / "same", n=9, filters=LOOSE)
    assert len(server.requests) == asked
    assert sum(strict.kept.values()) == 0 and sum(strict.refused["length"].values()) == 9
    assert same.kept == dict.fromkeys(LEVELS, 3)
    assert read_rows(tmp_path / "same" / "rationales.jsonl", Rationale) == rows(config)


def test_a_judge_that_does_not_answer_leaves_the_text_for_another_run(settings, tmp_path):
    def plan(_number, body, _times):
        return "500" if "Answer with the number only" in json.dumps(body) else None

    with Faults(plan) as server:
        config = settings(server, n=3, attempts=1, retries=0, judges=("align",))
        assert "to ask about them" in build(config).stopped
        drafts = rows(config, "raw", Draft)
        assert all(draft.refused.startswith("unreachable: the judge of align") and draft.text for draft in drafts)
        filtered = refilter(config.output / "raw.jsonl", tmp_path / "filtered", n=3, filters=LOOSE)
        assert sum(filtered.kept.values()) == 0  # nobody has judged them


def test_a_scorer_as_teacher_gives_its_reasoning():
    assert critique_of(render_reply(Judgement(0.4, "Soft light."))) == "Soft light."
    assert critique_of("Soft\n\n light.") == "Soft light."


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000/v1", "not the address"),
        ("file:///etc", "not the address"),
        ("http://me:key@host/v1", "a name, a key"),
        ("http://host/v1?key=1", "a name, a key"),
    ],
)
def test_addresses_that_cannot_be_or_hold_a_key(url, message):
    with pytest.raises(AesError, match=message):
        EndpointConfig(url, "m")


def answered(requests, server_says=None):
    """The answers of a batch service to a file of requests, in another order."""
    lines = [json.loads(line) for line in requests.read_text().splitlines()]
    rows = []
    for number, line in enumerate(lines):
        score = float(re.search(r"their mean is (\d\.\d\d)", json.dumps(line["body"]))[1])
        body = completion((server_says or critique)(score, variety=number * 7))
        rows.append(
            {"id": "x", "custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}
        )
    return rows[::-1]


def test_a_batch_by_file_is_the_same_build(settings, tmp_path):
    with Faults(lambda *_: None) as server:
        config = settings(server)
    written = write_batch(config, tmp_path / "requests.jsonl")
    assert written.requests == 9
    lines = [json.loads(line) for line in written.file.read_text().splitlines()]
    assert {line["url"] for line in lines} == {"/v1/chat/completions"}
    assert len({line["custom_id"] for line in lines}) == 9
    assert "scenes" not in " ".join(line["custom_id"] for line in lines)  # no path leaves the machine
    rows_ = answered(written.file)
    lost, broken = rows_[0], rows_[1]
    broken_row = {**broken, "response": {"status_code": 500, "body": {"error": "x"}}}
    stranger = {**rows_[2], "custom_id": "request-7"}
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in (broken_row, stranger, *rows_[2:], rows_[3])))
    read, summary = read_batch(config, answers)
    assert read == (7, 1, 1, 1)
    assert sum(summary.kept.values()) == 7 and "next --batch-file" in summary.stopped
    again = write_batch(config, tmp_path / "more.jsonl")
    assert {json.loads(line)["custom_id"] for line in again.file.read_text().splitlines()} == {
        lost["custom_id"],
        broken["custom_id"],
    }
    answers.write_text("".join(json.dumps(row) + "\n" for row in answered(again.file)))
    read, summary = read_batch(config, answers)
    assert summary.kept == dict.fromkeys(LEVELS, 3) and summary.stopped is None
    assert len(rows(config)) == 9


def test_a_file_that_is_no_batch_is_refused(settings, tmp_path):
    with Faults(lambda *_: None) as server:
        config = settings(server)
    for text in ("nonsense\n", '{"id": 1}\n', "[]\n"):
        (tmp_path / "answers.jsonl").write_text(text)
        with pytest.raises(AesError, match="line 1 is not an answer of a batch"):
            read_batch(config, tmp_path / "answers.jsonl")
    with pytest.raises(AesError, match="there is no file"):
        read_batch(config, tmp_path / "nothing.jsonl")


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"index": 0}]}, completion("")])
def test_an_empty_answer_of_a_batch_is_a_refusal(body):
    assert client.parse_completion(body).failure.startswith("refused: ")


def test_a_template_of_ones_own_is_named_by_its_text(settings, tmp_path):
    (tmp_path / "mine.txt").write_text("Critique it; their mean is {score}.")
    with Faults(lambda *_: None) as server:
        config = settings(server, n=3, prompt=str(tmp_path / "mine.txt"))
        build(config)
        with pytest.raises(AesError, match="no template"):
            build(replace(config, output=tmp_path / "x", teacher=replace(config.teacher, prompt="teacher-99")))
    assert server.requests[0]["messages"][0]["content"][1]["text"].startswith("Critique it; their mean is 0.")
    (version,) = {row.prompt for row in rows(config)}
    assert version.startswith("mine-") and len(version) == len("mine-") + 8


def test_a_scorer_is_asked_without_the_secret(settings):
    with Faults(lambda *_: None) as server:
        build(settings(server, n=3, attempts=1, prompt=SCORER))
    assert server.requests[0]["messages"][0]["content"][1]["text"] == PROMPT


def test_a_recipe_sets_what_flags_do_not(scene_folder, tmp_path):
    with Faults(lambda *_: None) as server:
        recipe = {
            "teacher": server.url,
            "model": "test",
            "n": 3,
            "near": 1.0,
            "template": 1.0,
            "prices": {"test": [2, 8]},
        }
        (tmp_path / "r.yaml").write_text(json.dumps(recipe))
        command = [sys.executable, "-m", "aesr1", "cot", "build", str(scene_folder / "ratings.jsonl"), "--config"]
        flags = [str(tmp_path / "r.yaml"), "--n", "6", "-o", str(tmp_path / "cot")]
        dry = subprocess.run([*command, *flags, "--dry-run"], capture_output=True, text=True, check=True)
        assert "bad: 9 pictures for 2 rationales" in dry.stdout
        assert float(dry.stdout.split("if every first draft is kept")[1].split("\n")[0].split()[-1]) > 0
        assert server.requests == [] and not (tmp_path / "cot").exists()
        done = subprocess.run([*command, *flags], capture_output=True, text=True, check=True)
        assert "| kept | 2 | 2 | 2 | 6 |" in done.stdout
        (tmp_path / "r.yaml").write_text("taste: fine\n")
        bad = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
        assert bad.returncode == 1 and "unknown setting 'taste'" in bad.stderr


def test_the_recipe_that_comes_along_can_be_read(scene_folder, tmp_path):
    recipe = Path(__file__).parents[2] / "recipes" / "aescot.yaml"
    command = [sys.executable, "-m", "aesr1", "cot", "build", str(scene_folder / "ratings.jsonl"), "--dry-run"]
    flags = ["--config", str(recipe), "-o", str(tmp_path / "cot")]
    dry = subprocess.run([*command, *flags], capture_output=True, text=True, check=True)
    assert "1,000 rationales" in dry.stdout


def test_rationales_go_to_other_trainers(settings, tmp_path):
    with Faults(lambda *_: None) as server:
        config = settings(server)
        build(config)
    (file,) = export(config.output, "trl", tmp_path / "trl")
    first = json.loads(file.read_text().splitlines()[0])
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]
    assert parse_reply(first["messages"][1]["content"]).score == pytest.approx(rows(config)[0].score, abs=0.005)
    conversations, info = export(config.output / "rationales.jsonl", "llama-factory", tmp_path / "lf")
    assert json.loads(info.read_text())["aesr1_cold_start"]["file_name"] == conversations.name
    assert len(json.loads(conversations.read_text())) == 9
    with pytest.raises(AesError, match="not a known tool"):
        export(config.output, "keras", tmp_path / "x")


def test_a_limit_holds_from_the_first_answer_on(settings):
    with Faults(lambda *_: None, latency=0.02) as server:
        config = settings(server, n=18, in_flight=16, price_in=1000.0, price_out=1000.0, max_cost=4.0)  # 1 an answer
        first = build(config)
        assert 2 <= len(server.requests) <= 4
        assert first.stopped.startswith(f"Stopped at {len(server.requests):.2f}")
        more = replace(config, teacher=replace(config.teacher, max_cost=9.0))
        build(more)
        assert 7 <= len(server.requests) <= 9


def test_what_every_request_is_rejected_for_ends_the_build_and_seals_nothing(settings, monkeypatch):
    monkeypatch.setattr("aesr1.aescot.teacher.MAX_UNANSWERED", 6)
    with Faults(lambda *_: "400") as server:
        config = settings(server)
        with pytest.raises(AesError, match=r"has not answered for 6 pictures.*HTTP 400"):
            build(config)
    with Faults(lambda *_: None) as server:
        teacher = replace(config.teacher, endpoint=replace(config.teacher.endpoint, url=server.url))
        assert build(replace(config, teacher=teacher)).kept == dict.fromkeys(LEVELS, 3)


def test_pictures_that_were_not_answered_are_asked_about_by_the_next_run(settings):
    with Faults(lambda number, *_: "500" if number % 3 == 0 else None) as server:
        config = settings(server, n=27, retries=0)
        first = build(config)
        assert "run the same command again to ask about them" in first.stopped
        assert not (config.output / "rationales.jsonl").exists()
        server.plan = lambda *_: None
        assert build(config).kept == {"bad": 9, "fair": 9, "good": 6}


def test_a_model_that_wants_another_name_for_its_limit_gets_it(settings):
    with Faults(lambda _number, body, _times: None if "max_completion_tokens" in body else "newer") as server:
        summary = build(settings(server, in_flight=1))
    assert summary.kept == dict.fromkeys(LEVELS, 3)
    assert len(server.requests) == 10


@pytest.mark.parametrize("fault", ["choices", "deep", "parts", "usage"])
def test_answers_of_other_forms_stop_nothing(settings, fault):
    with Faults(lambda number, *_: fault if number == 0 else None) as server:
        summary = build(settings(server, n=3, in_flight=1, attempts=1, retries=1))
    assert sum(summary.kept.values()) >= 2
    unread = fault in ("choices", "deep")  # only what cannot be read is asked about again
    assert max(server.times.values()) == (2 if unread else 1)


def test_two_builds_into_one_folder_do_not_mix(settings, tmp_path):
    (tmp_path / "cot").mkdir()
    with (
        Faults(lambda *_: None) as server,
        Appender(tmp_path / "cot" / "raw.jsonl"),
        pytest.raises(AesError, match="another run is writing"),
    ):
        build(settings(server))
    assert server.requests == []


def test_a_key_that_cannot_be_one_is_said_before_anything_is_asked(settings, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "…")
    with Faults(lambda *_: None) as server, pytest.raises(AesError, match="OPENAI_API_KEY holds no key"):
        build(settings(server))
    assert server.requests == []


def test_an_address_where_nothing_listens_is_told_in_seconds(settings):
    with Faults(lambda *_: None) as server:
        config = settings(server)
    began = time.monotonic()
    with pytest.raises(AesError, match="nothing listens at http:"):
        build(config)
    assert time.monotonic() - began < 10
