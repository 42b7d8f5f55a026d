"""What players of Werewolf are told of what they must not know: nothing."""

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import arena
from arena import Session
from arena.envs.marl._werewolf_rules import NAMES, SETTINGS
from arena.types import encode_msgpack
from tests.arena.server.harness_client import RawClient, Refused
from tests.serving import running_server

from .werewolf_table import ENV, Table, numbers, plays


def knows(game, reader, chooser):
    """Return whether a player may know what another one chooses at night."""
    return reader == chooser or game.roles[reader] == game.roles[chooser] == "werewolf"


class Twin:
    """One of two games that differ in what a reader must not know, and the reader's stream of it.

    What is public is chosen by `public`, what is hidden from the reader by `secret`. The victim and whether it is
    protected are public: it is never protected, and never anybody in `spared`.
    """

    def __init__(self, table, reader, public, secret, spared=()):
        self.table, self.reader, self.spared = table, reader, spared
        self._public, self._secret = iter(public * 1000), iter(secret * 1000)
        self._victim = None
        self.stream = [self._record()]

    def _record(self):
        """Return all that the reader sees of a step: its own step, who acts, and what its experts would do."""
        table, step = self.table, self.table.now.seats.get(self.reader)
        experts = (
            [table.env.expert_action(self.reader, kind) for kind in table.env.spec.experts] if self._acts() else []
        )
        return None if step is None else encode_msgpack([step, table.now.acting, experts])

    def _acts(self):
        return self.reader in self.table.now.acting

    def step(self):
        """Take a step, and return whether there was one to take."""
        game = self.table.game
        if not self.table.now.acting:
            return False
        if game.phase == "night" and len(game.due) == len(game.living):
            eaten = [p for p in game.living if game.roles[p] != "werewolf" and p not in self.spared]
            if not eaten:
                return False
            self._victim = eaten[next(self._public) % len(eaten)]
        self.table.do(self._choose())
        self.stream.append(self._record())
        return True

    def _choose(self):
        game, player, listed = self.table.game, self.table.due, self.table.listed
        if game.phase == "talk":
            return [f"say word {next(self._public)}", "pass"][next(self._public) % 2]
        if game.phase == "vote":
            return listed[next(self._public) % len(listed)]
        pack = [other for other in game.due if game.roles[other] == "werewolf"]
        if pack == [player]:
            return f"kill {self._victim}"
        allowed = [action for action in listed if action != f"protect {self._victim}"]
        number = next(self._public if knows(game, self.reader, player) else self._secret)
        return allowed[number % len(allowed)]


@plays
@given(numbers, numbers, numbers, st.integers(0, 30), st.sampled_from(sorted(SETTINGS)), st.sampled_from(NAMES[:7]))
def test_hidden_choices_change_nothing_for_who_must_not_know_them(public, one, other, seed, setting, reader):
    """Two whole games that differ in what other roles choose at night: not a byte differs, nor an expert's move."""
    twins = [Twin(Table(seed, setting), reader, public, secret) for secret in (one, other)]
    while all([twin.step() for twin in twins]):
        pass
    assert twins[0].stream == twins[1].stream


def test_hidden_choices_do_change_something_for_who_makes_them():
    secrets = ([0], [1])
    seer = Table().who("seer")[0]
    for reader in Table().game.order:
        twins = [Twin(Table(), reader, [3], secret) for secret in secrets]
        streams = [{player: [] for player in NAMES[:7]} for _ in twins]
        for twin, told in zip(twins, streams, strict=True):
            while True:
                for player, step in twin.table.now.seats.items():
                    told[player].append(encode_msgpack(step))
                if not twin.step():
                    break
        differ = {player for player in NAMES[:7] if streams[0][player] != streams[1][player]}
        assert reader not in differ
        assert (seer in differ) == (reader != seer)


def test_a_night_in_which_nobody_was_killed_does_not_say_who_should_have_been():
    tables = [Table(), Table()]
    one, other, reader = tables[0].who("villager")
    shown = []
    for table, victim in zip(tables, (one, other), strict=True):
        table.night(kill=victim, protect=victim)
        shown.append(table.talk())
    knowing = {*tables[0].who("werewolf"), *tables[0].who("doctor")}
    differ = {player for player in NAMES[:7] if shown[0][player] != shown[1][player]}
    assert "Nobody was killed in the night." in shown[0][reader]
    assert differ == knowing


@plays
@given(numbers, numbers, st.integers(0, 40), st.integers(0, 40), st.sampled_from(sorted(SETTINGS)), st.data())
def test_roles_change_nothing_for_who_does_not_know_them_until_they_are_shown(
    public, secret, seed, other, setting, data
):
    """Two games with other roles and the same public course, for a player who is the same villager in both."""
    deals = [Table(number, setting).game.roles for number in (seed, other)]
    readers = [player for player in NAMES[:7] if all(roles[player] == "villager" for roles in deals)]
    if not readers:
        return
    reader = data.draw(st.sampled_from(readers))
    wolves = [player for roles in deals for player, role in roles.items() if role == "werewolf"]
    twins = [Twin(Table(number, setting), reader, public, secret, wolves) for number in (seed, other)]
    compared = 1
    while all([twin.step() for twin in twins]) and all(twin.table.now.acting for twin in twins):
        assert twins[0].table.game.out == twins[1].table.game.out
        shown = [[twin.table.game.roles[player] for player in twin.table.game.out] for twin in twins]
        if SETTINGS[setting].shows_roles and shown[0] != shown[1]:
            break
        compared += 1
    assert twins[0].stream[:compared] == twins[1].stream[:compared]


@plays
@given(numbers, st.integers(0, 50), st.sampled_from(sorted(SETTINGS)))
def test_who_acts_depends_on_who_is_there_and_on_nothing_secret(picks, seed, setting):
    table, pick = Table(seed, setting), iter(picks * 1000)
    order, phases = list(table.game.order), []
    while table.now.acting:
        first, living = table.game.days % 7, table.game.living
        turns = [player for player in order[first:] + order[:first] if player in living]
        phases.append(table.game.phase)
        for player in turns:
            assert (table.due, table.game.living) == (player, living)
            table.do(table.listed[next(pick) % len(table.listed)])
    cycle = ["night", "talk", "vote"] * 20
    assert phases == cycle[setting == "daybreak" :][: len(phases)]


# -- over a server -----------------------------------------------------------------------------------------------------


PRIVATE = {
    "werewolf": rb"Your role: werewolf|other werewolf is|as the victim|\bkill (?!NAME)",
    "seer": rb"Your role: seer|You see that|\binspect (?!NAME)",
    "doctor": rb"Your role: doctor|You protect|\bprotect (?!NAME)",
    "villager": rb"Your role: villager|can only sleep",
}
"""What the streams of seats with a role hold, and those of seats with another role never."""


async def play_at_seats(url, here):
    """Play a recorded episode again, each seat at a client of its own; return the clients, and what each can read."""
    async with RawClient(url) as owner:
        created = await owner.create(ENV, task=here.task.id, split="train", seed=here.seed, seats={})
        session, clients, read = created["session"], {}, {}
        for seat in here.env.possible_agents:
            clients[seat] = client = RawClient(url, keep=True)
            await client.__aenter__()
            await client.attach(created["seat_capabilities"][seat])
        for record in here.journal[1:]:
            ((agent, action),) = record.actions.items()
            other = next(seat for seat in clients if seat != agent)
            with pytest.raises(Refused):
                await clients[other].ask("act", session=session, index=record.index, action="pass")
            await clients[agent].ask("act", session=session, index=record.index, action=action)
        for seat, client in clients.items():
            read[seat] = (await client.ask("read", session=session))["seat_records"]
        await asyncio.gather(*(client.__aexit__() for client in clients.values()))
        await owner.close(session)
    return {seat: b"\n".join(client.received) for seat, client in clients.items()}, read


def test_over_a_server_no_stream_holds_anything_of_another_seat():
    here = Session(arena.make(ENV), arena.make(ENV).taskset("train").task(0), 3)
    here.open()
    while here.acting:
        here.step(len(here.journal), {here.acting[0]: here.expert_action(here.acting[0])})
    roles = here.env._game.roles
    with running_server("--workers", "1") as url:
        streams, read = asyncio.run(play_at_seats(url, here))
    endings = {record["step"].get("ending") for records in read.values() for record in records if record["step"]}
    assert endings == {None, "killed", "voted_out", "won"}
    for seat, received in streams.items():
        assert {role for role, words in PRIVATE.items() if re.search(words, received)} == {roles[seat]}
        assert f"You are {seat}. Your role".encode() in received
        assert len(re.findall(rb"You are \w+\. Your role", received)) == received.count(
            f"You are {seat}. Your role".encode()
        )
        told = [record["step"] for record in read[seat]]
        mine = [record.time_step.seats.get(seat) for record in here.journal]
        assert [step and step["observation"] for step in told] == [step and step.observation for step in mine]
        assert [step and step.get("legal_actions") for step in told] == [
            step and (None if step.legal_actions is None else list(step.legal_actions)) for step in mine
        ]
        left = seat in here.env._game.out and mine[-1] is None
        assert (b"The roles: " in received) == (not left)
