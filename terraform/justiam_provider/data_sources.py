"""Data sources: what exists already, found by its id or by the name that people know it by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Final

from tf import iface
from tf.schema import Schema
from tf.types import Unknown
from tf.utils import Diagnostics

from justiam_provider import resources
from justiam_provider.arguments import Argument, State, same_address, same_name
from justiam_provider.entity import Connected, Entity
from justiam_provider.service import Failure


class Lookup(iface.DataSource):
    """One object, by `id` or by its name."""

    ENTITY: ClassVar[type[Entity]]
    KEY: ClassVar[str] = "name"
    WITHIN: ClassVar[str | None] = None
    """What narrows the search, where the name alone may belong to several."""
    FILTERS: ClassVar[tuple[str, ...]] = ()
    """What the service can narrow the list by."""

    def __init__(self, provider: Connected) -> None:
        self._provider = provider

    @staticmethod
    def is_same(one: str, other: str) -> bool:
        """Return whether two keys are one, in any case."""
        return same_name(one, other)

    @classmethod
    def get_name(cls) -> str:
        """As the resource is called."""
        return cls.ENTITY.NAME

    @classmethod
    def arguments(cls) -> tuple[Argument, ...]:
        """Those of the resource, to be read; some to search by."""
        given = {"id": "Its id", cls.KEY: f"Its {cls.KEY}, in any case"}
        if cls.WITHIN:
            given[cls.WITHIN] = f"With `{cls.KEY}`: the application to look in"
        return tuple(
            replace(
                each,
                description=f"{given[each.name]}; read where it is not given."
                if each.name in given
                else each.description,
                required=False,
                optional=each.name in given,
                computed=True,
                default=Unknown,
                replace=False,
            )
            for each in cls.ENTITY.ARGUMENTS
            if not each.write_only and not each.local
        )

    @classmethod
    def get_schema(cls) -> Schema:
        """What may be given, and what is read."""
        return Schema(
            [each.schema() for each in cls.arguments()],
            version=0,
            description=f"Reads the {cls.ENTITY.THING} that has an id, or a {cls.KEY}. One of the two is given.",
        )

    def validate(self, diags: Diagnostics, type_name: str, config: State) -> None:
        """One of the two ways to find it."""
        del type_name
        by_id, by_key = config.get("id"), config.get(self.KEY)
        if by_id is None and by_key is None:
            diags.add_error(f"Give id or {self.KEY}", f"Without either, there is no {self.ENTITY.THING} to look for.")
        elif by_id is not None and by_key is not None:
            diags.add_error(f"Give id or {self.KEY}, not both", "They might mean different things.", [self.KEY])
        for each in self.arguments():
            if each.optional:
                for path, message in each.problems(config.get(each.name)):
                    diags.add_error(f"Invalid value for {each.name}", f"{message}.", path)

    def read(self, ctx: iface.ReadDataContext, config: State) -> State | None:
        """Look for it."""
        thing, key = self.ENTITY.THING, self.KEY
        try:
            if config.get("id") is not None:
                answer = self._provider.service.find(f"{self.ENTITY.PATH}/{config['id']}")
                found = [] if answer is None else [answer]
            else:
                found = list(self._named(config))
        except Failure as failure:
            ctx.diagnostics.add_error(f"Cannot read the {thing}", failure.detail)
            return None
        sought = "id" if config.get("id") is not None else key
        if len(found) != 1:
            what = f"There is no {thing}" if not found else f"There are {len(found)} {thing}s"
            hint = f" Give its id{f', or {self.WITHIN}' if self.WITHIN else ''}." if found else ""
            ctx.diagnostics.add_error(
                f"Cannot read the {thing}", f"{what} with the {sought} {config[sought]}.{hint}", [sought]
            )
            return None
        state = self.ENTITY.state(found[0], config)
        return {each.name: state[each.name] for each in self.arguments()}

    def _named(self, config: State) -> Iterator[dict[str, Any]]:
        parameters = {name: config[name] for name in self.FILTERS if config.get(name) is not None}
        for item in self._provider.service.every(self.ENTITY.PATH, **parameters):
            if self.is_same(item[self.KEY], config[self.KEY]):
                yield item


class Template(Lookup):
    """justiam_access_request_template."""

    ENTITY = resources.Template


class ScheduledTask(Lookup):
    """justiam_scheduled_task."""

    ENTITY = resources.ScheduledTask


class Application(Lookup):
    """justiam_application."""

    ENTITY = resources.Application


class AppMapping(Lookup):
    """justiam_app_mapping."""

    ENTITY = resources.AppMapping
    WITHIN = "app_id"
    FILTERS = ("app_id",)


class Group(Lookup):
    """justiam_group."""

    ENTITY = resources.Group
    FILTERS = ("name",)


class User(Lookup):
    """justiam_user."""

    ENTITY = resources.User
    KEY = "email"
    FILTERS = ("email",)

    @staticmethod
    def is_same(one: str, other: str) -> bool:
        """Return whether two addresses are one, however they are written."""
        return same_address(one, other)


ALL: Final[tuple[type[Lookup], ...]] = (Template, ScheduledTask, Application, AppMapping, Group, User)
