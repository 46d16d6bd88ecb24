"""The embedded models: how big they are, that they load, and that the backbone's school never shows a rating."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aesr1 import Scorer
from aesr1.aescot.phrases import MOOD, VERDICT, describe
from aesr1.contract import PROMPT, TAGS
from aesr1.errors import AesError
from aesr1.tiny.pretrain import PretrainConfig, facts_text, pretrain, scene_findings
from aesr1.tiny.scenes import FACTS, sample_scene
from aesr1.vlm import BACKBONE, TINY, load

EMBEDDED = Path(str(files("aesr1.tiny")))


@pytest.mark.parametrize(("name", "folder"), [(TINY, "demo"), (BACKBONE, "backbone")])
def test_embedded_models_load_and_are_small(name, folder):
    vlm = load(name, device="cpu")
    assert sum(parameter.numel() for parameter in vlm.model.parameters()) < 12_000_000
    assert sum(path.stat().st_size for path in (EMBEDDED / folder).iterdir()) < 16 * 2**20
    tokenizer = vlm.processor.tokenizer
    for text in (PROMPT, *TAGS, *"0123456789."):
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1


def test_the_toy_scores_a_photograph_with_reasons(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    (row,) = Scorer(device="cpu").score([tmp_path / "photo.jpg"])
    assert 0 < row.score < 1 and row.readable and row.reasoning and row.model == TINY


def test_the_school_describes_and_never_judges():
    verdicts = [text for _, texts in VERDICT for text in texts]
    moods = [text.split("{")[0].strip() for texts in MOOD.values() for text in texts]
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = sample_scene(rng)
        lesson = " ".join(describe(scene_findings(scene), rng))
        assert not any(text in lesson for text in (*verdicts, *TAGS))
        assert not any(text and f"{text} mood" in lesson for text in moods)
        assert len(facts_text(scene)) == 2 * len(FACTS) and facts_text(scene).isdigit()


def test_the_backbone_can_be_built_from_nothing(tmp_path):
    config = PretrainConfig(pictures=48, held_out=16, seeing=2, describing=1, every=10)
    pretrain(config, tmp_path / "backbone")
    assert load(str(tmp_path / "backbone"), device="cpu").processor.tokenizer
    with pytest.raises(AesError, match="exists"):
        pretrain(config, tmp_path / "backbone")
