"""A real server for tests, as `arena serve` starts it."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


@contextmanager
def running_server(*options):
    """Run `arena serve` on a free port; yield its address, and see that it ends well."""
    command = [sys.executable, "-c", "from arena.cli import main; main()", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ}, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        try:
            greeting = lines.readline()
            found = re.search(r"http://\S+", greeting)
            assert found, f"the server did not start: {greeting!r}"
            yield found.group()
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    assert code == 0
