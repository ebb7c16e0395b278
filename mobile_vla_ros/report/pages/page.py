"""Self-contained HTML pages: Jinja2 templates with their CSS, JavaScript and images inlined."""

import base64
import hashlib
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from mobile_vla_ros.files import replaced

PACKAGE = 'mobile_vla_ros.report'  # holds `static` and `templates`


def render(template: str, **values) -> str:
    """
    Return a page, which is self-contained.

    :param template: a file in `report/templates`.
    :param values: its variables; text is escaped, except `markupsafe.Markup`. What is no text, in
        the name of a file, becomes a question mark.
    :raises jinja2.UndefinedError: if a variable is missing.
    """
    text = environment.get_template(template).render(values)
    return text.encode(errors='replace').decode()


def static(name: str) -> Markup:
    """Return the text of a file in `report/static`, for a `style` or `script` element."""
    return Markup((resources.files(PACKAGE) / 'static' / name).read_text(encoding='utf-8'))


def code(scripts: Sequence[str]) -> Markup:
    """Return the text of several files in `report/static` as one script."""
    return Markup('\n').join(map(static, scripts))


def allowed(scripts: Sequence[str]) -> Markup:
    """Return the source in a Content-Security-Policy that lets these scripts run, and no other."""
    if not scripts:
        return Markup("'none'")
    digest = hashlib.sha256(code(scripts).encode()).digest()
    return Markup(f"'sha256-{base64.b64encode(digest).decode()}'")


def jpeg_url(image: np.ndarray | bytes) -> str:
    """Return a (height, width, 3) uint8 RGB image, or a JPEG file, as a `data:` URL."""
    if isinstance(image, np.ndarray):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, 'JPEG', quality=88)
        image = buffer.getvalue()
    return f'data:image/jpeg;base64,{base64.b64encode(image).decode()}'


def write(path: Path, text: str) -> Path:
    """Write a page, replacing an existing one atomically."""
    with replaced(path) as file:
        file.write(text)
    return path


environment = Environment(
    loader=PackageLoader(PACKAGE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
environment.globals.update(static=static, code=code, allowed=allowed, scripts=(), connects=False)
environment.filters['jpeg'] = jpeg_url
# `tojson`: NaN and inf raise ValueError.
environment.policies['json.dumps_kwargs'] = {'allow_nan': False, 'separators': (',', ':')}
