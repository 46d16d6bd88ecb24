"""A picture as a data URL, as chat requests carry it."""

from __future__ import annotations

import base64
import io

from PIL import Image

JPEG_QUALITY = 90


def data_url(picture: Image.Image) -> str:
    """A picture as JPEG in a data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
