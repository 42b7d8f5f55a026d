"""The unmodified `swe-rex` package, its local deployment, told on standard input what to do how often.

A line is ``{"what": "session" | "run" | "execute" | "sleep", "times": N}``; the answer is a line with N durations in
milliseconds, of ``sleep`` one for N commands that sleep a second at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

from swerex.deployment.local import LocalDeployment
from swerex.runtime.abstract import BashAction, CloseBashSessionRequest, Command, CreateBashSessionRequest


async def main() -> None:
    """Serve until standard input ends."""
    logging.disable(logging.CRITICAL)
    deployment = LocalDeployment()
    await deployment.start()
    runtime = deployment.runtime
    await runtime.create_session(CreateBashSessionRequest(session="kept", startup_timeout=10))
    for line in sys.stdin:
        told = json.loads(line)
        durations = []
        if told["what"] == "sleep":
            commands = [Command(command=["sleep", "1"], timeout=60) for _ in range(told["times"])]
            began = time.perf_counter()
            await asyncio.gather(*(runtime.execute(command) for command in commands))
            durations.append(time.perf_counter() - began)
        for number in range(told["times"] if told["what"] != "sleep" else 0):
            name = f"session-{number}"
            began = time.perf_counter()
            if told["what"] == "session":
                await runtime.create_session(CreateBashSessionRequest(session=name, startup_timeout=10))
            elif told["what"] == "run":
                done = await runtime.run_in_session(BashAction(session="kept", command="echo hello"))
                assert done.output.strip() == "hello"
            else:
                done = await runtime.execute(Command(command="echo hello", shell=True))
                assert done.stdout == "hello\n"
            durations.append(time.perf_counter() - began)
            if told["what"] == "session":
                await runtime.close_session(CloseBashSessionRequest(session=name))
        print(json.dumps([1000 * duration for duration in durations]), flush=True)
    await deployment.stop()


asyncio.run(main())
