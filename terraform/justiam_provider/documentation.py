"""The pages of docs/terraform, from the schema and the examples: `python -m justiam_provider.documentation`.

With `--check` nothing is written, and it fails where a page is not what it would be.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tf.types import Bool, List, Number, Set, String, Unknown

from justiam_provider import data_sources, provider, resources
from justiam_provider.arguments import Argument

_NOTICE: Final = "<!-- Written by `make terraform-docs` from the provider's schema and `examples/`. -->\n"
_TYPES: Final = {String: "string", Number: "number", Bool: "bool"}
_MARK: Final = "<!-- the provider's arguments -->\n"


def pages(examples: Path, index: str) -> Iterator[tuple[str, str]]:
    """Each page's path and content.

    Args:
        examples: the configurations to take examples from.
        index: the first page, into which the provider's own arguments and the list of pages are set.
    """
    hcl = "\n".join(path.read_text() for path in sorted(examples.glob("*.tf")))
    before, _, rest = index.partition(_MARK)
    after = rest.partition(_MARK)[2]
    yield "index.md", before + _MARK + "\n" + _table(provider.ARGUMENTS, required=True) + "\n" + _MARK + after
    for resource in resources.ALL:
        name = f"justiam_{resource.NAME}"
        given = [each for each in resource.ARGUMENTS if not each.is_read_only]
        read = [each for each in resource.ARGUMENTS if each.is_read_only]
        imported = "<group id>/<user id>" if "/" in resource.IMPORT_ID else f"<{resource.THING} id>"
        yield (
            f"resources/{name}.md",
            _page(
                name,
                resource.DESCRIPTION,
                _example("resource", name, hcl),
                f"## Arguments\n\n{_table(given, required=True)}",
                f"## Attributes\n\n{_table(read)}",
                f"## Import\n\nBy {resource.IMPORT_ID}:\n",
                f'```hcl\nimport {{\n  to = {name}.example\n  id = "{imported}"\n}}\n```\n',
            ),
        )
    for source in data_sources.ALL:
        name = f"justiam_{source.get_name()}"
        given = [each for each in source.arguments() if each.optional]
        read = [each for each in source.arguments() if not each.optional]
        yield (
            f"data-sources/{name}.md",
            _page(
                f"{name} (data source)",
                source.get_schema().description or "",
                _example("data", name, hcl),
                f"## Arguments\n\n{_table(given)}",
                f"## Attributes\n\n{_table(read)}",
            ),
        )


def _page(title: str, description: str, *sections: str) -> str:
    return "\n".join((f"{_NOTICE}\n# {title}\n\n{description}\n", *sections))


def _example(kind: str, name: str, hcl: str) -> str:
    found = re.search(rf'^{kind} "{name}" .*?^}}\n', hcl, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"examples/ has no {kind} {name} to show.")
    return f"```hcl\n{found[0]}```\n"


def _table(arguments: Sequence[Argument], *, required: bool = False) -> str:
    head = "| name | type | required | default | description |" if required else "| name | type | description |"
    rows = [head, re.sub(r"[^|]+", " --- ", head)]
    for each in arguments:
        meaning = each.description
        if each.write_only:
            meaning += " Write-only: neither plan nor state has it."
        if each.sensitive:
            meaning += " Sensitive."
        if each.replace:
            meaning += " Forces replacement."
        must = f" {'yes' if each.required else 'no'} | {_default(each)} |" if required else ""
        rows.append(f"| `{each.name}` | {_type(each)} |{must} {meaning} |")
    return "\n".join(rows) + "\n"


def _type(argument: Argument) -> str:
    kind = argument.type
    if isinstance(kind, List):
        return f"{'set' if isinstance(kind, Set) else 'list'}({_TYPES[type(kind.element_type)]})"
    return _TYPES[type(kind)]


def _default(argument: Argument) -> str:
    return "" if argument.default is Unknown else f"`{json.dumps(argument.default)}`"


def main() -> None:
    """Write the pages into the first directory named, with examples from the second; or check them."""
    check = "--check" in sys.argv
    docs, examples = (Path(each) for each in sys.argv[1:] if each != "--check")
    written = dict(pages(examples, (docs / "index.md").read_text()))
    known = {str(path.relative_to(docs)): path for path in docs.rglob("*.md")}
    if check:
        wrong = [name for name, text in written.items() if name not in known or known[name].read_text() != text]
        if wrong or known.keys() - written.keys():
            sys.exit(
                f"Not current: {', '.join(sorted({*wrong, *(known.keys() - written.keys())}))}: make terraform-docs"
            )
        return
    for name, text in written.items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in known.keys() - written.keys():
        known[name].unlink()


if __name__ == "__main__":
    main()
