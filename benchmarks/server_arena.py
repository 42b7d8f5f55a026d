"""Arena's server with the echo environment, as `arena serve` runs it.

    python -m benchmarks.server_arena WORKERS [STATE_DIR]

The greeting, which ends with the URL, is printed once it answers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from arena.server.run import serve
from arena.server.settings import ServerSettings
from benchmarks.server_echo import ENV


def main() -> int:
    """Serve until a signal comes."""
    workers, *state = sys.argv[1:]
    settings = ServerSettings(
        envs=(ENV,),
        imports=("benchmarks.server_echo",),
        port=0,
        workers=int(workers),
        state=Path(state[0]) if state else None,
    )
    return serve(settings, ready=lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())
