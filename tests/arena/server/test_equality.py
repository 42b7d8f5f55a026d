"""In process and over the wire are the same: whatever is asked of a session, both answer alike.

Hypothesis makes up an episode and what is asked of it: legal, illegal and odd actions, wrong indices and seats,
truncations, forks at any step, repeats. Each request goes to a `Session` in this process and to one on the server; the
records (without their times), errors, digests and verdicts must be equal.
"""

import asyncio
from dataclasses import dataclass

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arena.errors import ArenaError
from arena.session import Session
from arena.types import Action, Array, ToolCall, Usage, encode_msgpack
from tests.arena.server.harness_client import RawClient, Refused
from tests.arena.server.harness_truth import Plan, begin, environment, finish, plain, without_times

ENVS = {
    "text/guess-v0": [{}, {"max_guesses": 2}, {"max_guesses": 0}, {"guesses": 3}, {"max_guesses": "two"}],
    "test/echo-v0": [{}, {"steps": 3}, {"steps": 1}],
    "test/odd-v0": [{}],
    "test/match-v0": [{}, {"rounds": 2}],
    "test/nim-v0": [{}],
    "test/apart-echo-v0": [{}, {"steps": 3}],
    "test/apart-odd-v0": [{}],
    "test/apart-match-v0": [{}, {"rounds": 2}],
    "test/apart-nim-v0": [{}],
}
TASKS = {"text/guess-v0": [None, "range-8", "range-7"], "test/echo-v0": [None, "only"]}
SPLITS = {"text/guess-v0": [None, "train", "test"], "test/echo-v0": [None, "test"]}

plans = st.sampled_from(sorted(ENVS)).flatmap(
    lambda env: st.builds(
        Plan,
        env=st.just(env),
        options=st.sampled_from(ENVS[env]),
        task=st.sampled_from(TASKS.get(env, [None])),
        split=st.sampled_from(SPLITS.get(env, [None])),
        seed=st.integers(-(2**31), 2**63 - 1),
        limits=st.fixed_dictionaries(
            {},
            optional={
                "steps": st.integers(1, 6),
                "tokens": st.integers(1, 200),
                "cost_usd": st.floats(0.5, 4),
                "invalid_actions": st.integers(1, 4),
            },
        ),
    )
)
odd_actions = st.one_of(
    st.text(max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(["raise", "1", "8", "", "\x00", "é\U0001f600"]),
    st.builds(ToolCall, name=st.text(max_size=5), arguments=st.dictionaries(st.text(max_size=3), st.integers(0, 3))),
    st.builds(Array, dtype=st.sampled_from(["int64", "O", "uint8"]), shape=st.just((1,)), data=st.binary(max_size=9)),
)
usages = st.none() | st.builds(
    Usage, input_tokens=st.integers(0, 50), output_tokens=st.integers(0, 50), cost_usd=st.floats(0, 1)
)


@dataclass
class Act:
    """A step: of every acting seat a legal action, the number `legal`, or where there is one, the odd one."""

    legal: int
    odd: Action | None
    seats: str
    offset: int
    usage: Usage | None
    note: str | None


@dataclass
class Cut:
    """A truncation by the driver."""

    kind: str
    value: float
    usage: Usage | None


@dataclass
class Branch:
    """A fork at a step, counted from the last one."""

    back: int


@dataclass
class Advise:
    """The expert is asked."""


requests = st.one_of(
    *[
        st.builds(
            Act,
            legal=st.integers(0, 1000),
            odd=odd,
            seats=st.sampled_from(["due"] * 8 + ["none", "more"]),
            offset=st.sampled_from([0] * 8 + [-1, -2, 1, -100]),
            usage=usages,
            note=st.none() | st.text(max_size=5),
        )
        for odd in (st.none(), st.none(), odd_actions)
    ],
    st.builds(Cut, kind=st.sampled_from(["tokens", "wall_time", "cost"]), value=st.floats(0, 1e6), usage=usages),
    st.builds(Branch, back=st.integers(-1, 8)),
    st.just(Advise()),
)
scripts = st.lists(st.tuples(st.integers(0, 3), requests), max_size=25)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(plan=plans, script=scripts, format=st.sampled_from(["json", "msgpack"]))
def test_a_session_answers_alike_in_process_and_over_the_wire(server, plan, script, format):
    asyncio.run(compare(server.url, plan, script, format))


async def compare(url, plan, script, format):
    """Ask both, request by request."""
    async with RawClient(url, format=format) as client:
        here = told_by(begin, plan)
        there = await told(client.create(**plan.creation()))
        if not isinstance(here, Session):
            assert there == here
            return
        pairs = [Pair(client, here, there)]
        for number, request in script:
            pair = pairs[number % len(pairs)]
            twin = await pair.ask(request)
            if twin is not None:
                pairs.append(twin)
        for pair in pairs:
            await pair.finish()
        assert client.mispaired == []


class Pair:
    """The same session twice: `here` in this process, and on the server."""

    def __init__(self, client, here, created):
        self.client, self.here, self.id = client, here, created["session"]
        assert without_times(created["record"]) == plain(here.journal[-1])

    async def ask(self, request):
        """Ask both the same and compare; return the twin where it was a fork."""
        match request:
            case Act():
                return await self._act(request)
            case Cut():
                return await self._cut(request)
            case Branch():
                return await self._fork(request)
            case Advise():
                return await self._advise()

    async def _act(self, request):
        here = self.here
        index = max(-1, len(here.journal) + request.offset)
        actions = self._actions(request)
        decisions = {} if request.note is None else {"player": {"note": request.note}}
        ours = told_by(here.step, index, actions, usage=request.usage, decisions=decisions)
        wire = {"actions": {seat: wired(action) for seat, action in actions.items()}, "decisions": decisions}
        if request.usage is not None:
            wire["usage"] = wired(request.usage)
        theirs = await told(self.client.ask("step", session=self.id, index=index, **wire))
        assert outcome(theirs) == outcome(ours)

    def _actions(self, request):
        last = self.here.journal[-1].time_step
        due = {seat: self._action(request, last.seats[seat]) for seat in last.acting}
        if request.seats == "none":
            return {}
        return due if request.seats == "due" else {**due, "nobody": "a"}

    def _action(self, request, step):
        if request.odd is not None:
            return request.odd
        legal = step.legal_actions or (["word", "", "more words"] if isinstance(step.observation, str) else [0, 1])
        return legal[request.legal % len(legal)]

    async def _cut(self, request):
        here, index = self.here, len(self.here.journal)
        if here.status == "running":
            here.spend(request.usage)
        ours = told_by(here.truncate, request.kind, request.value, 1.0)
        wire = {"limit": {"kind": request.kind, "value": request.value, "limit": 1.0}}
        if request.usage is not None and here.status != "failed":
            wire["usage"] = wired(request.usage)
        if isinstance(ours, dict):
            wire.pop("usage", None)
        theirs = await told(self.client.ask("truncate", session=self.id, index=index, **wire))
        assert outcome(theirs) == outcome(ours)

    async def _fork(self, request):
        at = len(self.here.journal) - 1 - request.back
        fresh = environment(self.here.env.spec.id, self.here.env.options.model_dump(mode="json"))
        ours = told_by(self.here.fork, fresh, at)
        theirs = await told(self.client.ask("fork", session=self.id, key=f"{self.id} {id(request)} {at}", at=at))
        if not isinstance(ours, Session):
            assert theirs == ours
            return None
        ours.journal[:] = [  # a fork by replay leaves what agents noted behind, here; the server keeps it
            msgspec.structs.replace(ours.journal[n], decisions=record.decisions)
            for n, record in enumerate(self.here.journal[: at + 1])
        ]
        return Pair(self.client, ours, theirs)

    async def _advise(self):
        ours = told_by(self.here.expert_action, "player")
        theirs = await told(self.client.ask("expert", session=self.id, seat="player"))
        assert (theirs["action"] if "action" in theirs else theirs) == (ours if isinstance(ours, dict) else wired(ours))

    async def finish(self):
        """Compare every record and the verdict."""
        read = await self.client.ask("read", session=self.id)
        assert [without_times(record) for record in read["records"]] == [plain(record) for record in self.here.journal]
        assert tuple(read.get("acting", ())) == self.here.acting
        assert read["status"] == self.here.status
        end = (await self.client.ask("close", session=self.id))["end"]
        assert without_times(end) == finish(self.here)


def told_by(ask, *args, **kwargs):
    """Return what a call returns, or its error as plain values."""
    try:
        return ask(*args, **kwargs)
    except ArenaError as error:
        return plain(error.record())


async def told(asked):
    """Return the server's reply, or its error."""
    try:
        return await asked
    except Refused as refused:
        return refused.error


def outcome(answer):
    """Return a record or an error as plain values, wherever it comes from."""
    if not isinstance(answer, dict):
        return plain(answer)
    return without_times(answer["record"]) if "record" in answer else answer


def wired(value):
    """Return a value as it travels."""
    return msgspec.msgpack.decode(encode_msgpack(value))
