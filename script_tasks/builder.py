# Compiles a script in Go, inside the sandbox: `python -I -S -c … GO MODULE CACHE`. Prints the program that it made and ends
# with 0, or prints what the compiler said and ends with 1.
import os
import shutil
import subprocess
import sys
import time


def main() -> int:
    """Compile the module, and print the program or the errors."""
    go, module, trusted = sys.argv[1:]
    home = os.getcwd()
    cache = os.path.join(home, "cache")
    # The compiler wants to write into its cache. It gets one of its own, of links to what is shared and cannot be changed.
    os.mkdir(cache)
    for group in os.listdir(trusted):
        if os.path.isdir(os.path.join(trusted, group)):
            os.mkdir(os.path.join(cache, group))
            for name in os.listdir(os.path.join(trusted, group)):
                os.symlink(os.path.join(trusted, group, name), os.path.join(cache, group, name))
    # Nothing here is old enough to be removed.
    with open(os.path.join(cache, "trim.txt"), "w") as trimmed:
        trimmed.write(str(int(time.time())))
    # Nothing of the environment of the script worker, and no file of settings in a parent of the directory.
    environment = {
        "PATH": "/nonexistent",
        "HOME": home,
        "TMPDIR": home,
        "GOCACHE": cache,
        "GOPATH": os.path.join(home, "go"),
        "GOMAXPROCS": "4",
        "GOPROXY": "off",
        "GOSUMDB": "off",
        "GOFLAGS": "-mod=mod",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "GOENV": "off",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }
    made = os.path.join(home, "made")
    # Without -buildvcs=false, Go runs git, with the configuration of any repository in a parent directory.
    command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", made, "."]
    done = subprocess.run(
        command, cwd=module, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0:
        sys.stdout.buffer.write(done.stdout)
        return 1
    with open(made, "rb") as program:
        shutil.copyfileobj(program, sys.stdout.buffer)
    return 0


sys.exit(main())
