"""Files appear whole or not at all."""

from pathlib import Path

import pytest

from aesr1.outputs import replaced_file


def test_a_replaced_file_keeps_its_old_text_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    with replaced_file(path) as part:
        part.write_text("first")
    with pytest.raises(ZeroDivisionError), replaced_file(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
