"""Games of the ALFRED household, read from ``game.tw-pddl`` files and played at once.

`load_game` reads a file once; `Play` is an episode of it. Nothing is grounded and nothing planned: what is possible now
is looked up in the state, and only for actions whose facts have changed. Transcripts are those of TextWorld's own
engine on the same file.
"""

from __future__ import annotations

import json
import re
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from arena import ConfigError, UsageError

from .facts import ROOT_TYPE, Row, State, predicates
from .grammar import GrammarError, read_grammar
from .pddl import Domain, PddlError, read_domain, read_problem
from .rules import AGENT, DENIED, Program, Rule, program_of

__all__ = ["Game", "Play", "Table", "load_game"]

_KEYS = ("pddl_domain", "grammar", "pddl_problem")
_MAX_BYTES = 20_000_000
_KEPT_GAMES, _KEPT_TABLES = 128, 4096
_SMALL = 8
"""Up to how many rows the facts that an action reads may have for its commands to be remembered by them."""
_NOTHING_HAPPENS = "Nothing happens."
_ASSIGNMENT = re.compile(r"\(\s*=\s*\([^()]*\)\s*[\d.]+\s*\)")

Table: TypeAlias = Mapping[str, Row]
"""The parameters of an action by the command that gives it."""


class Game:
    """A game file, read and compiled; immutable but for what it remembers, and shared by all episodes.

    Attributes:
        path: The file.
        agents: Ids of those who can act in the file, sorted.
        names: What each object is called, by its id; without the trailing blank that some have in the texts.
        types: The type of each object.
        goal: What is wanted.
        walkthrough: Commands that win, as the file gives them; empty where it does not.
    """

    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        self.path = path
        domain = _part("pddl_domain", read_domain, data["pddl_domain"])
        grammar = _part("grammar", read_grammar, data["grammar"])
        problem = _part(
            "pddl_problem", lambda text: read_problem(text, domain), _ASSIGNMENT.sub("", data["pddl_problem"])
        )
        program: Program = _part("grammar", lambda text: program_of(domain, grammar), "")
        self.program = program
        self.types, self.goal = problem.objects, problem.goal
        self.agents = tuple(sorted(id for id, type in problem.objects.items() if domain.is_a(type, AGENT)))
        if not self.agents:
            raise PddlError("pddl_problem: there is no object of type 'agent'")
        self.walkthrough: tuple[str, ...] = tuple(data.get("walkthrough") or ())
        self.labels = _labels({term for atom in problem.init for term in atom[1:]})
        self.names = {id: label.rstrip() for id, label in self.labels.items()}
        rows: dict[str, list[Row]] = {}
        for predicate, *terms in problem.init:
            rows.setdefault(predicate, []).append(tuple(terms))
        self.goal_values, self.goal_test = program.goal(problem.goal)
        self.goal_reads = predicates(problem.goal) & program.fluents
        schema = program.schema
        self.initial = schema.fill(rows, lambda type: self._members(type, domain), grammar.texts)
        self.writers = {
            name: schema.writer(name) for name in schema.looked_up if name.removeprefix(DENIED) in program.fluents
        }
        self.readers = {name: schema.writer(name)[0] for name in sorted(schema.looked_up)}
        self.tables: dict[Any, Table] = {}
        self.commands: tuple[dict[Row, str], ...] = tuple({} for _ in program.rules)

    def _members(self, type: str, domain: Domain) -> frozenset[str]:
        return frozenset(id for id, own in self.types.items() if type == ROOT_TYPE or domain.is_a(own, type))


def _part(key: str, read: Callable[[str], Any], text: str) -> Any:
    """Return what a reader makes of a part of the file, and name the part in its errors."""
    try:
        return read(text)
    except (PddlError, GrammarError) as error:
        raise PddlError(f"{key}: {error}") from error


_lock = threading.RLock()
_recent: OrderedDict[tuple[str | int, ...], Game] = OrderedDict()
_living: weakref.WeakValueDictionary[tuple[str | int, ...], Game] = weakref.WeakValueDictionary()


def load_game(path: Path) -> Game:
    """Return the game of a file; the same unchanged file again costs nothing.

    Raises:
        ConfigError: There is no such file, or it is none of ALFWorld's games; the message names it and what is wrong.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PddlError("it is a directory" if path.is_dir() else "it is no file")
        key = (str(path), status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size)
        with _lock:
            game = _living.get(key)
            if game is None:
                game = Game(path, _data(path, status.st_size))
                _living[key] = game
            _recent[key] = game
            _recent.move_to_end(key)
            while len(_recent) > _KEPT_GAMES:
                _recent.popitem(last=False)
            return game
    except OSError as error:
        raise ConfigError(f"cannot read the game {path}: {error.strerror or error}") from error
    except (PddlError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no game that can be played: {error}") from error


def _data(path: Path, size: int) -> Mapping[str, Any]:
    if size > _MAX_BYTES:
        raise PddlError(f"it has {size:,} bytes; at most {_MAX_BYTES:,} are read")
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PddlError(f"it is not JSON, or it is cut off: {error}") from error
    if not isinstance(data, dict):
        raise PddlError(f"it is a JSON {type(data).__name__}, not an object with {', '.join(_KEYS)}")
    missing = [key for key in _KEYS if not isinstance(data.get(key), str)]
    if missing:
        raise PddlError(f"it has no text {', '.join(map(repr, missing))}; a game.tw-pddl file has {', '.join(_KEYS)}")
    for key in _KEYS:
        try:
            data[key].encode()
        except UnicodeEncodeError as error:
            raise PddlError(f"its {key} has characters that no text can have: halves of surrogate pairs") from error
    walkthrough = data.get("walkthrough")
    if walkthrough is not None and not (
        isinstance(walkthrough, list) and all(isinstance(one, str) for one in walkthrough)
    ):
        raise PddlError("its walkthrough is not a list of commands")
    return data


def _labels(ids: Set[str]) -> dict[str, str]:
    """Return what objects are called: ``cabinet_bar__plus_00...`` is ``cabinet 3``.

    Numbers count down in the order of the ids, as ALFWorld gives them; what has no ``_bar_`` keeps its id, and a blank.
    """
    kinds = {id: _kind(id) for id in sorted(ids)}
    left: dict[str, int] = {}
    for id, kind in kinds.items():
        left[kind] = left.get(kind, 0) + ("_bar_" in id)
    labels = {}
    for id, kind in kinds.items():
        if "_bar_" not in id:
            labels[id] = f"{_unmangled(id)} "
            continue
        labels[id] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return labels


def _kind(id: str) -> str:
    name, bar, _ = id.partition("_bar_")
    return _unmangled(name) + ("basin" if bar and "basin" in id else "") if bar else id


def _unmangled(name: str) -> str:
    for mangled, sign in (("_minus_", "-"), ("_plus_", "+"), ("_dot_", "."), ("_comma_", ",")):
        name = name.replace(mangled, sign)
    return name


class Play:
    """An episode of a game, for one or several agents in the same house.

    Args:
        game: The game.
        agents: Ids of those who act; ids that the file does not have are added where its first agent stands.

    Raises:
        UsageError: An id is given twice, or is something else's in the file.
    """

    def __init__(self, game: Game, agents: Sequence[str] | None = None) -> None:
        self.game = game
        self.agents = tuple(agents) if agents is not None else game.agents[:1]
        odd = [id for id in self.agents if id in game.types and id not in game.agents]
        if odd or not self.agents or len(set(self.agents)) != len(self.agents):
            raise UsageError(f"agents must be different ids of agents or new ones, not {', '.join(odd or self.agents)}")
        self._program = game.program
        self._state: State = []
        self._won = False
        self._goal_is_stale = True
        self._reset()

    @property
    def won(self) -> bool:
        """Whether the goal holds now."""
        if self._goal_is_stale:
            self._won = bool(self.game.goal_test(self._state, self.game.goal_values.copy()))
            self._goal_is_stale = False
        return self._won

    def begin(self, agent: str | None = None) -> str:
        """Start again, for all agents, and return the first text; it is the same for all of them."""
        self._reset()
        return self.intro(agent)

    def intro(self, agent: str | None = None) -> str:
        """Return the first text as an agent sees it now."""
        values = [agent or self.agents[0], *self._program.intro_slots.initial[1:]]
        return self._program.intro(self._state, values, self.game.labels)

    def commands(self, agent: str | None = None) -> tuple[str, ...]:
        """Return the commands that do something for an agent now, sorted."""
        agent = agent or self.agents[0]
        if agent not in self._sorted:
            found = sorted(chain.from_iterable(self._tables_of(agent)))  # of sorted runs, so it takes little
            self._sorted[agent] = tuple(dict.fromkeys(found))
        return self._sorted[agent]

    def act(self, command: str, agent: str | None = None) -> str:
        """Do what a command says and return the feedback; a command that is not among `commands` does nothing."""
        agent = agent or self.agents[0]
        command = command.strip()
        for rule, table in zip(self._program.rules, self._tables_of(agent), strict=True):
            row = table.get(command)
            if row is not None:
                return self._do(rule, row)
        return _NOTHING_HAPPENS

    def facts(self, predicate: str) -> Set[Row]:
        """Return the rows of a predicate now; of predicates that nothing depends on there may be none."""
        slot = self.game.readers.get(predicate)
        return frozenset(self._state[slot]) if slot is not None else frozenset()

    def snapshot(self) -> object:
        """Return the state, for `restore`."""
        return self._copied(self._state)

    def restore(self, state: object) -> None:
        """Go on from a state that `snapshot` of an episode of this game with the same agents gave."""
        assert isinstance(state, list)
        self._state = self._copied(state)
        self._forget()

    def close(self) -> None:
        """Free what the episode holds: nothing but memory."""

    def _reset(self) -> None:
        self._state = self._copied(self.game.initial)
        self._add_agents()
        self._forget()

    def _forget(self) -> None:
        self._tables: dict[str, list[Table | None]] = {}
        self._whole: dict[str, list[Table]] = {}
        self._few: dict[str, frozenset[Row] | None] = {}
        self._sorted: dict[str, tuple[str, ...]] = {}
        self._goal_is_stale = True
        self._won = False

    def _copied(self, state: State) -> State:
        copy = state.copy()
        for rows, indexes in self.game.writers.values():
            copy[rows] = state[rows].copy()
            for index, _ in indexes:
                copy[index] = {key: found.copy() for key, found in state[index].items()}
        return copy

    def _add_agents(self) -> None:
        new = [agent for agent in self.agents if agent not in self.game.types]
        if not new:
            return
        first = self.game.agents[0]
        for slot in self._program.members:
            self._state[slot] = self._state[slot] | set(new)
        for predicate in self.game.writers:
            for row in [row for row in self._state[self.game.writers[predicate][0]] if first in row]:
                for agent in new:
                    self._write(predicate, tuple(agent if term == first else term for term in row), True)

    def _tables_of(self, agent: str) -> list[Table]:
        whole = self._whole.get(agent)
        if whole is None:
            if agent not in self.agents:
                raise UsageError(f"there is no agent {agent!r}; there are {', '.join(self.agents)}")
            tables = self._tables.setdefault(agent, [None] * len(self._program.rules))
            whole = [self._table(number, agent) if table is None else table for number, table in enumerate(tables)]
            self._whole[agent], self._tables[agent] = whole, [*whole]
        return whole

    def _table(self, number: int, agent: str) -> Table:
        """Return what an agent can do by one action; remembered where it depends on few facts."""
        few = self._few
        key: list[Any] = [number, agent]
        for predicate in self._program.rules[number].reads:
            if predicate not in few:
                rows = self._state[self.game.readers[predicate]]
                few[predicate] = frozenset(rows) if len(rows) <= _SMALL else None
            if few[predicate] is None:
                break
            key.append(few[predicate])
        else:
            remembered = tuple(key)
            tables = self.game.tables
            table = tables.get(remembered)
            if table is None:
                if len(tables) >= _KEPT_TABLES:
                    tables.clear()
                table = tables[remembered] = self._found(number, agent)
            return table
        return self._found(number, agent)

    def _found(self, number: int, agent: str) -> Table:
        rule, state, game = self._program.rules[number], self._state, self.game
        values: list[Any] = rule.initial.copy()
        for slot in rule.agent:
            values[slot] = agent
        rows: list[Row] = []
        values[rule.out] = rows
        rule.find(state, values)
        table: dict[str, Row] = {}
        commands, told = game.commands[number], rule.told
        for row in rows:
            key = tuple([row[place] for place in told])
            command = commands.get(key)
            if command is None:
                for slot, id in zip(rule.parameters, row, strict=True):
                    values[slot] = id
                command = commands[key] = rule.command(state, values, game.labels)
            table.setdefault(command, row)
        return dict(sorted(table.items()))

    def _do(self, rule: Rule, row: Row) -> str:
        state = self._state
        values = rule.initial.copy()
        for slot, id in zip(rule.parameters, row, strict=True):
            values[slot] = id
        changed = set()
        for change in [one for one in rule.changes if one.test is None or one.test(state, values)]:
            row = tuple([values[term] for term in change.terms])
            if self._write(change.predicate, row, change.appears):
                changed.add(change.predicate)
            if change.predicate in self._program.denied:
                self._write(DENIED + change.predicate, row, not change.appears)
        if changed:
            self._outdate(changed)
        return rule.feedback(state, values, self.game.labels)

    def _outdate(self, changed: set[str]) -> None:
        """Forget what depends on facts that have changed."""
        for predicate in changed:
            self._few.pop(predicate, None)
            for number in self._program.readers.get(predicate, ()):
                self._sorted, self._whole = {}, {}
                for tables in self._tables.values():
                    tables[number] = None
        if not changed.isdisjoint(self.game.goal_reads):
            self._goal_is_stale = True

    def _write(self, predicate: str, row: Row, appears: bool) -> bool:
        """Make a fact true or false, and return whether that changed anything that somebody looks up."""
        writer = self.game.writers.get(predicate)
        if writer is None:
            return False
        slot, indexes = writer
        rows = self._state[slot]
        if (row in rows) is appears:
            return False
        if appears:
            rows.add(row)
            for index, key in indexes:
                self._state[index].setdefault(key(row), set()).add(row)
        else:
            rows.remove(row)
            for index, key in indexes:
                self._state[index][key(row)].remove(row)
        return True
