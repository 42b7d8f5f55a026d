"""What a test starts as a process of its own: a server with the settings that the command line gives as JSON."""

import json
import sys
from pathlib import Path

from arena.server.run import serve
from arena.server.settings import ServerSettings


def _say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    given = json.loads(sys.argv[1])
    paths = {name: Path(given[name]) for name in ("state", "token_file") if given.get(name)}
    imports = tuple(given.pop("imports", ()))
    return serve(ServerSettings(**{**given, **paths}, imports=imports), ready=_say)


if __name__ == "__main__":
    sys.exit(main())
