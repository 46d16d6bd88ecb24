"""Writes stars and reasons into XMP sidecars, beside what other programs wrote, and never over a person's rating."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from aesr1.errors import AesError, install
from aesr1.images.formats import formats
from aesr1.outputs import write_text
from aesr1.records import Prediction

XMP = "http://ns.adobe.com/xap/1.0/"
DUBLIN_CORE = "http://purl.org/dc/elements/1.1/"
OURS, PREFIX = "urn:aesr1:xmp:1.0:", "aesr1"
"""Our own properties. Rating and Reason among them repeat what we wrote for all programs, so that we know it again."""
EXIF_RATING, EXIF_DESCRIPTION = 0x4746, 0x010E
"""Where Windows and cameras keep stars, and where EXIF keeps a caption."""
LANGUAGE = "x-default"
REJECTED = -1
"""Stars by which photo libraries mark a picture that a person rejected."""


class Sidecars(NamedTuple):
    """What came of writing."""

    written: int
    kept: int  # with a person's rating, which stays
    problems: list[str]  # of sidecars that cannot be read or written; they are as they were


def write_sidecars(rows: Iterable[Prediction], *, metadata: Mapping[str, InFile] | None = None) -> Sidecars:
    """Write `xmp:Rating` and `dc:description` of each scored row into its sidecar.

    A rating or description that we did not write stays, in the sidecar or in the picture's own metadata; what we say
    is then in our own properties alone. Stars of −1 are a person's rejection. `metadata`: what stands in the pictures'
    files, by picture, where they are not here. AesError where the XMP library is missing.
    """
    xmp_library().XMPMeta.register_namespace(OURS, PREFIX)
    scored = [row for row in rows if row.score is not None]
    written, problems = 0, []
    for row, path in zip(scored, sidecar_paths([row.image for row in scored]), strict=True):
        try:
            written += _write(row, path, in_file(row.image) if metadata is None else metadata[row.image])
        except AesError as error:
            problems.append(error.problem)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return Sidecars(written, len(scored) - written - len(problems), problems)


def sidecar_paths(images: Sequence[str]) -> list[Path]:
    """The sidecar of each picture: the one that exists, else `name.xmp` as Adobe names it.

    Where pictures share a name but for its ending, as raw and JPEG do, `name.ext.xmp` as darktable names it.
    """
    stems = Counter(Path(image).with_suffix("") for image in dict.fromkeys(images))
    found = []
    for image in images:
        whole, short = Path(f"{image}.xmp"), Path(image).with_suffix(".xmp")
        alone = stems[Path(image).with_suffix("")] == 1
        found.append(whole if whole.exists() or not alone else short)
    return found


def is_rated(image: str) -> bool:
    """Whether a picture has stars, ours or a person's, in a sidecar or in its own metadata."""
    return any(there is not None for there, _ in _ratings(image)) or in_file(image).rating


def rating_of(image: str) -> int | None:
    """The stars that a person gave a picture in a sidecar; None where there are none, or where they are ours."""
    for there, ours in _ratings(image):
        if there is not None and there != ours:
            with suppress(ValueError):
                return round(float(there))
    return None


def _ratings(image: str) -> Iterator[tuple[str | None, str | None]]:
    """The rating in each sidecar of a picture, and what we wrote there; a sidecar that cannot be read has none."""
    for path in _existing_sidecars(image):
        xmp_library()
        with suppress(AesError):
            meta = _read(path)
            yield _text(meta, XMP, "Rating"), _text(meta, OURS, "Rating")


def _existing_sidecars(image: str) -> list[Path]:
    return [path for path in (Path(f"{image}.xmp"), Path(image).with_suffix(".xmp")) if path.exists()]


def _write(row: Prediction, path: Path, in_file: InFile) -> bool:
    """Write one sidecar; False where a person's rating stays."""
    meta = _read(path)
    # also in the other of its two sidecars, which a raw and its JPEG may share
    by_person = in_file.rating or any(there is not None and there != ours for there, ours in _ratings(row.image))
    if not by_person:
        meta.set_property(XMP, "Rating", str(row.stars))
        if row.stars != REJECTED:
            meta.set_property(OURS, "Rating", str(row.stars))
    description = _description(meta)
    if row.reasoning and not in_file.description and description in (None, "", _text(meta, OURS, "Reason")):
        meta.set_localized_text(DUBLIN_CORE, "description", LANGUAGE, LANGUAGE, row.reasoning)
    if row.reasoning:
        meta.set_property(OURS, "Reason", row.reasoning)
    meta.set_property(OURS, "Score", f"{row.score:.4f}")
    meta.set_property(OURS, "Model", f"{row.model} {row.revision}")
    write_text(path, meta.serialize_to_str(omit_packet_wrapper=True))
    return not by_person


def _read(path: Path) -> Any:
    """The sidecar's content, empty where there is none. AesError where it is no XMP."""
    library = xmp_library()
    meta = library.XMPMeta()
    if not path.exists():
        return meta
    try:
        meta.parse_from_str(path.read_text(encoding="utf-8-sig"), xmpmeta_wrap=False)
    except (OSError, ValueError, library.XMPError) as error:
        raise AesError(
            f"the sidecar {path} cannot be read: {error}", fix="mend or move it; it was not changed"
        ) from error
    return meta


def _text(meta: Any, namespace: str, name: str) -> str | None:
    return str(meta.get_property(namespace, name)) if meta.does_property_exist(namespace, name) else None


def _description(meta: Any) -> str | None:
    if not meta.does_property_exist(DUBLIN_CORE, "description"):
        return None
    return str(meta.get_localized_text(DUBLIN_CORE, "description", None, LANGUAGE))


class InFile(NamedTuple):
    """What a person or a camera wrote into the file of a picture; we write nothing there."""

    rating: bool = False
    description: bool = False


def in_file(image: str | BinaryIO) -> InFile:
    """Whether stars and a caption stand in the file's XMP or EXIF. A file that cannot be opened has none."""
    with suppress(Exception), Image.open(image, formats=formats()) as picture:
        xmp = str(picture.info.get("xmp", b""))
        exif = picture.getexif() if picture.format != "PNG" or "exif" in picture.info else {}  # else it would decode
        captions = str(exif.get(EXIF_DESCRIPTION, "")).strip("\0 ")
        stars = re.search(r"x[ma]p:Rating(?:=[\"']|>)\s*(-?\d)", xmp)  # cameras write 0 for none
        rated = bool(exif.get(EXIF_RATING)) or (stars is not None and stars[1] != "0")
        return InFile(rated, bool(captions) or ":description" in xmp)
    return InFile()


def xmp_library() -> Any:
    """The XMP library. AesError says what to install."""
    try:
        import libxmp
    except ImportError as error:
        raise AesError("XMP sidecars need python-xmp-toolkit", fix=install("xmp")) from error
    except Exception as error:  # ExempiLoadError, which the package itself defines
        raise AesError(
            "python-xmp-toolkit does not find the library exempi",
            fix="install it: apt install libexempi8, brew install exempi",
        ) from error
    return libxmp
