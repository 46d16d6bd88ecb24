"""The embedded models: their size, that they load, and that the backbone's pretraining never shows a rating."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pretrain_backbone
from aesr1 import Scorer
from aesr1.aescot.phrases import MOOD, VERDICT, write_description
from aesr1.contract import PROMPT, TAGS
from aesr1.errors import AesError
from aesr1.model.load import BACKBONE, PHOTO, TINY, load
from aesr1.tiny.scenes import FACTS, LAYERS, draw_layers, sample_scene
from backbone_scenes import cell_contents
from pretrain_backbone import PretrainConfig, facts_text, pretrain, scene_facts

EMBEDDED = Path(str(files("aesr1.tiny")))


@pytest.mark.parametrize(("name", "folder"), [(TINY, "demo"), (BACKBONE, "backbone")])
def test_embedded_models_load_and_are_small(name, folder):
    vlm = load(name, device="cpu")
    assert sum(parameter.numel() for parameter in vlm.model.parameters()) < 12_000_000
    assert sum(path.stat().st_size for path in (EMBEDDED / folder).iterdir()) < 16 * 2**20
    tokenizer = vlm.processor.tokenizer
    for text in (PROMPT, *TAGS, *"0123456789."):
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1


@pytest.mark.parametrize("name", [TINY, None])
def test_the_embedded_models_score_a_photograph_with_reasoning(name, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    (row,) = Scorer(name, device="cpu").score([tmp_path / "photo.jpg"])
    assert 0 < row.score < 1 and row.readable and row.reasoning and row.model == (name or PHOTO)


def test_pretraining_texts_describe_and_never_judge():
    verdicts = [text for _, texts in VERDICT for text in texts]
    moods = [text.split("{")[0].strip() for texts in MOOD.values() for text in texts]
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = sample_scene(rng)
        lesson = " ".join(write_description(scene_facts(scene), rng))
        assert not any(text in lesson for text in (*verdicts, *TAGS))
        assert not any(text and f"{text} mood" in lesson for text in moods)
        assert len(facts_text(scene)) == 2 * len(FACTS) and facts_text(scene).isdigit()


def test_cell_contents_are_those_of_the_drawn_layers():
    scene = sample_scene(np.random.default_rng(0))
    cells = cell_contents(scene, 5, 8).astype(float)
    assert cells.shape == (40, len(LAYERS) + 10)
    assert np.allclose(cells[:, : len(LAYERS)].sum(1), 1, atol=0.01)
    assert np.allclose(cells[:8, len(LAYERS)], (np.arange(8) + 0.5) / 8, atol=0.001)  # the first row, column by column
    shown, subject = draw_layers(scene) == LAYERS.index("subject"), cells[:, LAYERS.index("subject")]
    assert subject.mean() == pytest.approx(shown.mean(), abs=0.005)
    assert np.allclose(cells[:, -2], subject * scene.clash, atol=0.001)
    assert np.allclose(np.hypot(cells[:, -8], cells[:, -7]), subject, atol=0.002)


@pytest.mark.slow
def test_pretraining_builds_the_backbone_and_a_stopped_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    config = PretrainConfig(pictures=32, held_out=8, batch=8, looking=2, counting=3, describing=1, every=1)
    pretrain(config, tmp_path / "whole")
    assert not list((tmp_path / "whole").glob("*.pt"))
    with pytest.raises(AesError, match="exists"):
        pretrain(config, tmp_path / "whole")
    evaluate, calls = pretrain_backbone.facts_srcc_of_text, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(pretrain_backbone, "facts_srcc_of_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, tmp_path / "stopped")
    pretrain(config, tmp_path / "stopped")
    assert len(calls) == 5  # counting's first and second step, then its second again, its third, and the description
    whole, stopped = (load(str(tmp_path / name), device="cpu").model.state_dict() for name in ("whole", "stopped"))
    assert max(float((whole[name] - stopped[name]).abs().max()) for name in whole) < 1e-3
