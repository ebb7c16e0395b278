"""Self-contained HTML pages: Jinja2 templates with their CSS, JavaScript and images inlined."""

import base64
import html
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

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #f6f7f9; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 30px; margin: 0 0 4px; }
h2 { font-size: 21px; margin: 40px 0 8px; }
p { max-width: 76ch; margin: 8px 0; }
.sub { color: #59636e; }
.cards { display: flex; flex-wrap: wrap; gap: 14px; margin: 22px 0; }
.card { background: #fff; border: 1px solid #d9dee3; border-radius: 10px; padding: 14px 18px;
  flex: 1 1 190px; }
.card b { display: block; font-size: 30px; line-height: 1.2; }
.card span { color: #59636e; font-size: 14px; }
.card.good b { color: #0b7a4b; } .card.bad b { color: #b3261e; }
table { border-collapse: collapse; background: #fff; border: 1px solid #d9dee3; margin: 10px 0;
  font-size: 15px; }
th, td { padding: 6px 14px; text-align: right; border-top: 1px solid #e6eaee; }
th { background: #eef1f4; border-top: 0; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
th.group { text-align: center; border-left: 1px solid #d9dee3; }
tr.us td { font-weight: 600; background: #fff7d6; }
figure { margin: 10px 0; background: #fff; border: 1px solid #d9dee3; border-radius: 10px;
  padding: 10px; }
figure > svg, figure > img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { color: #59636e; font-size: 14px; margin-top: 6px; }
.strip { display: flex; flex-wrap: wrap; gap: 10px; }
.strip div { width: 240px; font-size: 13px; color: #59636e; }
.strip img { width: 240px; border-radius: 6px; display: block; }
pre { background: #1b1f24; color: #e6eaee; padding: 12px 16px; border-radius: 8px;
  overflow-x: auto; font-size: 14px; }
"""


def page(
    title: str, subtitle: str, parts: Sequence[str], *, style: str = '', script: str = ''
) -> str:
    """
    Return a whole page; the parts are HTML from the functions below.

    :param style: CSS of these parts, beside the style of every page.
    :param script: JavaScript that runs when the page is there; most pages need none.
    """
    body = '\n'.join(parts)
    if script:
        body += f'\n<script>{script}</script>'
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f'<title>{html.escape(title)}</title><style>{STYLE}{style}</style></head><body><main>\n'
        f'<h1>{html.escape(title)}</h1><p class="sub">{html.escape(subtitle)}</p>\n{body}\n'
        f'</main></body></html>\n'
    )


def render(template: str, **values) -> str:
    """
    Return a page; it needs nothing from outside.

    :param template: a file in `report/templates`.
    :param values: what it names; text is escaped, but for `markupsafe.Markup`.
    :raises jinja2.UndefinedError: when the template names a value that is missing.
    """
    return environment.get_template(template).render(values)


def static(name: str) -> Markup:
    """Return the text of a file in `report/static`, for a `style` or `script` element."""
    return Markup((resources.files(PACKAGE) / 'static' / name).read_text(encoding='utf-8'))


def jpeg_url(image: np.ndarray | bytes) -> str:
    """Return a (height, width, 3) uint8 RGB image, or a JPEG file, as a `data:` URL."""
    if isinstance(image, np.ndarray):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, 'JPEG', quality=88)
        image = buffer.getvalue()
    return f'data:image/jpeg;base64,{base64.b64encode(image).decode()}'


def write(path: Path, text: str) -> Path:
    """Write a page in one go: one that was there before is replaced by a whole one."""
    with replaced(path) as file:
        file.write(text)
    return path


def heading(text: str) -> str:
    """Return a heading of a section."""
    return f'<h2>{html.escape(text)}</h2>'


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f'<p>{html.escape(text)}</p>'


def code(text: str) -> str:
    """Return text as typed on a terminal."""
    return f'<pre>{html.escape(text)}</pre>'


def cards(items: Sequence[tuple[str, str, str]]) -> str:
    """Return big numbers: (number, what it is, `good`, `bad` or '')."""
    return (
        '<div class="cards">'
        + ''.join(
            f'<div class="card {mood}"><b>{html.escape(number)}</b>'
            f'<span>{html.escape(what)}</span></div>'
            for number, what, mood in items
        )
        + '</div>'
    )


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    ours: Sequence[int] = (),
    groups: Sequence[tuple[str, int]] = (),
) -> str:
    """
    Return a table; the rows numbered in `ours` stand out.

    :param groups: a second head above the first: text, and how many columns it is for.
    """
    above = ''.join(
        f'<th class="group" colspan="{columns}">{html.escape(text)}</th>'
        for text, columns in groups
    )
    top = ''.join(f'<th>{html.escape(cell)}</th>' for cell in head)
    body = ''.join(
        f'<tr{" class=us" if number in ours else ""}>'
        + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row)
        + '</tr>'
        for number, row in enumerate(rows)
    )
    return f'<table>{f"<tr>{above}</tr>" if above else ""}<tr>{top}</tr>{body}</table>'


def figure(svg: str, caption: str) -> str:
    """Return a drawing (from `plots`) with a caption."""
    return f'<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>'


def details(summary: str, content: str) -> str:
    """Return HTML that is folded away until its summary is clicked."""
    return f'<details><summary>{html.escape(summary)}</summary>{content}</details>'


def images(pictures: Sequence[tuple[np.ndarray, str]]) -> str:
    """Return camera images side by side: (height, width, 3) uint8 RGB, and a caption each."""
    cells = [
        f'<div><img alt="{html.escape(caption)}" src="{jpeg_url(picture)}">'
        f'{html.escape(caption)}</div>'
        for picture, caption in pictures
    ]
    return '<div class="strip">' + ''.join(cells) + '</div>'


environment = Environment(
    loader=PackageLoader(PACKAGE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
environment.globals['static'] = static
environment.filters['jpeg'] = jpeg_url
# `tojson`: what is no number in JSON raises ValueError.
environment.policies['json.dumps_kwargs'] = {'allow_nan': False, 'separators': (',', ':')}
