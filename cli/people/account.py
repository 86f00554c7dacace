"""`justiam login`, `logout`, `whoami` and `access`: who I am to the service, and what I hold."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.people import completion, credentials
from cli.people.credentials import Credentials
from cli.people.errors import Misused, NotSignedIn
from cli.people.session import PERSON_OPTION, at_a_terminal, explained, say, signed_in
from settings import ENDPOINT_VARIABLE, TOKEN_VARIABLE

if TYPE_CHECKING:
    from cli.people.client import Service
    from cli.people.documents import Me, Request
    from cli.people.oidc import Way

PANEL: Final = "For people"
"""Where `justiam --help` lists these commands."""
_ACTING: Final = ("whoami", "access", "template", "request")
"""The commands that act for somebody."""
_LOGIN_EXAMPLES: Final = f"""\
Examples:
  justiam login --server https://access.example.com
  justiam login --no-browser --port 8976
  pass show justiam | justiam login --server access.example.com --token-stdin

Without signing in, for scripts: set {ENDPOINT_VARIABLE} and {TOKEN_VARIABLE}."""

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON, times in UTC.")]


def add_to(app: typer.Typer) -> None:
    """Make the commands of this module, and the option `--as`, part of the `justiam` command."""
    app.callback()(_justiam)
    app.command(rich_help_panel=PANEL, epilog=_LOGIN_EXAMPLES)(login)
    app.command(rich_help_panel=PANEL)(logout)
    app.command(rich_help_panel=PANEL)(whoami)
    app.command(rich_help_panel=PANEL)(access)


def _justiam(
    context: typer.Context,
    person: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="PERSON",
            help="Act as one of the demo people, where `justiam dev` runs: justiam --as alice request list",
            autocompletion=completion.dev_people,
        ),
    ] = None,
) -> None:
    assert PERSON_OPTION in context.params  # noqa: S101 - session.person finds it by this name
    if person is not None and context.invoked_subcommand not in _ACTING:
        raise typer.BadParameter(f"is for the commands {', '.join(_ACTING)}", param_hint="--as")


def login(
    server: Annotated[
        str | None,
        typer.Option(help=f"URL of the service; unless given, that of {ENDPOINT_VARIABLE}, or where you were last."),
    ] = None,
    *,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read an API token from standard input; at a terminal, ask for it.")
    ] = False,
    issuer: Annotated[
        str | None, typer.Option(help="OpenID Connect issuer to sign in at; unless given, the service names it.")
    ] = None,
    client_id: Annotated[
        str | None, typer.Option(help="As which client of the issuer; unless given, the service names it.")
    ] = None,
    audience: Annotated[
        str | None, typer.Option(help="What tokens for the service name as audience, where it is not the client.")
    ] = None,
    scope: Annotated[
        str | None, typer.Option(help="What to ask the issuer for, where `openid email` does not do.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of this machine that the browser comes back to; 0: any.")
    ] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address to sign in at.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign in with your browser or with an API token, and stay signed in for the commands that follow.

    Where the service names an OpenID Connect issuer, you sign in there: the address is printed, and opened in your
    browser, which has to run where it reaches this machine's 127.0.0.1. Else an API token is asked for without showing
    it, or taken from --token-stdin or the variable JUSTIAM_TOKEN; whoever runs the service makes one with
    `justiam token create`. The token is checked, then stored in ~/.config/justiam for you alone.
    """
    with explained():
        endpoint = credentials.checked_endpoint(_server(server))
        from cli.people.rendering import plain, print_json

        asked = issuer or client_id or audience or scope
        if token_stdin and asked:
            raise Misused("An API token comes from no issuer: leave out --token-stdin, or what is about the issuer.")
        given = token_stdin or (os.environ.get(TOKEN_VARIABLE) and not asked)
        if not given and (way := _way(endpoint, issuer, client_id, audience, scope)):
            chosen = _by_browser(way, endpoint, port, no_browser=no_browser)
        else:
            chosen = Credentials(endpoint, credentials.checked_token(_token(endpoint, stdin=token_stdin)), "your input")
        from cli.people.client import Service

        with Service(chosen, notice=say) as service:
            me = _known(service)
        with credentials.alone():
            path = credentials.store(chosen)
        if as_json:
            print_json(me)
        else:
            typer.echo(f"Signed in to {endpoint} as {plain(me['name'], lines=False)} <{me['email']}>. Kept in {path}")
        _warn_of_environment()


def logout(*, as_json: AsJson = False) -> None:
    """Forget what `justiam login` stored, and end it at the issuer where that can be done.

    An API token works elsewhere until it is revoked or ends.
    """
    with explained():
        kept = credentials.forget()
        if kept and kept.sign_in:
            from cli.people import oidc

            if why := oidc.end(kept):
                from cli.people.rendering import plain

                say(f"Note: here you are signed out, but the issuer did not end it. {plain(why, lines=False)}")
        if as_json:
            from cli.people.rendering import print_json

            print_json({"endpoint": kept.endpoint if kept else None})
        else:
            typer.echo(f"Signed out of {kept.endpoint}." if kept else "You were not signed in.")
        _warn_of_environment()


def whoami(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show who you are to the service, your groups and permissions."""
    with signed_in(context) as service:
        from cli.people import rendering

        me = service.me()
        if as_json:
            rendering.print_json(me)
            return
        rows = [
            ("Name", rendering.plain(me["name"], lines=False)),
            ("Email", rendering.plain(me["email"], lines=False)),
            ("Id", me["id"]),
            ("Service account of", me["owner_id"] or ""),
            ("Permissions", ", ".join(me["permissions"]) or "none"),
            (
                "Groups",
                ", ".join(rendering.plain(each["name"], lines=False) for each in me["groups"] if not each["system"])
                or "none",
            ),
            ("Service", service.credentials.endpoint),
            ("Token from", service.credentials.source),
            ("Signed in", _how(service.credentials)),
        ]
        rendering.console().print(rendering.facts(rows))


def access(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show what you hold now, and for how long.

    Grants of access requests with the claims that they bring. For their applications, the claims that you hold without
    an end are shown too.
    """
    with signed_in(context) as service:
        from cli.people import rendering

        me = service.me()
        grants = _grants(service, me)
        app_ids = list(dict.fromkeys(grant["app_id"] for grant in grants if grant["app_id"]))
        values = {app_id: service.get(f"/users/{me['id']}/mapping-values", app_id=app_id) for app_id in app_ids}
        if as_json:
            rendering.print_json({"items": grants, "mapping_values": values})
            return
        if not grants:
            say("You hold no temporary access. Ask for some with `justiam request submit`.")
            return
        headings = ("Application", "Access", "Left", "Ends", "Template", "Request")
        rendering.console().print(rendering.table(headings, _rows(grants, values)))


def _grants(service: Service, me: Me) -> list[Request]:
    """The requests whose temporary groups somebody is in now, those that end first first."""
    from cli.people.rendering import parsed
    from domain.actors import TEMPORARY_GROUP_PREFIX

    # By the groups rather than by all requests ever made: one call for each grant that lasts.
    ids = [group["name"].removeprefix(TEMPORARY_GROUP_PREFIX) for group in me["groups"] if group["system"]]
    requests: list[Request] = [service.get(f"/access-requests/{request_id}") for request_id in ids]
    lasting = [each for each in requests if each["status"] == "approved" and each["expires_at"]]
    return sorted(lasting, key=lambda each: parsed(each["expires_at"] or ""))


def _rows(grants: list[Request], values: dict[str, dict[str, list[str]]]) -> list[tuple[str, str, str, str, str, str]]:
    from cli.people import rendering
    from domain import durations

    rows = []
    lasting = {
        app_id: {(claim, value) for claim in claims for value in claims[claim]} for app_id, claims in values.items()
    }
    for grant in grants:
        app_id, ends = grant["app_id"] or "", grant["expires_at"] or ""
        effective = lasting.get(app_id, set())
        brought = [mapping for mapping in grant["mappings"] if (mapping["claim"], mapping["value"]) in effective]
        rows.append(
            (
                rendering.plain(grant["app_name"], lines=False),
                _claims((mapping["claim"], mapping["value"]) for mapping in brought) or "no claims",
                durations.spell_seconds(rendering.seconds_until(ends)),
                rendering.local(ends),
                rendering.template_name(grant),
                rendering.short(grant["id"]),
            )
        )
    for app_id, held in lasting.items():
        name = next(grant["app_name"] for grant in grants if grant["app_id"] == app_id)
        brought_by_grants = {
            (mapping["claim"], mapping["value"])
            for grant in grants
            if grant["app_id"] == app_id
            for mapping in grant["mappings"]
        }
        if permanent := sorted(held - brought_by_grants):
            rows.append((rendering.plain(name, lines=False), _claims(permanent), "", "without end", "", ""))
    return rows


def _claims(claims: Iterable[tuple[str, str]]) -> str:
    from cli.people.rendering import plain

    return ", ".join(plain(f"{claim}: {value}", lines=False) for claim, value in claims)


def _server(given: str | None) -> str:
    server = given or os.environ.get(ENDPOINT_VARIABLE) or credentials.stored_endpoint()
    if server:
        return server
    if not at_a_terminal():
        raise Misused("Which service? Name it with --server https://access.example.com.")
    answer: str = typer.prompt("URL of the service", err=True)
    return answer


def _way(
    endpoint: str, issuer: str | None, client_id: str | None, audience: str | None, scope: str | None
) -> Way | None:
    """How to sign in with a browser; None where nobody says how.

    Raises:
        Misused: not all that is needed is said.
    """
    from cli.people import oidc

    if issuer and client_id:
        return oidc.Way(issuer, client_id, audience or client_id, scope)
    offered = oidc.offered(endpoint, issuer)
    if offered is None:
        if issuer or client_id or audience or scope:
            raise Misused(f"{endpoint} does not say how to sign in there: give both --issuer and --client-id.")
        return None
    return replace(
        offered,
        client_id=client_id or offered.client_id,
        audience=audience or offered.audience,
        scope=scope or offered.scope,
    )


def _by_browser(way: Way, endpoint: str, port: int, *, no_browser: bool) -> Credentials:
    from cli.people import oidc
    from cli.people.rendering import plain

    def show(address: str) -> None:
        issuer = plain(way.issuer, lines=False)
        say(f"Sign in at {issuer}. The address to open in a browser:\n\n{plain(address, lines=False)}\n")
        if not no_browser:
            oidc.open_browser(address)

    return oidc.sign_in(way, endpoint, port=port, show=show)


def _known(service: Service) -> Me:
    """Who calls.

    Raises:
        CommandError: the service does not say. Where its issuer signed them in, the message tells how to be let in.
    """
    try:
        return service.me()
    except NotSignedIn as error:
        who = service.credentials.sign_in
        if who is None:
            raise
        raise NotSignedIn(
            f"{who.issuer} signed you in as {who.subject}, but {service.credentials.endpoint} does not take its token: "
            f"{error} If you have no account with this sign-in, whoever runs the service links it with: "
            f"justiam identity link YOUR-EMAIL {who.issuer} {who.subject}"
        ) from None


def _how(used: Credentials) -> str:
    """How somebody is signed in, and until when."""
    from cli.people.rendering import local, plain

    if used.sign_in is None:
        return "with a token that was given"
    where = f"at {plain(used.sign_in.issuer, lines=False)}"
    if used.sign_in.expires_at is None:
        return where
    until = local(datetime.fromtimestamp(used.sign_in.expires_at, UTC).isoformat())
    return f"{where}, until {until}{', then renewed' if used.sign_in.refresh_token else ''}"


def _token(endpoint: str, *, stdin: bool) -> str:
    if stdin and not at_a_terminal():
        return sys.stdin.read()
    if not stdin and (token := os.environ.get(TOKEN_VARIABLE)):
        return token
    if not at_a_terminal():
        raise Misused(f"There is no terminal to ask for the token at: use --token-stdin, or set {TOKEN_VARIABLE}.")
    answer: str = typer.prompt(f"API token for {endpoint}", hide_input=True, err=True)
    return answer


def _warn_of_environment() -> None:
    for variable in (ENDPOINT_VARIABLE, TOKEN_VARIABLE):
        if os.environ.get(variable):
            say(f"Note: {variable} is set, and counts for the commands that follow.")
