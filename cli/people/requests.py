"""`justiam request`: ask, decide, end, follow, talk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import uuid4

import typer

from cli.people import completion
from cli.people.account import AsJson
from cli.people.errors import Misused, Refused
from cli.people.session import at_a_terminal, confirm, say, signed_in
from domain.states import Action, Status

if TYPE_CHECKING:
    from cli.people.client import Service
    from cli.people.documents import Message, Page, Request, TimelineEntry

app = typer.Typer(help="Ask for access, decide, follow what happens.", no_args_is_help=True)

_SUBMIT_EXAMPLES: Final = """\
Examples:
  justiam request submit
  justiam request submit database-read-only --duration 8h --justification "Debug the incident"
  justiam request submit prod-shell --duration 90m --justification INC-42 --answer "Ticket=INC-42" --answer "Host=db1"

At a terminal, what is missing is asked for. Durations: 8h, 90m, 1d, 1h30m, or minutes as in 480. A question of \
several choices takes one --answer for each; one that is ticked takes yes or no."""
_LIST_EXAMPLES: Final = """\
Examples:
  justiam request list                               mine
  justiam request list --pending                     those that wait for my decision
  justiam request list --all --requester alice       everybody's, for administrators
  justiam request list --status approved --json"""
_DECISION_EXAMPLES: Final = """\
Examples:
  justiam request {action} 1f0c2b7e
  justiam request {action} 1f0c2b7e --comment "{comment}" --yes"""
_WATCH_EXAMPLES: Final = """\
Examples:
  justiam request watch 1f0c2b7e
  justiam request watch 1f0c2b7e --until decided && psql internal"""

RequestId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="Id of the request, or the beginning of it.", autocompletion=completion.request_ids
    ),
]
Comment = Annotated[str, typer.Option("--comment", "-c", help="Shown with the decision, and kept in the timeline.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many of the newest to show.")]

_FIELD_OPTIONS: Final = {
    "template_id": "TEMPLATE",
    "requested_duration_mins": "--duration",
    "justification": "--justification",
    "custom_answers": "--answer",
    "comment": "--comment",
    "body": "TEXT",
}
"""What a person gave for each field of a body."""
_DONE: Final = {Action.APPROVE: "Approved", Action.DENY: "Denied"}


@app.command(epilog=_SUBMIT_EXAMPLES)
def submit(
    context: typer.Context,
    template: Annotated[
        str | None,
        typer.Argument(
            help="Name of the template, the beginning of it, or id.", autocompletion=completion.template_names
        ),
    ] = None,
    duration: Annotated[str | None, typer.Option("--duration", "-d", help="How long, from the decision on.")] = None,
    justification: Annotated[str | None, typer.Option("--justification", "-j", help="Why you need it.")] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option("--answer", "-a", metavar="LABEL=VALUE", help="Answer to a question of the template."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask for access."""
    with signed_in(context) as service:
        from cli.people import rendering, submission

        chosen = submission.completed(service, template, duration, justification, answer or [])
        request: Request = _post(service, "/access-requests", chosen.body(), key=str(uuid4()))
        if as_json:
            rendering.print_json(request)
            return
        identity = rendering.short(request["id"])
        name = rendering.template_name(request)
        typer.echo(f"Request {identity} for {name} is {request['status']}.")
        if chosen.template["auto_approve"] and request["status"] == "pending":
            typer.echo("It needs no approver: it is granted in a moment.")
        if asked := [rendering.plain(each["email"], lines=False) for each in request["notified_approvers"]]:
            typer.echo(f"Asked: {', '.join(asked)}")
        typer.echo(f"Follow it: justiam request watch {identity}")


@app.command("list", epilog=_LIST_EXAMPLES)
def list_(
    context: typer.Context,
    *,
    pending: Annotated[bool, typer.Option("--pending", help="Those that wait for my decision.")] = False,
    everybodys: Annotated[bool, typer.Option("--all", help="Everybody's; needs access_requests.manage.")] = False,
    status: Annotated[Status | None, typer.Option(help="Only those in this state.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Only those made from this template.", autocompletion=completion.template_names)
    ] = None,
    requester: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="With --all: part of the requester's email address.")
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first: yours, those that wait for your decision, or everybody's."""
    with signed_in(context) as service:
        from cli.people import finding, rendering, request_view

        if pending and (everybodys or status):
            raise Misused("--pending lists what waits for your decision; it goes with neither --all nor --status.")
        if requester is not None and not everybodys:
            raise Misused("--requester goes with --all, which lists everybody's requests.")
        template_id = finding.template(service, template)["id"] if template is not None else None
        page: Page[Request]
        if everybodys:
            page = service.gather(
                "/access-requests/all", limit, status=status, template_id=template_id, requester=requester
            )
        else:
            path = "/access-requests/pending" if pending else "/access-requests"

            def wanted(each: Request) -> bool:
                return status in {None, each["status"]} and template_id in {None, each["template_id"]}

            page = service.gather(path, limit, wanted if status or template_id else None)
        if as_json:
            rendering.print_json(page)
            return
        if not page["items"]:
            say("Nothing waits for your decision." if pending else "There are no such requests.")
            return
        rendering.console().print(request_view.table(page["items"], waiting=pending, with_requester=everybodys))
        if page["next_cursor"]:
            say(f"There are more: --limit {limit * 2}")


@app.command()
def show(context: typer.Context, request_id: RequestId, *, as_json: AsJson = False) -> None:
    """Show a request with its timeline and discussion."""
    with signed_in(context) as service:
        from cli.people import finding, rendering, request_view

        request = finding.request(service, request_id)
        if as_json:
            rendering.print_json(request)
            return
        path = f"/access-requests/{request['id']}"
        timeline: list[TimelineEntry] = list(service.every(f"{path}/timeline"))[::-1]
        messages: list[Message] = list(service.every(f"{path}/messages"))[::-1]
        console = rendering.console()
        console.print(request_view.facts(request))
        console.print("\nTimeline", style="bold")
        for entry in timeline:
            console.print(rendering.timeline_entry(entry))
        if messages:
            console.print("\nDiscussion", style="bold")
            for message in messages:
                console.print(rendering.message(message))


@app.command(epilog=_DECISION_EXAMPLES.format(action="approve", comment="For this incident."))
def approve(
    context: typer.Context,
    request_id: RequestId,
    *,
    comment: Comment = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Grant the access, from now on for the requested time."""
    _act(context, Action.APPROVE, request_id, comment, yes=yes, as_json=as_json)


@app.command(epilog=_DECISION_EXAMPLES.format(action="deny", comment="Use the replica."))
def deny(
    context: typer.Context,
    request_id: RequestId,
    *,
    comment: Comment = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Refuse the access."""
    _act(context, Action.DENY, request_id, comment, yes=yes, as_json=as_json)


@app.command(epilog=_DECISION_EXAMPLES.format(action="revoke", comment="Done early."))
def revoke(
    context: typer.Context,
    request_id: RequestId,
    *,
    comment: Comment = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cancel a pending request, or end a grant before its time."""
    _act(context, Action.REVOKE, request_id, comment, yes=yes, as_json=as_json)


@app.command(epilog=_WATCH_EXAMPLES)
def watch(
    context: typer.Context,
    request_id: RequestId,
    *,
    until: Annotated[
        Literal["decided", "ended"], typer.Option(help="Stop at the decision, or when access has ended.")
    ] = "ended",
    as_json: Annotated[bool, typer.Option("--json", help="Print each timeline entry as one line of JSON.")] = False,
) -> None:
    """Follow a request: each entry of its timeline, as it comes.

    Exits with 0 when access was granted, and with 5 when the request was denied or cancelled.
    """
    with signed_in(context) as service:
        from cli.people import finding, rendering, watching

        identity = finding.request_id(service, request_id)
        console = rendering.console()

        def tell(entry: TimelineEntry) -> None:
            if as_json:
                rendering.print_json_line(entry)
            else:
                console.print(rendering.timeline_entry(entry))

        live = console if console.is_terminal and not as_json else None
        request = watching.watch(service, identity, tell, decision_suffices=until == "decided", live=live)
        watching.refuse_without_grant(request)


@app.command()
def message(
    context: typer.Context,
    request_id: RequestId,
    text: Annotated[str | None, typer.Argument(help="What to say; asked for at a terminal.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Say something to everybody who may read the request."""
    with signed_in(context) as service:
        from cli.people import finding, rendering

        identity = finding.request_id(service, request_id)
        if text is None:
            if not at_a_terminal():
                raise Misused("What do you want to say? Give it as TEXT, after the request's id.")
            from cli.people import questions

            text = questions.message()
        sent: Message = _post(service, f"/access-requests/{identity}/messages", {"body": text})
        if as_json:
            rendering.print_json(sent)
        else:
            typer.echo("Sent.")


@app.command()
def messages(context: typer.Context, request_id: RequestId, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Show the discussion of a request, newest at the end."""
    with signed_in(context) as service:
        from cli.people import finding, rendering

        identity = finding.request_id(service, request_id)
        page: Page[Message] = service.gather(f"/access-requests/{identity}/messages", limit)
        if as_json:
            rendering.print_json(page)
            return
        if not page["items"]:
            say(f"Nobody has said anything yet. Begin with: justiam request message {rendering.short(identity)}")
            return
        if page["next_cursor"]:
            say(f"There are older ones: --limit {limit * 2}")
        console = rendering.console()
        for each in page["items"][::-1]:
            console.print(rendering.message(each))


def _act(context: typer.Context, action: Action, wanted: str, comment: str, *, yes: bool, as_json: bool) -> None:
    with signed_in(context) as service:
        from cli.people import finding, rendering, request_view

        request = finding.request(service, wanted)
        if not yes and at_a_terminal():
            rendering.console(stderr=True).print(request_view.facts(request, briefly=True))
        confirm(_question(action, request), yes=yes)
        path = f"/access-requests/{request['id']}/{action}"
        decided: Request = _post(service, path, {"comment": comment}, key=str(uuid4()))
        if as_json:
            rendering.print_json(decided)
        else:
            typer.echo(_outcome(action, request, decided))
            if decided["status"] == "approved":
                # The whole id: whoever approved finds it in no list any more.
                typer.echo(f"End it early: justiam request revoke {decided['id']}")


def _question(action: Action, request: Request) -> str:
    from domain import durations

    if action is Action.APPROVE:
        return f"Grant this for {durations.spell(request['requested_duration_mins'])} from now?"
    if action is Action.DENY:
        return "Deny this?"
    return "End this access now?" if request["status"] == "approved" else "Cancel this request?"


def _outcome(action: Action, before: Request, after: Request) -> str:
    from cli.people import rendering

    who, name = rendering.plain(after["requester"]["email"], lines=False), rendering.template_name(after)
    if action is Action.REVOKE:
        return f"{'Ended' if before['status'] == 'approved' else 'Cancelled'}: {name} for {who}."
    until = f", until {rendering.local(after['expires_at'])}" if after["expires_at"] else ""
    return f"{_DONE[action]}: {name} for {who}{until}."


def _post(service: Service, path: str, body: dict[str, Any], key: str | None = None) -> Any:  # noqa: ANN401 - JSON
    """Send a body; what is wrong with a field is told by the option that it came from."""
    try:
        return service.post(path, body, key=key)
    except Refused as error:
        if not error.errors:
            raise
        told = [f"{_FIELD_OPTIONS.get(field.partition('.')[0], field)}: {message}" for field, message in error.errors]
        raise Refused(error.code, "; ".join(told)) from None
