"""The rows of an interrupted run: which pictures are done. It is kept in a temporary file, not in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from aesr1.errors import AesError
from aesr1.images.picture_list import PictureList, path_key, path_of
from aesr1.json_lines import Appender, row_at, rows_with_offsets
from aesr1.model.predict import Origin, has_no_error, identity_of, size_and_time
from aesr1.records import Prediction

TABLES = """
DROP TABLE IF EXISTS rows;
DROP TABLE IF EXISTS changed;
CREATE TABLE rows (
    number INTEGER PRIMARY KEY, path BLOB UNIQUE, offset INTEGER, score REAL, size INTEGER, mtime REAL, content TEXT
);
CREATE TABLE changed (path BLOB, offset INTEGER, size INTEGER, mtime REAL, content TEXT);
"""
"""rows: where in the file the row of a picture begins. changed: pictures that get another row, or none."""


class ResumedRows:
    """The rows of these pictures in a file that is appended to, those of an interrupted run among them.

    A picture that was changed since, or whose row is not final, loses its row, to be scored again. A picture whose
    content was scored under another path gets a copy of that row. AesError where the file was written by another model
    or in another way than those of `origins`.
    """

    def __init__(
        self,
        file: Appender,
        origins: Sequence[Origin],
        pictures: PictureList,
        *,
        is_final: Callable[[Prediction], bool] = has_no_error,
    ) -> None:
        self._file, self._pictures, self._database = file, pictures, pictures.database
        if self._read(origins, is_final) | self._compare():
            self._rewrite()
            self._read(origins, is_final)

    def _read(self, origins: Sequence[Origin], is_final: Callable[[Prediction], bool]) -> bool:
        """Note where the last final row of each picture begins. True where the file has other rows."""
        self._database.executescript(TABLES)
        lines, others = 0, set()
        for offset, row in rows_with_offsets(self._file.path, Prediction):
            lines += 1
            origin = Origin(row.model, row.revision, row.decoding)
            if origin not in origins:
                others.add(origin)
            elif is_final(row):
                self._note(row, offset, row.content)
        if others:
            raise AesError(
                f"{self._file.path} was written by {', '.join(min(others))}; now it is {', '.join(origins[0])}",
                fix="choose another file",
            )
        (kept,) = self._database.execute("SELECT count(*) FROM rows").fetchone()
        return bool(kept != lines)

    def _note(self, row: Prediction, offset: int, content: str | None) -> None:
        self._database.execute(
            "INSERT INTO rows (path, offset, score, size, mtime, content) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (path) "
            "DO UPDATE SET (offset, score, size, mtime, content) = "
            "(excluded.offset, excluded.score, excluded.size, excluded.mtime, excluded.content)",
            (path_key(row.image), offset, row.score, row.size, row.mtime, content),
        )

    def _compare(self) -> bool:
        """Compare the rows with the pictures' files as they are now. True where a row must change."""
        self._database.execute("CREATE INDEX by_content ON rows (content) WHERE content IS NOT NULL")
        any_content = self._database.execute("SELECT 1 FROM rows WHERE content IS NOT NULL LIMIT 1").fetchone()
        for image in self._pictures:
            key = path_key(image)
            known = self._database.execute("SELECT content, size, mtime FROM rows WHERE path = ?", (key,)).fetchone()
            if known and (known[0] is None or known[1:] == size_and_time(image)):
                continue
            identity = identity_of(image) if any_content else {}
            same = self._database.execute(
                "SELECT offset FROM rows WHERE content = ?", (identity.get("content"),)
            ).fetchone()
            if same:
                values = (key, *same, identity["size"], identity["mtime"], identity["content"])
                self._database.execute("INSERT INTO changed VALUES (?, ?, ?, ?, ?)", values)
            elif known:
                self._database.execute("INSERT INTO changed (path) VALUES (?)", (key,))
        self._database.execute("DROP INDEX by_content")
        return self._database.execute("SELECT 1 FROM changed").fetchone() is not None

    def _rewrite(self) -> None:
        self._database.execute("DELETE FROM rows WHERE path IN (SELECT path FROM changed WHERE offset IS NULL)")
        self._database.execute(
            "INSERT INTO rows (path, offset, size, mtime, content) "
            "SELECT path, offset, size, mtime, content FROM changed WHERE offset IS NOT NULL ON CONFLICT (path) "
            "DO UPDATE SET (offset, size, mtime, content) = "
            "(excluded.offset, excluded.size, excluded.mtime, excluded.content)"
        )
        kept = self._database.execute("SELECT path, offset, size, mtime, content FROM rows ORDER BY number")
        self._file.rewrite(
            replace(self._row(offset), image=path_of(key), size=size, mtime=mtime, content=content)
            for key, offset, size, mtime, content in kept
        )

    def _row(self, offset: int) -> Prediction:
        return row_at(self._file.path, offset, Prediction)

    def count(self) -> int:
        """How many of the pictures have a row."""
        (count,) = self._database.execute("SELECT count(*) FROM pictures JOIN rows USING (path)").fetchone()
        return int(count)

    def missing(self) -> Iterator[str]:
        """The pictures without a row, in order. Rows may be added meanwhile."""
        without = "NOT EXISTS (SELECT 1 FROM rows WHERE rows.path = pictures.path)"
        found = self._database.execute(f"SELECT path FROM pictures WHERE {without} ORDER BY number")
        return (path_of(key) for (key,) in found)

    def add(self, row: Prediction) -> None:
        """Append a row to the file."""
        self._note(row, self._file.append(row), None)

    def __iter__(self) -> Iterator[Prediction]:
        """The rows of the pictures, in order."""
        query = "SELECT offset FROM pictures CROSS JOIN rows USING (path) ORDER BY pictures.number"
        return (self._row(offset) for (offset,) in self._database.execute(query))

    def best_first(self) -> Iterator[Prediction]:
        """The rows by falling score; those without a score are last. Equal ones stay in order."""
        query = "SELECT offset FROM pictures JOIN rows USING (path) ORDER BY score IS NULL, score DESC, pictures.number"
        return (self._row(offset) for (offset,) in self._database.execute(query))
