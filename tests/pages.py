"""Reads HTML that textgen has written."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The text in each kind of element, and the titles of the spans; every element is closed in
    turn.
    """

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.titles: list[str] = []

    @classmethod
    def read(cls, path):
        return cls.of(path.read_text(encoding="utf-8"))

    @classmethod
    def of(cls, text):
        page = cls()
        page.feed(text)
        page.close()
        assert page.open == []
        return page

    def handle_starttag(self, tag, attrs):
        self.text.setdefault(tag, "")
        if tag not in ("meta", "wbr"):
            self.open.append(tag)
        if tag == "span" and "pre" in self.open:
            self.titles.append(dict(attrs)["title"] or "")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.text[tag] += data
