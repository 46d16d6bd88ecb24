import json
from dataclasses import replace

import numpy as np
import pytest

from aesr1.aescot.build import build
from aesr1.aescot.embedded_critic import embedded
from aesr1.aescot.filters import Critique, align, fact, judged, leak, refusal_of, refusals_among
from aesr1.aescot.phrases import write_critique, write_description
from aesr1.aescot.settings import CotConfig, FilterSettings
from aesr1.contract import LEVELS, Judgement, parse_reply, render_reply
from aesr1.errors import AesError
from aesr1.facts.measured_facts import PictureFacts
from aesr1.json_lines import read_rows
from aesr1.records import Draft, Rating, Rationale

PLAIN = PictureFacts(
    place="left", tilt=0, clutter=0, exposure=0, contrast=1, saturation=1, clash=0, focus=0, grain=0, warmth="neutral"
)

LEAKS = [
    ("The light is a 7 of a kind.", "a numeral"),
    ("Seventy percent of it is sky.", "per cent"),
    ("I would say eight out of ten.", "out of ten"),
    ("This earns a high score.", "score"),
    ("It is rated low for its blur.", "rated"),
    ("As the given rating says, it is weak.", "given rating"),
    ("As told, the picture is weak.", "as told"),
    ("I was told it is lovely.", "told"),
    ("It agrees with the ground truth.", "ground truth"),
    ("The mean opinion is kind.", "mean opinion"),
    ("It deserves top marks and many points.", "points"),
]
ALIGNS = [
    ("Soft light. Altogether a poor picture.", 0.8, "bad for good"),
    ("Soft light. As a whole it is lovely.", 0.2, "good for bad"),
    ("Soft light. Altogether an ordinary picture.", 0.9, "fair for good"),
    ("The light is lovely. It is wonderful.", 0.2, "the whole praises, and so does its end"),
]
FACTS = [
    ("It is badly underexposed.", {"exposure": 2}, "dark for very bright"),
    ("It is badly underexposed.", {"exposure": 0}, None),
    ("The exposure is a little bright.", {"exposure": -1}, "bright for dark"),
    ("The exposure is right.", {"exposure": -2}, "right for very dark"),
    ("The exposure is right.", {"exposure": 1}, None),
    ("The details are crisp.", {"focus": 2}, "crisp for blurred"),
    ("The details are crisp.", {"focus": 1}, None),
    ("The details are blurred.", {"focus": 0}, "blurred for sharp"),
    ("Flat light leaves the shapes without depth.", {"contrast": 2}, "flat for strong"),
    ("Vivid colours agree.", {"saturation": 0}, "vivid for pale"),
    ("Natural colours clash.", {"clash": 0}, "clash for agree"),
    ("The frame is crooked.", {"tilt": 0}, "crooked for level"),
    ("The horizon is level.", {"tilt": 2}, "level for crooked"),
    ("Clutter fills the frame.", {"clutter": 0}, "clutter for calm"),
    ("The picture is buried in grain.", {"grain": 0}, "grain for clean"),
    ("A child plays with a red ball.", {}, None),
]


@pytest.mark.parametrize(("text", "reason"), LEAKS, ids=[reason for _, reason in LEAKS])
def test_leaks_are_refused(text, reason):
    assert leak(text).startswith("leak:")


@pytest.mark.parametrize(
    "text", ["The light is soft and pointed.", "A marked path leads to a hidden bay.", "Told by light alone."]
)
def test_what_only_looks_like_a_leak_may_stay(text):
    assert leak(text) is None


@pytest.mark.parametrize(("text", "score", "reason"), ALIGNS, ids=[reason for *_, reason in ALIGNS])
def test_contradicting_verdicts_are_refused(text, score, reason):
    assert align(text, score).startswith("align:")


@pytest.mark.parametrize(("text", "changes", "reason"), FACTS)
def test_claims_are_held_against_the_findings(text, changes, reason):
    found = fact(text, replace(PLAIN, **changes))
    assert (found is None) == (reason is None), found


def findings(rng):
    steps = {
        name: int(rng.integers(3)) for name in ("tilt", "clutter", "contrast", "saturation", "clash", "focus", "grain")
    }
    return PictureFacts(
        place=str(rng.choice(["left", "middle", "right", "edge"])),
        exposure=int(rng.integers(-2, 3)),
        warmth=str(rng.choice(["warm", "neutral", "cool"])),
        **steps,
    )


def test_an_honest_critique_passes_at_every_score():
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        seen, score = findings(rng), rng.random()
        text = write_critique(seen, score, rng)
        assert refusal_of(Critique(text, score, seen)) is None, text
        assert parse_reply(render_reply(Judgement(score, text))).reasoning == text


def test_the_slips_of_the_embedded_critic_are_what_the_filters_catch():
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(2_000):
        seen, score = findings(rng), rng.random()
        refused.append(refusal_of(Critique(embedded(None, score, seen, rng), score, seen)))
    kinds = [reason.split(":")[0] for reason in refused if reason]
    assert {kind: kinds.count(kind) for kind in ("leak", "align", "fact")}.keys() == set(kinds)
    assert 0.05 < len(kinds) / len(refused) < 0.12


def test_prose_varies_with_chance_and_with_the_picture():
    rng = np.random.default_rng(0)
    assert len({write_critique(PLAIN, 0.5, rng) for _ in range(50)}) > 45
    assert "crisp" not in " ".join(write_description(replace(PLAIN, focus=2), rng))


def test_rationales_are_balanced_readable_and_checked(scene_folder, tmp_path):
    summary = build(CotConfig(scene_folder / "ratings.jsonl", tmp_path / "cot", n=15))
    rows = read_rows(tmp_path / "cot" / "rationales.jsonl", Rationale)
    assert summary.kept == dict.fromkeys(LEVELS, 5)
    assert len(rows) == 15 and len({row.image for row in rows}) == 15
    for row in rows:
        assert parse_reply(render_reply(Judgement(row.score, row.reasoning))) is not None
        assert leak(row.reasoning) is None and align(row.reasoning, row.score) is None
    assert json.loads((tmp_path / "cot" / "run.json").read_text())["config"]["n"] == 15


def test_a_level_that_runs_short_is_said(scene_folder, tmp_path):
    summary = build(CotConfig(scene_folder / "ratings.jsonl", tmp_path / "cot", n=300))
    assert summary.wanted == 100
    assert all(0 < kept < 100 for kept in summary.kept.values())


def test_a_torn_build_goes_on_and_ends_as_if_it_had_not_stopped(scene_folder, tmp_path):
    whole, torn = (CotConfig(scene_folder / "ratings.jsonl", tmp_path / name, n=12) for name in ("whole", "torn"))
    build(whole)
    lines = (whole.output / "raw.jsonl").read_text().splitlines(keepends=True)
    torn.output.mkdir()
    (torn.output / "raw.jsonl").write_text("".join(lines[:4]) + lines[4][:30])
    build(torn)
    first, second = (read_rows(config.output / "rationales.jsonl", Rationale) for config in (whole, torn))
    assert {(row.image, row.reasoning) for row in first} == {(row.image, row.reasoning) for row in second}


def test_an_unreadable_picture_is_left_out(scene_folder, tmp_path):
    from aesr1.json_lines import write_rows

    rows = read_rows(scene_folder / "ratings.jsonl", Rating)[:8]
    (tmp_path / "broken.png").write_bytes(b"x")
    write_rows(tmp_path / "r.jsonl", [*rows, Rating(str(tmp_path / "broken.png"), 0.1, "d", "train")])
    summary = build(CotConfig(tmp_path / "r.jsonl", tmp_path / "cot", n=300))
    (why,) = summary.unreadable
    assert "broken.png is of no picture format" in why
    assert sum(summary.kept.values()) <= 8


def test_bad_requests_are_refused(scene_folder, tmp_path):
    ratings = scene_folder / "ratings.jsonl"
    for config, message in (
        (CotConfig(ratings, tmp_path / "cot", n=2), "n is 2"),
        (CotConfig(ratings, tmp_path / "cot", split="holiday"), "no ratings of split"),
        (CotConfig(tmp_path / "none.jsonl", tmp_path / "cot"), "does not exist"),
    ):
        with pytest.raises(AesError, match=message):
            build(config)
    build(CotConfig(ratings, tmp_path / "cot", n=3))
    with pytest.raises(AesError, match="finished"):
        build(CotConfig(ratings, tmp_path / "cot", n=3))
    assert read_rows(tmp_path / "cot" / "raw.jsonl", Draft)


PROSE = (
    "Soft evening light rakes across the harbour and lays long shadows over the wet stones. The mood is quiet, almost "
    "wistful, and the frame leads the eye from the moored boats to the church tower. The colours are restrained, but "
    "the brightness of the sky leaves little detail in the clouds. Altogether a fine picture."
)
STRICT = FilterSettings()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("Weiches Licht liegt über dem Hafen und die Farben sind ruhig. " * 6 + "Altogether a fine one.", "language"),
        ("Soft light lies over the harbour. Altogether a fine picture.", "length: 10 words"),
        (PROSE + " </think>", "form: holds the tag /think"),
        (" ", "form: no text"),
        (PROSE.replace("quiet", "quiet and still " * 200), "length"),
        ("The boats lie in the harbour of the town and the people walk along it to the church and back to the inn. " * 2
         + "Altogether it is fine.", "dimensions"),
    ],
)  # fmt: skip
def test_texts_are_held_against_the_other_filters(text, reason):
    found = refusal_of(Critique(text, 0.8, PLAIN), STRICT)
    assert (found or "").startswith(reason or "") and (found is None) == (reason is None), found


def test_a_text_like_an_earlier_one_and_a_template_are_refused():
    other = (
        "Hard noon sun flattens the square. The mood is busy, the composition crowded at the left edge, and the colour "
        "of the awnings shouts. Altogether a poor picture."
    )
    near = "near: 100% of its word triples stand in an earlier text"
    assert refusals_among([PROSE, other, PROSE + " Really."], STRICT) == [None, None, near]
    texts = [f"The picture shows a scene. A tree of kind {chr(97 + i)} stands there." for i in range(20)]
    common = refusals_among(texts, replace(STRICT, near=1.0, template=0.4))
    assert common == ["template: 50% of its sentences are common ones"] * 20
    assert refusals_among(texts, replace(STRICT, near=1.0, template=1.0)) == [None] * 20


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"leak": "none", "align": "78", "fact": "None."}, None),
        ({"align": "Score: 85.5"}, None),
        ({"align": "20"}, "align: read blind it sounds like 0.20, people said 0.80"),
        ({"align": "high"}, "align: the judge says 'high', not a number"),
        ({"leak": '"which explains the low opinion"'}, "leak: the judge says"),
        ({"fact": "There is no church tower."}, "fact: the judge says"),
    ],
)
def test_what_judges_said(answers, reason):
    found = judged(answers, 0.8, STRICT)
    assert (found or "").startswith(reason or "") and (found is None) == (reason is None), found


@pytest.mark.parametrize(
    "settings", [{"shortest": 9, "longest": 8}, {"dimensions": 6}, {"near": 1.5}, {"tolerance": -0.1}, {"english": 2}]
)
def test_thresholds_that_make_no_sense(settings):
    with pytest.raises(AesError, match="make no sense"):
        FilterSettings(**settings)


GOOD = [
    "The light rakes low across the ridge. Two stars shine over the valley and the mood is still. Altogether a "
    "compelling landscape.",
    "Three out of five boats are cropped by the frame, yet the colours glow and the story holds. In the end a haunting "
    "and accomplished picture.",
    "A 1950s car waits at the kerb under clear light. The balance of light and colour makes it a memorable picture.",
    "The portrait is crisp at the eyes, with a background that falls softly out of focus. Nothing is overexposed. It "
    "succeeds in all that it tries.",
    "Few faults disturb a superbly seen street scene; the composition leads to the red umbrella and avoids blown-out "
    "highlights. A beautiful photograph.",
]
BAD = [
    "The horizon tilts, the sky is empty and the colours are pale. The weaknesses clearly dominate.",
    "Harsh flash flattens the faces and the frame cuts off their feet. There is little to hold anyone's attention.",
    "A dull, muddy picture whose subject is lost in the shadow. It does not succeed.",
]


@pytest.mark.parametrize(("text", "score"), [*((text, 0.85) for text in GOOD), *((text, 0.2) for text in BAD)])
def test_critiques_as_a_good_teacher_writes_them_may_stay(text, score):
    findings = replace(PLAIN, tilt=1, saturation=0 if score < 0.5 else 1)
    assert leak(text) is None
    assert align(text, score) is None
    assert fact(text, findings) is None
