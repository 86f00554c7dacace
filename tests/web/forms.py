"""Read and send forms as a browser without scripts does (HTML, form submission), without the cost of a browser."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

_ONE_LINE = frozenset({"text", "search", "url", "email", "password", "tel", ""})
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass
class Control:
    """Hold an input, a text area, a list or a button."""

    tag: str
    type: str
    name: str
    value: str = ""
    checked: bool = False
    disabled: bool = False
    text: str = ""
    """The label of a button."""
    options: list[tuple[str, bool]] = field(default_factory=list)
    """The values of a list, and whether each is selected."""

    @property
    def sent(self) -> str | None:
        """Return the value that is sent; None where the control sends nothing."""
        if self.disabled or not self.name or self.tag == "button":
            return None
        if self.tag == "select":
            chosen = [value for value, selected in self.options if selected]
            return chosen[-1] if chosen else next((value for value, _ in self.options), None)
        if self.type in {"checkbox", "radio"}:
            return self.value if self.checked else None
        if self.tag == "input" and self.type in _ONE_LINE:
            one_line = self.value.replace("\n", "")
            value = one_line.strip() if self.type in {"url", "email"} else one_line
            assert self.type != "email" or value.isascii(), f"a browser refuses to send {value}"
            return value
        if self.type == "number" and not _NUMBER.fullmatch(self.value):
            return ""
        return self.value


@dataclass
class Form:
    """Hold a form of a page."""

    action: str
    method: str
    controls: list[Control] = field(default_factory=list)

    def button(self, text: str) -> Control:
        """Return the button whose label contains a text."""
        return next(each for each in self.controls if each.tag == "button" and text in each.text and not each.disabled)

    def first_button(self) -> Control:
        """Return the button that the Enter key presses."""
        return next(each for each in self.controls if each.tag == "button")

    def sends(self, button: Control) -> dict[str, list[str]]:
        """Return the fields that a browser sends when `button` is pressed."""
        fields: dict[str, list[str]] = {}
        for each in self.controls:
            value = each.value if each is button else each.sent
            if value is not None and each.name:
                fields.setdefault(each.name, []).append(re.sub(r"\r\n|\r|\n", "\r\n", value))
        return fields

    def tick(self, name: str, value: str, *, on: bool = True) -> None:
        """Check a check box, or uncheck it."""
        next(each for each in self.controls if each.name == name and each.value == value).checked = on

    def fill(self, name: str, value: str) -> None:
        """Type into a field."""
        next(each for each in self.controls if each.name == name).value = value

    def values(self, name: str) -> list[str]:
        """Return the values that a field sends."""
        return [each.sent for each in self.controls if each.name == name and each.sent is not None]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self._form: Form | None = None
        self._text: Control | None = None
        self._select: Control | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = Form(given.get("action", ""), given.get("method", "get"))
            self.forms.append(self._form)
        elif tag in {"input", "textarea", "select", "button"} and self._form is not None:
            control = Control(
                tag,
                given.get("type", "submit" if tag == "button" else ""),
                given.get("name", ""),
                given.get("value", ""),
                checked="checked" in given,
                disabled="disabled" in given,
            )
            self._form.controls.append(control)
            if tag == "select":
                self._select = control
            elif tag != "input":
                self._text = control
        elif tag == "option" and self._select is not None:
            # Every option has to have a value: a browser collapses the blanks in the text of an option.
            self._select.options.append((given["value"], "selected" in given))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = None
        elif tag in {"textarea", "button"} and self._text is not None:
            if tag == "textarea":
                # The line break that follows the tag is no part of the value.
                self._text.value = self._text.text.removeprefix("\n")
            self._text = None

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.text += data


def forms(page: str) -> list[Form]:
    """Return the forms of a page, as a browser reads them."""
    parser = _Parser()
    # HTML, preprocessing the input stream: a browser sees no CR that is not written as a reference.
    parser.feed(page.replace("\r\n", "\n").replace("\r", "\n"))
    parser.close()
    return parser.forms


def form_to(page: str, action: str) -> Form:
    """Return the form of a page that is sent to `action`."""
    return next(each for each in forms(page) if each.action == action)
