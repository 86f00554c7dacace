# Runs a Python script: reads what it may know, offers `justiam`, calls its `run()`. Started with `python -I -S -c`, so
# it knows nothing but the standard library, and nothing of it is on a disk that the script could change.
import io
import json
import linecache
import os
import sys
import traceback
import types


def _main():
    known = json.loads(sys.stdin.buffer.read())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    justiam = types.ModuleType("justiam", "What a task knows: config, idp, secrets.")
    config = types.ModuleType("justiam.config", "What happened.")
    idp = types.ModuleType("justiam.idp", "Who is concerned.")
    secrets = types.ModuleType("justiam.secrets", "Secrets that this task may read.")

    def get_config(key, default=""):
        """The value of a key; `default` where there is none."""
        return known["config"].get(key, default)

    class Approver:
        """Somebody who was asked to decide."""

        def __init__(self, id, email, name):
            self.id, self.email, self.name = id, email, name

        def __repr__(self):
            return f"Approver(email={self.email!r}, name={self.name!r})"

    def get_access_request_approvers(request_id):
        """Who was asked to decide the request of this run."""
        if request_id != known["config"].get("request_id"):
            raise LookupError(f"this run is not about request {request_id}")
        return [Approver(**approver) for approver in known["approvers"]]

    def get_secret(name):
        """The value of a secret that is among the task's secret_names."""
        try:
            return known["secrets"][name]
        except KeyError:
            may = ", ".join(sorted(known["secrets"])) or "none"
            raise LookupError(f"this task may not read the secret {name}; its secret_names are: {may}") from None

    config.get = get_config
    config.all = lambda: dict(known["config"])
    idp.Approver = Approver
    idp.get_access_request_approvers = get_access_request_approvers
    secrets.get = get_secret
    for module in (config, idp, secrets):
        setattr(justiam, module.__name__.rpartition(".")[2], module)
        sys.modules[module.__name__] = module
    sys.modules["justiam"] = justiam

    # So that approvers can be pickled.
    Approver.__module__, Approver.__qualname__ = idp.__name__, "Approver"

    source = known.pop("script")
    # Lines as Python counts them: str.splitlines() breaks at form feeds and U+2028 as well.
    linecache.cache["task.py"] = (len(source), None, list(io.StringIO(source, newline=None)), "task.py")
    # Dataclasses, pickle, typing and mock look a class's or function's module up by its name.
    task = types.ModuleType("task")
    task.__file__ = "task.py"
    sys.modules["task"] = task
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = sys.stdout
    try:
        exec(compile(source, "task.py", "exec", dont_inherit=True), vars(task))
        run = vars(task).get("run")
        if not callable(run):
            raise NameError("the script defines no function run()")
        result = run()
        if hasattr(result, "__await__"):
            import asyncio

            async def awaited():
                return await result

            result = asyncio.run(awaited())
    except SystemExit:
        raise
    except BaseException as error:
        told = traceback.TracebackException.from_exception(error)
        told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if frame.filename != "<string>"])
        print("".join(told.format()), end="", flush=True)
        sys.exit(1)
    if result is not None:
        print(result, flush=True)


_main()
