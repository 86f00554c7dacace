"""What all resources have in common: planning, creating, reading, changing, deleting, importing, over the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

from tf import iface
from tf.schema import Schema
from tf.types import List, Set, Unknown
from tf.utils import Diagnostics

from justiam_provider.arguments import Argument, Place, Problem, State, identifier
from justiam_provider.service import CHANGED, ApiObject, Failure, Service


class Connected(Protocol):
    """Who has the connection to the service."""

    @property
    def service(self) -> Service:
        """The service.

        Raises:
            Failure: the provider has not been configured yet.
        """
        ...


class Entity(iface.Resource):
    """A resource that is one object of the API, under a path of its own."""

    NAME: ClassVar[str]
    """The resource's type after `justiam_`."""
    THING: ClassVar[str]
    """What people call it."""
    PATH: ClassVar[str]
    DESCRIPTION: ClassVar[str]
    ARGUMENTS: ClassVar[tuple[Argument, ...]]
    UNIQUE: ClassVar[str] = "name"
    """What no two of them share; empty: nothing."""
    IMPORT_ID: ClassVar[str] = "its id"

    def __init__(self, provider: Connected) -> None:
        self._provider = provider
        self.config: State = {}
        """The configuration while it is applied: what is write-only stands here and nowhere else."""
        self.tag = ""
        """The version that Terraform knows; it keeps it beside the state, from a refresh through the plan to the apply.

        Empty where it is not known, as in a state of an earlier version of the provider: then any version is replaced.
        """

    @classmethod
    def get_name(cls) -> str:
        """The type's name after the prefix."""
        return cls.NAME

    @classmethod
    def get_schema(cls) -> Schema:
        """The arguments as Terraform is told of them."""
        return Schema([each.schema() for each in cls.ARGUMENTS], version=0, description=cls.DESCRIPTION)

    # What can be said without the service

    def validate(self, diags: Diagnostics, type_name: str, config: State) -> None:
        """Refuse at plan time what the service would refuse later."""
        del type_name
        for argument in self.ARGUMENTS:
            for path, message in argument.problems(config.get(argument.name)):
                diags.add_error(f"Invalid value for {argument.name}", f"{message}.", path)
        if not diags.has_errors():
            for path, message in self.contradictions(config):
                diags.add_error(f"Invalid value for {path[0]}", f"{message}.", path)

    def contradictions(self, config: State) -> Iterator[Problem]:
        """What does not fit together. Values may be unknown."""
        del config
        yield from ()

    def planned(self, config: State, prior: State | None) -> State:
        """What will be: the configuration, completed by defaults, and written as before where it means the same."""
        before = prior or {}
        plan: State = {}
        for argument in self.ARGUMENTS:
            given = config.get(argument.name)
            if argument.write_only:
                plan[argument.name] = None
            elif given is not None:
                plan[argument.name] = argument.settled(before.get(argument.name), given)
            elif argument.default is not Unknown:
                plan[argument.name] = argument.settled(before.get(argument.name), argument.default)
            elif argument.computed:
                plan[argument.name] = before.get(argument.name) if prior else Unknown
            else:
                plan[argument.name] = None
        self.settle(plan, config, prior)
        return plan

    def settle(self, plan: State, config: State, prior: State | None) -> None:
        """Complete a plan with what follows from other arguments."""

    def replacing(self, plan: State, prior: State) -> list[str]:
        """The changed arguments that make another resource necessary."""
        return [each.name for each in self.ARGUMENTS if each.replace and plan[each.name] != prior.get(each.name)]

    # What the service does

    @property
    def _service(self) -> Service:
        return self._provider.service

    def create(self, ctx: iface.CreateContext, planned: State) -> State | None:
        """Make it. Where only a part succeeds, what there is is kept, and the next run goes on from there."""
        try:
            answer = self._service.post(self.PATH, self.body(planned), once=not self.UNIQUE)
        except Failure as failure:
            self._explain(ctx.diagnostics, "create", failure)
            return None
        return self._completed(ctx.diagnostics, "create", answer, planned)

    def read(self, ctx: iface.ReadContext, current: State) -> State | None:
        """What there is now; None where it was deleted outside."""
        try:
            answer = self._service.find(self._path(current["id"]))
        except Failure as failure:
            self._explain(ctx.diagnostics, "read", failure)
            return current
        if answer is None:
            return None
        self.tag = answer.tag
        return self.state(answer, current)

    def update(self, ctx: iface.UpdateContext, current: State, planned: State) -> State:
        """Set every value, unless somebody changed one since Terraform read them."""
        try:
            answer = self.replaced(current, planned, self.changed_body(planned))
        except Failure as failure:
            self._explain(ctx.diagnostics, "update", failure)
            return current
        return self._completed(ctx.diagnostics, "update", answer, planned)

    def delete(self, ctx: iface.DeleteContext, current: State) -> State | None:
        """Delete it, unless the service refuses or somebody changed it since Terraform read it."""
        try:
            self._service.delete(self._path(current["id"]), tag=self.tag)
        except Failure as failure:
            self._explain(ctx.diagnostics, "delete", failure)
            return current
        return None

    def import_(self, ctx: iface.ImportContext, id: str) -> State | None:  # noqa: A002 - the framework's name
        """Take over what exists."""
        for message in identifier(id):
            ctx.diagnostics.add_error(f"Cannot import the {self.THING}", f"The id {message}.")
            return None
        try:
            answer = self._service.find(self._path(id))
        except Failure as failure:
            self._explain(ctx.diagnostics, "import", failure)
            return None
        if answer is None:
            ctx.diagnostics.add_error(f"Cannot import the {self.THING}", f"There is none with the id {id}.")
            return None
        return self.state(answer, {})

    def replaced(self, current: State, planned: State, body: dict[str, Any]) -> ApiObject:
        """Set the values of `body`, unless the object is in another version than the plan was made from.

        What is as planned already counts as done: a call whose answer was lost is repeated, and the service
        deactivates service accounts with their owner.

        Args:
            current: the state that the plan was made from.
            planned: what the object is to be.
            body: what the service is sent.

        Raises:
            Failure: there is no answer that could be used; with the code `CHANGED`, the object was changed.
        """
        path = self._path(current["id"])
        try:
            answer: ApiObject = self._service.put(path, body, tag=self.tag)
        except Failure as failure:
            if failure.code != CHANGED:
                raise
            now: ApiObject = self._service.get(path)
            wanted = {**current, **{name: planned[name] for name in body if name in planned}}
            # Whether a secret arrived cannot be read.
            secret = any(each.write_only and each.name in body for each in self.ARGUMENTS)
            if secret or self._changes(wanted, now):
                raise Failure(failure.detail, CHANGED, changed=tuple(self._changes(current, now))) from failure
            return now
        return answer

    def _changes(self, state: State, answer: ApiObject) -> list[str]:
        """The arguments that are not what `state` says."""
        found = self.state(answer, state)
        known = [each.name for each in self.ARGUMENTS if state[each.name] is not Unknown]
        return [name for name in known if found[name] != state[name]]

    # Between the two

    def body(self, values: State) -> dict[str, Any]:
        """What the service is sent to make it."""
        sent: dict[str, Any] = {}
        for argument in self.ARGUMENTS:
            if argument.write_only:
                secret = self.config.get(argument.name)
                if secret is not None:
                    sent[argument.name] = secret
            elif not argument.is_read_only and not argument.local:
                value = values[argument.name]
                sent[argument.name] = None if value is None or value is Unknown else argument.to_service(value)
        return sent

    def changed_body(self, values: State) -> dict[str, Any]:
        """What the service is sent to change it."""
        return self.body(values)

    def also(self, answer: Any, planned: State) -> Any:  # noqa: ANN401 - JSON
        """Do what takes further calls.

        Returns:
            The object as it is then.
        """
        del planned
        return answer

    @classmethod
    def state(cls, answer: dict[str, Any], written: State) -> State:
        """The object as the service has it, written as it was `written` before where that means the same."""
        state: State = {}
        for argument in cls.ARGUMENTS:
            before = written.get(argument.name)
            if argument.name in answer and not argument.write_only:
                value = answer[argument.name]
                known = None if value is None else argument.from_service(value)
                state[argument.name] = argument.settled(before, known)
            else:
                state[argument.name] = None if before is Unknown else before
        return state

    def _completed(self, diags: Diagnostics, doing: str, answer: ApiObject, planned: State) -> State:
        try:
            answer = self.also(answer, planned)
        except Failure as failure:
            self._explain(diags, doing, failure)
        self.tag = answer.tag
        return self.state(answer, planned)

    def _path(self, entity_id: str) -> str:
        return f"{self.PATH}/{entity_id}"

    def _explain(self, diags: Diagnostics, doing: str, failure: Failure) -> None:
        """Say why something failed, at the argument that caused it."""
        summary = f"Cannot {doing} the {self.THING}"
        for field, message in failure.errors:
            path, rest = self._place(field, message)
            diags.add_error(summary, f"{rest}{message}.", path)
        if failure.errors:
            return
        if failure.code == CHANGED:
            names = f": {', '.join(failure.changed)}" if failure.changed else ""
            diags.add_error(
                summary,
                f"It was changed since Terraform read it{names}. Nothing was overwritten. Run terraform plan again: "
                f"it shows what the {self.THING} is now. ({failure.code})",
            )
            return
        detail = f"{failure.detail} ({failure.code})" if failure.code else failure.detail
        taken = doing in {"create", "update"} and failure.code == "in_use"
        if doing == "create" and taken:
            detail += f" If it is the same {self.THING}, import it by {self.IMPORT_ID}."
        if doing == "update" and failure.code == "not_found":
            detail += " It was deleted since it was last read: plan again."
        diags.add_error(summary, detail, [self.UNIQUE] if taken and self.UNIQUE else None)

    def _place(self, field: str, message: str) -> tuple[Place | None, str]:
        """The path of the argument that the service names, and what the path leaves unsaid."""
        arguments = {argument.name: argument for argument in self.ARGUMENTS}
        name, _, rest = field.partition(".")
        if name not in arguments:
            # What does not fit together is said of the whole body; the message begins with the field.
            first = message.partition(" ")[0]
            return ([first], "") if first in arguments else (None, f"{field}: " if field else "")
        kind = arguments[name].type
        if rest.isdigit() and isinstance(kind, List) and not isinstance(kind, Set):
            return [name, (int(rest),)], ""
        return [name], f"{rest}: " if rest else ""
