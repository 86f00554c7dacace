"""What a submission needs: as given on the command line or, at a terminal, as answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.people import answers, finding, questions
from cli.people.answers import Answers
from cli.people.client import Service
from cli.people.documents import Template
from cli.people.errors import Misused
from cli.people.rendering import plain
from cli.people.session import at_a_terminal
from domain import durations


@dataclass(frozen=True)
class Submission:
    """Everything that the API wants to know."""

    template: Template
    minutes: int
    justification: str
    answers: Answers

    def body(self) -> dict[str, Any]:
        """The body of the request."""
        return {
            "template_id": self.template["id"],
            "requested_duration_mins": self.minutes,
            "justification": self.justification,
            "custom_answers": self.answers,
        }


def completed(
    service: Service, wanted: str | None, duration: str | None, justification: str | None, given: Sequence[str]
) -> Submission:
    """What was given, and the rest from the person at the terminal.

    Args:
        service: knows the templates.
        wanted: what was given for the template.
        duration: as it was typed.
        justification: as it was typed.
        given: answers to custom fields, `label=value` each.

    Raises:
        Misused: something does not fit its option, or is missing and nobody can be asked.
    """
    why = (justification or "").strip()
    minutes = _minutes(duration) if duration is not None else None
    template = finding.template(service, wanted) if wanted is not None else None
    read = _answers(template, given) if template else {}
    missing = _missing(template, minutes, why, read)
    if template is not None and minutes is not None:
        _check_duration(minutes, template)
        if not missing:
            return Submission(template, minutes, why, read)
    if not at_a_terminal():
        listed = ", ".join(missing)
        raise Misused(f"There is no terminal to ask at. Missing: {listed}. See justiam request submit --help.")
    if template is None:
        template = _asked_template(service)
        read = _answers(template, given)
    if minutes is None:
        minutes = questions.duration(template["allowed_durations"])
    else:
        _check_duration(minutes, template)
    why = why or questions.justification(required=template["require_justification"])
    return Submission(template, minutes, why, questions.custom_answers(template["custom_fields"], read))


def _asked_template(service: Service) -> Template:
    known = finding.templates(service)
    if not known:
        raise Misused("There is nothing to ask for yet: administrators make templates first.")
    return questions.template(known)


def _minutes(duration: str) -> int:
    try:
        return durations.parse(duration)
    except ValueError as error:
        raise Misused(f"--duration: {error}.") from None


def _check_duration(minutes: int, template: Template) -> None:
    if (allowed := template["allowed_durations"]) and minutes not in allowed:
        raise Misused(f"--duration: the template allows {_spelled(allowed)}.")


def _answers(template: Template, given: Sequence[str]) -> Answers:
    try:
        return answers.read(template["custom_fields"], given)
    except ValueError as error:
        raise Misused(f"--answer: {error}.") from None


def _missing(template: Template | None, minutes: int | None, justification: str, given: Answers) -> list[str]:
    """The options without which a submission would be refused."""
    missing = [] if template else ["TEMPLATE"]
    if minutes is None:
        allowed = template["allowed_durations"] if template else []
        missing.append(f"--duration ({_spelled(allowed)})" if allowed else "--duration")
    if not justification and (template is None or template["require_justification"]):
        missing.append("--justification")
    unanswered = [field for field in template["custom_fields"] if answers.is_missing(field, given)] if template else []
    return missing + [f"--answer '{plain(field['label'], lines=False)}=…'" for field in unanswered]


def _spelled(minutes: Sequence[int]) -> str:
    return ", ".join(map(durations.spell, sorted(minutes)))
