"""`justiam template`: what can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.people import completion
from cli.people.account import AsJson
from cli.people.session import say, signed_in

if TYPE_CHECKING:
    from cli.people.client import Service
    from cli.people.documents import Me, Template

app = typer.Typer(help="See what you can ask for.", no_args_is_help=True)

_EXAMPLES: Final = """\
Examples:
  justiam template show "Database read-only access"
  justiam template show database-read

A name can be written in any case, with hyphens for what lies between its words, and shortened as far as it stays the \
only one that begins so; an id works too."""

TemplateName = Annotated[
    str,
    typer.Argument(
        metavar="TEMPLATE", help="Name, the beginning of it, or id.", autocompletion=completion.template_names
    ),
]


@app.command("list")
def list_(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List all templates, by name."""
    with signed_in(context) as service:
        from cli.people import finding, rendering

        if as_json:
            rendering.print_json({"items": list(service.every("/access-request-templates")), "next_cursor": None})
            return
        templates, me = finding.templates(service), service.me()
        if not templates:
            say("There are no templates yet. Administrators make them.")
            return
        rows = [
            (
                rendering.plain(each["name"], lines=False),
                rendering.plain(each["app_name"], lines=False),
                _durations(each),
                "at once" if each["auto_approve"] else "by approvers",
                "yes" if _may_ask(me, each) else "no",
                rendering.excerpt(each["description"]),
            )
            for each in templates
        ]
        headings = ("Template", "Application", "For", "Decided", "You may ask", "Description")
        rendering.console().print(rendering.table(headings, rows))


@app.command(epilog=_EXAMPLES)
def show(context: typer.Context, template: TemplateName, *, as_json: AsJson = False) -> None:
    """Show a template: what it grants, for how long, who decides, what it asks."""
    with signed_in(context) as service:
        from cli.people import finding, rendering
        from domain import durations

        found = finding.template(service, template)
        if as_json:
            rendering.print_json(found)
            return
        me = service.me()
        groups = _group_names(service, found)
        escalation = ""
        if found["escalation_after_mins"] is not None:
            to = groups.get(found["escalation_group_id"] or "", "administrators")
            escalation = f"after {durations.spell(found['escalation_after_mins'])}, to {to}"
        if found["auto_approve"]:
            decided = "at once, without approvers"
        else:
            decided = ", ".join(groups.get(each, each) for each in found["approver_group_ids"]) or "administrators"
        allowed = ", ".join(groups.get(each, each) for each in found["allowed_group_ids"]) or "everybody"
        console = rendering.console()
        console.print(
            rendering.facts(
                [
                    ("Template", rendering.plain(found["name"], lines=False)),
                    ("Id", found["id"]),
                    ("Application", rendering.plain(found["app_name"], lines=False)),
                    ("Description", rendering.plain(found["description"])),
                    ("For", _durations(found)),
                    ("Decided by", decided),
                    ("Escalates", escalation),
                    ("May be asked by", allowed + ("" if _may_ask(me, found) else " (you are not among them)")),
                    ("Justification", "required" if found["require_justification"] else "optional"),
                ]
            )
        )
        if found["custom_fields"]:
            rows = [
                (
                    rendering.plain(field["label"], lines=False),
                    field["type"],
                    "yes" if field["required"] else "no",
                    " | ".join(rendering.plain(each, lines=False) for each in field["options"])
                    or rendering.plain(field["placeholder"], lines=False),
                )
                for field in found["custom_fields"]
            ]
            console.print()
            console.print(rendering.table(("Question", "Type", "Required", "Options or hint"), rows))


def _durations(template: Template) -> str:
    from domain import durations

    return ", ".join(durations.spell(each) for each in sorted(template["allowed_durations"])) or "any duration"


def _may_ask(me: Me, template: Template) -> bool:
    allowed = set(template["allowed_group_ids"])
    # What a grant brings never counts for asking.
    return not allowed or any(group["id"] in allowed for group in me["groups"] if not group["system"])


def _group_names(service: Service, template: Template) -> dict[str, str]:
    from cli.people.errors import Refused
    from cli.people.rendering import plain

    names = {}
    wanted = {*template["approver_group_ids"], *template["allowed_group_ids"], template["escalation_group_id"]}
    for group_id in sorted(each for each in wanted if each):
        try:
            names[group_id] = plain(service.get(f"/groups/{group_id}")["name"], lines=False)
        except Refused:
            # Deleted meanwhile, or not for the caller to see: its id has to do.
            continue
    return names
