# Compiles a script in Go, inside the sandbox: `python -I -S -c … CACHE`, with what to do as JSON on standard input. Prints
# the program that it made and ends with 0, or prints what the compiler said and ends with 1.
import json
import os
import shutil
import subprocess
import sys
import time


def main() -> int:
    """Compile the module, and print the program or the errors."""
    trusted = sys.argv[1]
    asked = json.load(sys.stdin.buffer)
    home = os.getcwd()
    module, cache, made = (os.path.join(home, name) for name in ("module", "cache", "made"))
    for name, text in asked["files"].items():
        path = os.path.join(module, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
    # The compiler wants to write into its cache. It gets one of its own, of links to what is shared and cannot be changed.
    os.mkdir(cache)
    for group in os.listdir(trusted):
        if os.path.isdir(os.path.join(trusted, group)):
            os.mkdir(os.path.join(cache, group))
            for name in os.listdir(os.path.join(trusted, group)):
                os.symlink(os.path.join(trusted, group, name), os.path.join(cache, group, name))
    # Tells Go that the cache was trimmed just now, so that it does not try to remove the links.
    with open(os.path.join(cache, "trim.txt"), "w") as trimmed:
        trimmed.write(str(int(time.time())))
    done = subprocess.run(
        [*asked["command"], "-o", made, "."],
        cwd=module,
        env={
            **asked["environment"],
            "HOME": home,
            "TMPDIR": home,
            "GOCACHE": cache,
            "GOPATH": os.path.join(home, "go"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        sys.stdout.buffer.write(done.stdout)
        return 1
    with open(made, "rb") as program:
        shutil.copyfileobj(program, sys.stdout.buffer)
    return 0


sys.exit(main())
