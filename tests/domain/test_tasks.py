from __future__ import annotations

import pytest
from pydantic import ValidationError

from domain.tasks import Language, TaskValues, event_config, infer_language, source_text


@pytest.mark.parametrize(
    ("script", "language"),
    [
        ('package task\n\nfunc Run() (string, error) { return "", nil }', Language.GO),
        ("// Logs everything.\n\n/* package */\npackage task\n", Language.GO),
        ("\n  package   task", Language.GO),
        ("def run():\n    return 'package task'\n", Language.PYTHON),
        ("# package task\nimport package\n", Language.PYTHON),
        ("package = 1\ndef run(): ...\n", Language.PYTHON),
        ("", Language.PYTHON),
        ("\ufeffpackage task\n", Language.GO),
        ("\ufeff// Logs.\r\npackage task\r\n", Language.GO),
        ("#!/usr/bin/env gorun\npackage task\n", Language.GO),
        ("\ufeff#!/usr/bin/env gorun\r\n\r\npackage/* our */task // here\r\n", Language.GO),
        ("//go:build linux\n\npackage task", Language.GO),
        ("/* package one\n*/ package task", Language.GO),
        ("/* package task", Language.PYTHON),
        ("\ufeffdef run(): ...\n", Language.PYTHON),
        ("#!/usr/bin/env python3\n# package task\ndef run(): ...\n", Language.PYTHON),
        (" " * 100_000 + "/", Language.PYTHON),
        ("//\n" * 30_000 + "/*" * 5_000, Language.PYTHON),
    ],
)
def test_the_language_is_inferred_from_the_script(script: str, language: Language) -> None:
    assert infer_language(script) is language


def test_a_script_is_read_without_what_its_compiler_refuses() -> None:
    assert source_text("\ufeffdef run():\r\n    return 1\r\n", Language.PYTHON) == "def run():\n    return 1\n"
    assert source_text("#!/usr/bin/python3\nx = 1", Language.PYTHON) == "#!/usr/bin/python3\nx = 1"
    assert source_text("\ufeff#!gorun\npackage task", Language.GO) == "//#!gorun\npackage task"
    assert source_text("package task // \ufeff", Language.GO) == "package task // \ufeff"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"schedule_type": "interval"}, "interval_seconds goes with"),
        ({"interval_seconds": 60}, "interval_seconds goes with"),
        ({"schedule_type": "cron"}, "cron goes with"),
        ({"cron": "0 6 * * *"}, "cron goes with"),
        ({"time_zone": "Europe/Atlantis"}, "no time zone"),
        ({"time_zone": "../../etc/passwd"}, "no time zone"),
        ({"time_zone": "Europe/../Europe/Berlin"}, "no time zone"),
        ({"time_zone": "Europe"}, "no time zone"),
        ({"time_zone": "localtime"}, "no time zone"),
        ({"time_zone": "posixrules"}, "no time zone"),
        ({"time_zone": "Factory"}, "no time zone"),
        ({"time_zone": "posix/Europe/Berlin"}, "no time zone"),
        ({"time_zone": "right/Europe/Berlin"}, "no time zone"),
        ({"time_zone": "tzdata.zi"}, "no time zone"),
        ({"time_zone": "europe/berlin"}, "is spelled Europe/Berlin"),
        ({"time_zone": ""}, "no time zone"),
        ({"secret_names": ["slack webhook"]}, "pattern"),
        ({"script": ""}, "at least 1 character"),
        ({"max_retries": -1}, "greater than or equal to 0"),
    ],
)
def test_a_task_is_whole(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        TaskValues.model_validate({"name": "A task", "script": "def run(): ...", **values})


def test_the_keys_of_an_event_are_there_twice() -> None:
    assert event_config({"request_id": "2", "decided_by": None, "notified_approvers": ["a@x.com", "b@x.com"]}) == {
        "request_id": "2",
        "event.request_id": "2",
        "decided_by": "",
        "event.decided_by": "",
        "notified_approvers": "a@x.com,b@x.com",
        "event.notified_approvers": "a@x.com,b@x.com",
    }
