"""Reading a page back: its elements in order, and the documents that it embeds."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "wbr", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Elements in order with their attributes and the text inside each; refuses what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == [], [self.elements[number][0] for number in self.open]

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, {key: value or "" for key, value in attributes}, []))
        if name not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, name: str) -> None:
        assert self.elements[self.open.pop()][0] == name

    def handle_data(self, text: str) -> None:
        for number in self.open:
            self.elements[number][2].append(text)

    def all(self, name: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
        return [
            (attributes, "".join(words))
            for found, attributes, words in self.elements
            if found == name and all(attributes.get(key) == value for key, value in wanted.items())
        ]

    def document(self, id_: str) -> Any:
        ((_, text),) = self.all("script", id=id_)
        return json.loads(text)
