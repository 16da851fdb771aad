"""HTML and SVG as values: what is not markup already is escaped on its way in, so that no name can become code."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Sequence

VOID_TAGS = ("meta", "wbr")
# Unseen or reordering characters are shown by their number; the C0 controls have pictures of their own.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_PICTURES = 0x2400


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def visible(text: str) -> str:
    """Text in which escape sequences, control and bidirectional characters can be seen and do nothing."""
    return _INVISIBLE.sub(lambda found: _picture(ord(found[0])), text)


def _picture(code: int) -> str:
    return chr(_PICTURES + code) if code < 0x20 else f"\\u{code:04x}"


def escaped(text: str) -> Html:
    """Text as markup; markup stays what it is."""
    return text if isinstance(text, Html) else Html(html.escape(visible(text)))


def join(*parts: str | None) -> Html:
    """Parts one after the other; None is nothing."""
    return Html("".join(escaped(part) for part in parts if part is not None))


def tag(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Html:
    """One element. `class_` is `class`, `aria_label` is `aria-label`; None and False leave an attribute out."""
    said = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    inner = join(*children)
    return Html(f"<{name}{said}>" if name in VOID_TAGS else f"<{name}{said}>{inner}</{name}>")


def _attribute(key: str, value: str | float | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{round(value, 1):g}"' if isinstance(value, float) else f' {name}="{escaped(str(value))}"'


def table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    words: Collection[int] = (),
    row_classes: Sequence[str | None] = (),
    groups: Sequence[tuple[str, int]] = (),
) -> Html:
    """A data table that can be scrolled sideways; the first cell of each row names it.

    Args:
        caption: What it shows, spoken first.
        columns: Heads of the columns.
        rows: Cells, as many as columns.
        words: Numbers of the columns that hold words and not numbers.
        row_classes: CSS class of each row.
        groups: A row above the heads: (title, columns it spans).
    """
    classes = [("words" if number in words else None) for number in range(len(columns))]
    over = tag("tr", *(tag("th", title, colspan=span, scope="colgroup") for title, span in groups)) if groups else None
    heads = (tag("th", column, scope="col", class_=class_) for column, class_ in zip(columns, classes, strict=True))
    body = []
    for number, cells in enumerate(rows):
        first, *others = cells
        line = [tag("td", cell, class_=class_) for cell, class_ in zip(others, classes[1:], strict=True)]
        row_class = row_classes[number] if row_classes else None
        body.append(tag("tr", tag("th", first, scope="row"), *line, class_=row_class))
    grid = tag("table", tag("caption", caption), tag("thead", over, tag("tr", *heads)), tag("tbody", *body))
    return tag("div", grid, class_="scroll", role="region", aria_label=caption, tabindex=0)


def copyable(text: str, name: str, id_: str) -> Html:
    """A block of text with a button that copies it; the button shows up only where scripts run."""
    button = tag("button", "Copy", type="button", data_copy=id_, aria_label=f"Copy {name}", hidden=True)
    block = tag("pre", tag("code", text, id=id_), tabindex=0, role="region", aria_label=name)
    return tag("div", button, block, class_="copyable")
