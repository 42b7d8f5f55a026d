"""The same games on ALFWorld's own engine, the packages `alfworld` and `textworld`, in a process of their own.

In one's own process that engine leaves traces: it maps a copy of its planner for each environment and never lets it go,
which cannot be undone (the planner leaves a handler to be called at exit, and unloading it crashes the interpreter
there); it puts its own arguments into `sys.argv` and replaces `sys.stdout` while it reads a game; its parsers and its
planner's settings are global, so that two threads disturb each other; its hand-coded expert draws from the global
generator; and importing it makes a folder and sets an environment variable. Besides, it evaluates expressions that a
game file contains as Python: before it gets a file, `load_game` must have accepted it, and what it would evaluate is
checked once more in that process.

Run as a program, this module is that process.
"""

from __future__ import annotations

import ast
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from arena import ConfigError, EnvError, UnsupportedError, import_extra, installed_version

from .game import load_game

__all__ = ["UpstreamPlay"]

ANSWER_TIMEOUT_S = 600.0
"""How long an answer may take. The planner was seen to take 300 s, and 1.6 GB, for one plan of a pick-two game."""
_MOST_IDLE = 2
_PLAIN = (ast.BinOp, ast.Add, ast.BoolOp, ast.Or, ast.Name, ast.Attribute, ast.Constant, ast.Load)


class _Answer(msgspec.Struct, omit_defaults=True):
    """What the process answers.

    Attributes:
        text: The feedback.
        commands: The admissible commands.
        won: Whether the goal holds.
        plan: An expert's commands.
        gave_up: Why the expert knows none.
        refused: Why this game is not played.
        failed: What went wrong.
    """

    text: str = ""
    commands: tuple[str, ...] = ()
    won: bool = False
    plan: list[str] = []
    gave_up: str = ""
    refused: str = ""
    failed: str = ""


class UpstreamPlay:
    """An episode of a game as ALFWorld's `AlfredTWEnv` shows it, without shuffled names.

    Args:
        path: The game file. `traj_data.json` beside it is read for the hand-coded expert only.

    Raises:
        PrerequisiteError: ALFWorld is not installed.
        ConfigError: The file is none of ALFWorld's games; the message names it and what is wrong.
    """

    def __init__(self, path: Path) -> None:
        if installed_version("alfworld") is None:
            import_extra("alfworld", extra="alfworld")
        load_game(path)
        self.path = path
        self._process: _Process | None = None
        self._now = _Answer()

    @property
    def won(self) -> bool:
        """Whether the goal holds now."""
        return self._now.won

    def begin(self) -> str:
        """Start, or start again, and return the first text.

        Raises:
            ConfigError: The file has expressions that ALFWorld's engine must not be given.
            EnvError: The engine failed.
        """
        if self._process is None:
            self._process = _idle_or_new()
            self._ask("load", str(self.path))
        self._now = self._ask("begin")
        return self._now.text

    def act(self, command: str) -> str:
        """Do what a command says and return the feedback; a command that is not among `commands` does nothing.

        Raises:
            EnvError: The engine failed.
        """
        self._now = self._ask("act", command)
        return self._now.text

    def commands(self) -> tuple[str, ...]:
        """Return the admissible commands, sorted, each once."""
        return self._now.commands

    def expert_plan(self, kind: Literal["planner", "handcoded"]) -> list[str]:
        """Return the next commands of one of ALFWorld's experts, at least one.

        The planner gives all commands to the goal. The hand-coded expert gives one, as `AlfredExpert` does: ``look`` at
        the start, and where it wants something that is not admissible; it draws from a generator that is seeded when
        the episode begins. Asking changes nothing.

        Raises:
            UnsupportedError: The planner finds no way, or the hand-coded expert has given up in this episode.
            ConfigError: The hand-coded expert cannot use `traj_data.json`.
            EnvError: The engine failed.
        """
        answer = self._ask("plan", kind)
        if answer.gave_up:
            raise UnsupportedError(f"ALFWorld's {kind} expert knows no way on: {answer.gave_up}")
        return answer.plan

    def close(self) -> None:
        """Free the process, which may be kept for the next episode that needs one; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        if len(_idle) < _MOST_IDLE and not process.has_planned:
            _idle.append(process)
        else:
            process.close()

    def _ask(self, *request: str) -> _Answer:
        if self._process is None:
            raise EnvError(f"ALFWorld's engine is not running {self.path}; begin again")
        try:
            answer = self._process.ask(request)
        except _ProcessError as error:
            self._process = None
            raise EnvError(f"ALFWorld's engine {error} on {self.path}") from error
        if answer.refused:
            raise ConfigError(f"{self.path}: {answer.refused}")
        if answer.failed:
            raise EnvError(f"ALFWorld's engine failed on {self.path}: {answer.failed}")
        return answer


# -- the side that asks -----------------------------------------------------------------------------------------------


class _ProcessError(Exception):
    """The process is gone; the message says why."""


class _Process:
    """ALFWorld's engine in a process of its own, which ends with this object and with this process.

    Attributes:
        has_planned: Whether its planner was used, which can leave it with gigabytes of memory.
    """

    def __init__(self) -> None:
        self.has_planned = False
        self._errors = tempfile.TemporaryFile()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={
                **os.environ,
                "ALFWORLD_DATA": str(Path(__file__).parent),  # its import makes the folder that this names
                "PYTHONHASHSEED": "0",
                "PYTHONWARNINGS": "ignore",
            },
            process_group=0,
        )
        self._end = weakref.finalize(self, _end, self._child, self._errors)

    def ask(self, request: tuple[str, ...]) -> _Answer:
        """Return the answer to a request.

        Raises:
            _ProcessError: The process died or did not answer in time; it is gone.
        """
        assert self._child.stdin is not None
        self.has_planned = self.has_planned or request == ("plan", "planner")
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
            return msgspec.json.decode(self._line(), type=_Answer)
        except TimeoutError:
            self.close()
            raise _ProcessError(f"did not answer within {ANSWER_TIMEOUT_S:g} s") from None
        except OSError:
            why = self._death()
            self.close()
            raise _ProcessError(f"died ({why})") from None
        except BaseException:  # interrupted: what it answers next would be taken for the answer to another request
            self.close()
            raise

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._end()

    def _line(self) -> bytes:
        assert self._child.stdout is not None
        answers = self._child.stdout.fileno()
        poll = select.poll()
        poll.register(answers, select.POLLIN)
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        line = bytearray()
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            piece = os.read(answers, 1 << 16)
            if not piece:
                raise BrokenPipeError
            line += piece
        return bytes(line)

    def _death(self) -> str:
        """Return how the process ended, and the last line that it wrote about it."""
        code = self._child.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{how}: {said[-1]}" if said else how


def _end(child: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    child.kill()
    with suppress(OSError):  # what it was not given any more
        child.communicate()
    errors.close()


_idle: list[_Process] = []


def _idle_or_new() -> _Process:
    try:
        return _idle.pop()
    except IndexError:
        return _Process()


# -- the process itself -----------------------------------------------------------------------------------------------


class _RefusedError(Exception):
    """The files of a game hold something that must not be evaluated, or that cannot be used."""


class _World:
    """One PddlEnv, which plays one game after the other, and the hand-coded expert's wrapper once that was asked."""

    def __init__(self) -> None:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld.envs.pddl import PddlEnv

        wanted = textworld.EnvInfos(feedback=True, won=True, admissible_commands=True)
        self._plain = AlfredDemangler(PddlEnv(wanted), shuffle=False)
        self._env: Any = self._plain
        self._path = ""
        self._history: list[str] = []
        self._gave_up = ""

    @property
    def _pddl(self) -> Any:
        return self._plain.unwrapped

    def load(self, path: str) -> _Answer:
        self._path, self._env = path, self._plain
        self._pddl.request_infos.facts = False
        self._plain.load(json.loads(Path(path).read_bytes()))
        logic = self._pddl._logic
        _check_expressions(rule.rhs for rules in logic.grammar._rules.values() for rule in rules)
        _check_expressions(map(_symbols, _texts_of(logic.actions.values())))
        return _Answer()

    def begin(self) -> _Answer:
        random.seed(0)
        self._history, self._gave_up = [], ""
        return _answer(self._env.reset())

    def act(self, command: str) -> _Answer:
        self._history.append(command)
        before = self._env.state
        try:
            self._env.step(command)
        except Exception as error:  # the boundary: the expert is asked after each step, and gives up by raising
            if self._env is self._plain or self._env.state is before:
                raise
            self._gave_up = self._gave_up or f"{type(error).__name__}: {error}"
        return _answer(self._env.state)

    def plan(self, kind: str) -> _Answer:
        if kind == "planner":
            plan = self._pddl._pddl_state.replan(self._pddl._entity_infos)
            return _Answer(plan=plan, gave_up="" if plan else "it finds no plan")
        if self._env is self._plain:
            self._let_the_expert_watch()
        return _Answer(plan=list(self._env.state["extra.expert_plan"]), gave_up=self._gave_up)

    def _let_the_expert_watch(self) -> None:
        """Play the episode again from its start under the eyes of the hand-coded expert, which stays."""
        from alfworld.agents.environment.alfred_tw_env import AlfredExpert, AlfredExpertType
        from alfworld.agents.expert import HandCodedTWAgent

        try:
            HandCodedTWAgent().reset(self._path)
        except Exception as error:  # the boundary: whatever it finds in that file
            why = f"{type(error).__name__}: {error}"
            raise _RefusedError(f"the hand-coded expert cannot use the traj_data.json beside it: {why}") from error
        history = self._history
        expert = AlfredExpert(self._plain, AlfredExpertType.HANDCODED)
        expert.load(self._path)
        self._env = expert
        self.begin()
        for command in history:
            self.act(command)


def _answer(state: Any) -> _Answer:
    return _Answer(state["feedback"], tuple(state["admissible_commands"]), bool(state["won"]))


def _texts_of(actions: Iterable[Any]) -> Iterator[str]:
    for action in actions:
        yield action.template
        yield action.feedback_rule


def _symbols(text: str) -> list[Any]:
    from textworld.envs.pddl import textgen

    return list(textgen._parse_and_convert(text, rule_name="symbols"))


def _check_expressions(texts: Iterable[Iterable[Any]]) -> None:
    """Refuse expressions that do more than join names and texts.

    Raises:
        _RefusedError: There is one.
    """
    for expression in {one for symbols in texts for one in _expressions(symbols)}:
        try:
            nodes = list(ast.walk(ast.parse(expression, mode="eval").body))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise _RefusedError(f"the grammar's expression {expression!r} cannot be read") from error
        if not all(isinstance(node, _PLAIN) for node in nodes):
            raise _RefusedError(f"the grammar's expression {expression!r} does more than join names and texts")


def _expressions(symbols: Iterable[Any]) -> Iterator[str]:
    from textworld.envs.pddl.textgen import ConditionalSymbol, EvalSymbol, ListSymbol

    for symbol in symbols:
        if isinstance(symbol, EvalSymbol):
            yield symbol.expression
        elif isinstance(symbol, ConditionalSymbol):
            yield from _expressions([symbol.expression])
        elif isinstance(symbol, ListSymbol):
            yield from _expressions([symbol.symbol])


def _served(world: _World, request: list[str]) -> _Answer:
    try:
        match request:
            case ["load", path]:
                return world.load(path)
            case ["begin"]:
                return world.begin()
            case ["act", command]:
                return world.act(command)
            case ["plan", kind]:
                return world.plan(kind)
    except _RefusedError as error:
        return _Answer(refused=str(error))
    except (Exception, SystemExit) as error:  # the boundary of this process: Fast Downward's reader exits on bad PDDL
        return _Answer(failed=f"{type(error).__name__}: {error}")
    raise AssertionError(request)


def main() -> None:
    """Answer requests, one a line, until there are no more; the process ends itself should one take for ever."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the engine prints is no answer
    world = _World()
    for line in sys.stdin.buffer:
        signal.alarm(int(ANSWER_TIMEOUT_S) + 1)
        answers.write(msgspec.json.encode(_served(world, json.loads(line))) + b"\n")
        answers.flush()
        signal.alarm(0)


if __name__ == "__main__":
    main()
