"""Scenes, simulated raters and albums."""

import numpy as np
import pytest

from aesr1.errors import AesError
from aesr1.json_lines import read_rows
from aesr1.records import Rating
from aesr1.tiny.album import AlbumConfig, make_album
from aesr1.tiny.raters import cast_votes, infinite_mos
from aesr1.tiny.scenes import FACTS, LAYERS, STYLES, draw_layers, draw_scene, facts, sample_scene


def scenes(count=200, **options):
    return [sample_scene(np.random.default_rng(seed), **options) for seed in range(count)]


def test_the_same_seed_draws_the_same_pixels():
    first, second = (draw_scene(sample_scene(np.random.default_rng(3))) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.size == sample_scene(np.random.default_rng(3)).shape


def test_every_style_can_be_drawn_and_differs():
    pixels = {
        style: np.asarray(draw_scene(sample_scene(np.random.default_rng(5), styles=(style,)))) for style in STYLES
    }
    assert len({picture.tobytes() for picture in pixels.values()}) == len(STYLES)


def test_facts_use_their_whole_range():
    values = np.array([list(facts(scene).values()) for scene in scenes()])
    assert values.shape == (200, len(FACTS))
    assert values.min() >= 0 and values.max() <= 1
    assert (values.std(axis=0) > 0.1).all()


def test_layers_match_the_pixels_of_the_picture():
    from dataclasses import replace

    plain = {"style": "poster", "contrast": 1.0, "exposure": 0.0, "blur": 0.0, "noise": 0.0, "clash": 1.0}
    scene = replace(scenes(1)[0], **plain, saturation=0.9, hue=0.0, clutter=4)
    pixels, layers = np.asarray(draw_scene(scene)), draw_layers(scene)
    assert layers.shape == pixels.shape[:2]
    assert set(np.unique(layers)) == set(range(len(LAYERS)))
    hue = np.asarray(draw_scene(scene).convert("HSV"))[..., 0] / 255
    of_subject = hue[layers == LAYERS.index("subject")]
    assert np.ptp(of_subject) < 0.1 and abs(of_subject.mean() % 0.5 - 0.25) < 0.05  # a quarter circle from the red sky
    calm = draw_layers(replace(scene, clutter=0))
    assert LAYERS.index("stray") not in calm and (calm == layers).mean() > 0.9


def test_every_fault_lowers_the_mean_opinion():
    from dataclasses import replace

    scene = replace(
        scenes(1)[0],
        x=1 / 3,
        tilt=0.0,
        size=0.2,
        exposure=0.0,
        contrast=1.0,
        clash=0.0,
        saturation=0.55,
        blur=0.0,
        noise=0.0,
        clutter=0,
    )
    flaws = {
        "x": 0.5,
        "tilt": 8.0,
        "size": 0.34,
        "exposure": -1.5,
        "contrast": 0.5,
        "clash": 0.9,
        "saturation": 0.05,
        "blur": 3.0,
        "noise": 0.1,
        "clutter": 7,
    }
    assert infinite_mos(scene) > 0.9
    for name, value in flaws.items():
        assert infinite_mos(replace(scene, **{name: value})) < infinite_mos(scene) - 0.02, name


def test_votes_follow_the_mean_opinion_and_reach_all_levels():
    rng = np.random.default_rng(0)
    album = scenes(400)
    votes = np.array([cast_votes(scene, rng) for scene in album])
    assert ((votes.sum(axis=1) >= 20) & (votes.sum(axis=1) <= 200)).all()
    means = votes @ np.arange(1, 11) / votes.sum(axis=1)
    assert np.corrcoef(means, [infinite_mos(scene) for scene in album])[0, 1] > 0.98
    shares = np.histogram((means - 1) / 9, bins=[0, 0.4, 0.7, 1])[0] / len(means)
    assert shares.min() > 0.15


def test_an_album_is_written_as_a_data_set_and_is_the_same_for_a_seed(tmp_path):
    path = make_album(AlbumConfig(tmp_path / "album", n=20, seed=1))
    rows = read_rows(path, Rating)
    assert [row.split for row in rows] == ["train"] * 18 + ["val"] * 2
    marks = np.arange(10) / 9
    for row in rows:
        assert row.score == pytest.approx(np.average(marks, weights=row.votes))
        assert row.raters == sum(row.votes)
    again = read_rows(make_album(AlbumConfig(tmp_path / "again", n=20, seed=1)), Rating)
    assert [row.score for row in again] == [row.score for row in rows]
    assert (tmp_path / "again/images/00003.png").read_bytes() == (tmp_path / "album/images/00003.png").read_bytes()


@pytest.mark.parametrize("settings", [{"n": 0}, {"styles": ("cubist",)}])
def test_bad_album_settings_raise_an_error(tmp_path, settings):
    with pytest.raises(AesError):
        make_album(AlbumConfig(tmp_path / "album", **settings))


def test_an_album_is_never_overwritten(tmp_path):
    make_album(AlbumConfig(tmp_path / "album", n=2))
    with pytest.raises(AesError, match="exists"):
        make_album(AlbumConfig(tmp_path / "album", n=2))
