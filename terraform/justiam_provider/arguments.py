"""What may be said in a configuration: each argument with its type, default and meaning, and what is refused at once.

The service judges everything again. Checked here is what can be known before anything is changed.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import idna
from tf.schema import Attribute
from tf.types import Bool, List, Number, Set, String, TfType, Unknown

State = dict[str, Any]
Place = list[str | tuple[int]]
Problem = tuple[Place, str]
"""Where in an argument, from its name on, and what would be accepted."""
Check = Callable[[Any], Iterator[str]]
"""Says what is wrong with a known value."""
Same = Callable[[Any, Any], bool]

WRITE_ONLY: Final = b"\x58\x01"
"""`write_only = 11: true` of the protocol's Schema.Attribute, which is younger than the framework's messages."""


class SchemaAttribute(Attribute):
    """An attribute of the framework, with the one thing that it has no word for."""

    write_only = False

    def to_pb(self) -> Any:  # noqa: ANN401 - a generated message
        """The message of the protocol."""
        message = super().to_pb()
        if self.write_only:
            message.MergeFromString(WRITE_ONLY)
        return message


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument or attribute."""

    name: str
    type: TfType
    description: str
    required: bool = False
    computed: bool = False
    """Known by the service: set by it alone, or, with `optional`, where the configuration says nothing."""
    optional: bool = True
    default: Any = Unknown
    """What counts where nothing is said; Unknown: there is none."""
    replace: bool = False
    """Cannot be changed: another value is another resource."""
    sensitive: bool = False
    write_only: bool = False
    """Goes to the service and nowhere else: no plan and no state has it."""
    local: bool = False
    """Means something to the provider alone; the service never hears of it."""
    choices: tuple[str, ...] = ()
    check: Check | None = None
    same: Same = field(default=lambda one, other: bool(one == other))
    """Whether the service means the same by two values, however they are written."""
    to_service: Callable[[Any], Any] = field(default=lambda value: value)
    from_service: Callable[[Any], Any] = field(default=lambda value: value)

    @property
    def is_read_only(self) -> bool:
        """Whether it can only be read."""
        return self.computed and not self.optional

    def schema(self) -> SchemaAttribute:
        """The argument as Terraform is told of it."""
        optional = self.optional and not self.required
        attribute = SchemaAttribute(
            self.name,
            self.type,
            self.description,
            required=self.required,
            optional=optional,
            computed=self.computed or self.default is not Unknown,
            sensitive=self.sensitive or self.write_only,
            requires_replace=self.replace,
            default=self.default,
        )
        attribute.write_only = self.write_only
        return attribute

    def problems(self, value: Any) -> Iterator[Problem]:  # noqa: ANN401 - any argument's
        """What is wrong with a value of the configuration, as far as it is known."""
        if value is None or value is Unknown or self.is_read_only:
            return
        if not isinstance(self.type, List):
            here: Place = [self.name]
            yield from ((here, message) for message in self._refusals(value))
            return
        known = [each for each in value if each is not Unknown and each is not None]
        for index, each in enumerate(value):
            if each is None:
                yield self._at(index), "must not be null"
            elif each is not Unknown:
                yield from ((self._at(index), message) for message in self._refusals(each))
        if not isinstance(self.type, Set) and len(set(known)) != len(known):
            yield [self.name], "must not name the same value twice"

    def _at(self, index: int) -> Place:
        # A set has no first element that could be pointed at.
        return [self.name] if isinstance(self.type, Set) else [self.name, (index,)]

    def _refusals(self, value: Any) -> Iterator[str]:  # noqa: ANN401 - any argument's
        if self.choices and value not in self.choices:
            yield f"must be one of {', '.join(self.choices)}; it is {json.dumps(value, ensure_ascii=False)}"
        if self.check is not None:
            yield from self.check(value)

    def settled(self, written: Any, known: Any) -> Any:  # noqa: ANN401 - any argument's
        """`known`, written as it was before where that means the same: no plan then shows a difference."""
        if written is None or written is Unknown or known is None or known is Unknown:
            return known
        if isinstance(known, list) and Unknown in known:
            # The id of what is made in the same apply, for example.
            return known
        return written if self.same(written, known) else known


def text(shortest: int = 0, longest: int = 10_000) -> Check:
    """Text of a length."""

    def check(value: str) -> Iterator[str]:
        if not shortest <= len(value.strip() if shortest else value) <= longest:
            yield f"must have {shortest} to {longest} characters" if shortest else f"has at most {longest} characters"

    return check


def name_text(value: str) -> Iterator[str]:
    """A display name: one line."""
    yield from text(1, 200)(value)
    if re.search(r"[\x00-\x1f\x7f\u2028\u2029]", value.strip()):
        yield "must be a single line without control characters"


def whole(least: int, most: int) -> Check:
    """A whole number within bounds."""

    def check(value: float) -> Iterator[str]:
        if not isinstance(value, int) or not least <= value <= most:
            yield f"must be a whole number from {least} to {most}"

    return check


def matching(pattern: str, meaning: str) -> Check:
    """Text of a form."""

    def check(value: str) -> Iterator[str]:
        if not re.fullmatch(pattern, value):
            yield f"must be {meaning}"

    return check


def identifier(value: str) -> Iterator[str]:
    """A UUID."""
    try:
        UUID(value)
    except ValueError:
        yield "must be a UUID, such as the id of another resource"


def same_id(one: str, other: str) -> bool:
    """Ids are alike in any case."""
    return one.lower() == other.lower()


def same_ids(one: list[str], other: list[str]) -> bool:
    """Ids in the same order."""
    return [each.lower() for each in one] == [each.lower() for each in other]


def same_set(one: list[str], other: list[str]) -> bool:
    """Members in any order."""
    return sorted(each.lower() for each in one) == sorted(each.lower() for each in other)


def same_line(one: str, other: str) -> bool:
    """Return whether the service keeps two names as the same one (`line`)."""
    return line(one) == line(other)


def line(text: str) -> str:
    """Return `text` as the service keeps a name: composed (NFC), with single spaces, without the styles of emoji."""
    return " ".join(unicodedata.normalize("NFC", re.sub("[\ufe0e\ufe0f]", "", text)).split())


def same_address(one: str, other: str) -> bool:
    """Return whether the service takes two mail addresses for one, as `address` writes them, in any case."""
    return address(one).lower() == address(other).lower()


def address(text: str) -> str:
    """Return a mail address as the service keeps it: local part in NFC, domain in Unicode by IDNA 2008 and UTS #46."""
    local, at, domain = unicodedata.normalize("NFC", text.strip()).rpartition("@")
    try:
        labels = idna.uts46_remap(domain, std3_rules=False).split(".")
        domain = ".".join(idna.ulabel(label) if label.startswith("xn--") else label for label in labels)
    except idna.IDNAError:
        # The service refuses it.
        pass
    return f"{local}{at}{domain}"


def same_name(one: str, other: str) -> bool:
    """Return whether two names are one in any case, which they are compared in when something is looked for."""
    first, second = (unicodedata.normalize("NFC", line(each).casefold()) for each in (one, other))
    return first == second


def same_value(one: str, other: str) -> bool:
    """Return whether the service keeps two values as the same one: composed, without white space around them."""
    return same_text(one.strip(), other.strip())


def same_text(one: str, other: str) -> bool:
    """Return whether two texts are the same in composed form (NFC), in which the service keeps them."""
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def same_words(one: str, other: str) -> bool:
    """The service puts one space between the fields of a cron expression."""
    return one.split() == other.split()


FIELD_TYPES: Final = ("text", "textarea", "select", "multi_select", "checkbox")
_FIELD: Final[Mapping[str, tuple[type, Any]]] = {
    "id": (str, None),
    "label": (str, None),
    "type": (str, None),
    "required": (bool, False),
    "placeholder": (str, ""),
    "options": (list, []),
}
"""What a custom field may say, and what counts where it says nothing."""


def parsed(text: str) -> Any:  # noqa: ANN401 - any JSON
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, or an object in it has a name more than once.
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(name for name, _ in pairs)
    if repeated := next((name for name, count in counts.items() if count > 1), None):
        raise ValueError(f"the name {json.dumps(repeated)} stands more than once in one object")
    return dict(pairs)


def custom_fields(value: str) -> Iterator[str]:
    """A JSON array of custom field definitions."""
    try:
        fields = parsed(value)
    except ValueError as error:
        yield f"must be JSON; use jsonencode([…]): {error}"
        return
    if not isinstance(fields, list):
        yield "must be a JSON array of custom fields"
        return
    for index, each in enumerate(fields):
        yield from (f"custom field {index}: {message}" for message in _field_problems(each))


def _field_problems(given: object) -> Iterator[str]:
    if not isinstance(given, dict):
        yield "must be an object"
        return
    for key, value in given.items():
        if key not in _FIELD:
            yield f"{key} is not a known property; there are {', '.join(_FIELD)}"
        elif not isinstance(value, _FIELD[key][0]) and not (key == "id" and value is None):
            yield f"{key} must be a {_FIELD[key][0].__name__}"
    for key in ("label", "type"):
        if not given.get(key):
            yield f"{key} is required"
    kind = given.get("type")
    if isinstance(kind, str) and kind and kind not in FIELD_TYPES:
        yield f"type must be one of {', '.join(FIELD_TYPES)}"
    elif kind in FIELD_TYPES and ("select" in str(kind)) != bool(given.get("options")):
        yield "options belong to select and multi_select, which need at least one"


def same_fields(one: str, other: str) -> bool:
    """Whether two JSON texts define the same custom fields: order of keys, white space and what is left out apart.

    The service gives an id to a field without one. An id that only one side names is no difference.
    """
    try:
        first, second = (json.loads(each) for each in (one, other))
        if len(first) != len(second):
            return False
        for a, b in zip(first, second, strict=True):
            keys = [key for key in _FIELD if key != "id" or (a.get("id") and b.get("id"))]
            if any(_meaning(key, a) != _meaning(key, b) for key in keys):
                return False
    except (ValueError, TypeError, AttributeError):
        return one == other
    return True


def _meaning(key: str, given: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    value = given.get(key, _FIELD[key][1])
    match key:
        case "id":
            return value.lower()
        case "label":
            return line(value)
        case "placeholder":
            return unicodedata.normalize("NFC", value)
        case "options":
            return [line(option) for option in value]
    return value


ID: Final = Argument(
    name="id", type=String(), description="Assigned by the server (UUID).", computed=True, optional=False
)


def display_name(description: str, *, replace: bool = False) -> Argument:
    """The name that people see."""
    return Argument(
        name="name",
        type=String(),
        description=description,
        required=True,
        replace=replace,
        check=name_text,
        same=same_line,
    )


def description(meaning: str) -> Argument:
    """Text for people, empty unless given."""
    return Argument(name="description", type=String(), description=meaning, default="", check=text(), same=same_text)


def reference(name: str, meaning: str, *, required: bool = False, replace: bool = False) -> Argument:
    """The id of something else."""
    return Argument(
        name=name,
        type=String(),
        description=meaning,
        required=required,
        replace=replace,
        check=identifier,
        same=same_id,
    )


def references(name: str, meaning: str, *, ordered: bool = True) -> Argument:
    """Ids of other things; none unless given."""
    return Argument(
        name=name,
        type=List(String()) if ordered else Set(String()),
        description=meaning,
        default=[],
        check=identifier,
        same=same_ids if ordered else same_set,
    )


def flag(name: str, meaning: str, *, default: Any = Unknown) -> Argument:  # noqa: ANN401
    """Yes or no."""
    return Argument(name=name, type=Bool(), description=meaning, default=default)


def number(name: str, meaning: str, bounds: tuple[int, int], *, default: Any = Unknown) -> Argument:  # noqa: ANN401
    """A whole number."""
    return Argument(name=name, type=Number(), description=meaning, default=default, check=whole(*bounds))


def choice(name: str, meaning: str, choices: tuple[str, ...], *, default: Any = Unknown) -> Argument:  # noqa: ANN401
    """One of some words."""
    return Argument(name=name, type=String(), description=meaning, default=default, choices=choices)
