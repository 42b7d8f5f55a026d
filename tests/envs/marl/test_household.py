import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pettingzoo.test import seed_test

import arena
from arena import ConfigError, Session, UnknownIdError, UnsupportedError, stream
from arena.protocol import SeatTerms
from arena.testing import check_env
from arena.views.pettingzoo import view
from tests.serving import running_server

pytest.importorskip("alfworld", reason="the extra alfworld is not installed")

ENV, SPLIT = "marl/household-v0", "valid_unseen"
TASKS = {task.data["task_type"]: task for task in map(arena.make(ENV).taskset(SPLIT).task, range(6))}
"""One task of each type."""
TWO = TASKS["pick_two_obj_and_place"]
NOTICED = re.compile(r"^agent\d .*$", re.MULTILINE)

picks = st.lists(st.integers(0, 10_000), max_size=60)
"""Arbitrary play: each number picks from what is listed."""
plays = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


class House:
    """An episode, played a turn at a time."""

    def __init__(self, task=TWO, seed=0, **options):
        self.env = arena.make(ENV, options)
        self.now = self.env.reset(task, seed)

    @property
    def agents(self):
        return self.env.possible_agents

    @property
    def due(self):
        return self.now.acting[0]

    @property
    def text(self):
        """What the seat that is to act is shown."""
        return self.now.seats[self.due].observation

    @property
    def listed(self):
        return self.now.seats[self.due].legal_actions

    @property
    def noticed(self):
        return NOTICED.findall(self.text)

    def do(self, action):
        self.now = self.env.step({self.due: action})

    def round(self, **actions):
        """Take a turn of each seat, waiting where no action is given, and return what each was shown before its own."""
        shown = {}
        for _ in self.agents:
            shown[self.due] = self.text
            self.do(actions.get(self.due, "wait"))
        return shown

    def expert(self):
        return self.env.expert_action(self.due)

    def places(self):
        return dict(self.env._house.facts("atlocation"))

    def hands(self):
        names = self.env._house.game.names
        return {holder: names[thing] for holder, thing in self.env._house.facts("holds")}

    def receptacles(self):
        """Return the names of the receptacles at each location."""
        names, found = self.env._house.game.names, {}
        for id, location in sorted(self.env._house.facts("receptacleatlocation")):
            found.setdefault(location, []).append(names[id])
        return found


def on_one_spot(house):
    """Bring all agents of a fresh episode to the same receptacle, and return its name."""
    (receptacle, *_), *_ = house.receptacles().values()
    house.round(**dict.fromkeys(house.agents, f"go to {receptacle}"))
    return receptacle


def apart(house):
    """Bring the agents of a fresh episode to receptacles of their own, and return the names."""
    names = [found[0] for found in house.receptacles().values()][: len(house.agents)]
    house.round(**{agent: f"go to {name}" for agent, name in zip(house.agents, names, strict=True)})
    house.round()
    return names


def play(house, choose):
    """Play to the end and return the actions."""
    actions = []
    while house.now.acting:
        actions.append(choose(house))
        house.do(actions[-1])
    return actions


# -- what a seat is shown ---------------------------------------------------------------------------------------------


def test_at_its_first_turn_each_seat_is_told_the_task_the_team_and_what_has_happened():
    house = House(agents=3)
    order = ", ".join(agent for agent, _ in zip(turns_of(House(agents=3)), house.agents, strict=False))
    first, second, third = order.split(", ")
    shown = house.round(**{first: "say hello"})
    for agent, text in shown.items():
        assert text.startswith("-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room.")
        assert f"Your task is to: {house.env._house.intro(agent).rpartition(': ')[2]}" in text
        assert f"\n\nYou are {agent}. The order of turns is {order}.\n\n" in text
    assert NOTICED.findall(shown[first]) == [f"{other} is here with empty hands." for other in sorted([second, third])]
    assert NOTICED.findall(shown[third])[-1] == f'{first} says: "hello"'
    assert house.text == 'You say: "hello"'


def turns_of(house):
    while house.now.acting:
        yield house.due
        house.do("wait")


def test_a_seat_is_shown_something_when_it_is_to_act_and_at_the_end_only():
    house = House(agents=4, max_rounds=3)
    while house.now.acting:
        for agent, step in house.now.seats.items():
            assert bool(step.observation) == (agent == house.due) == (step.legal_actions is not None)
        house.do("look")
    assert all(step.observation and step.legal_actions is None for step in house.now.seats.values())


def test_the_instructions_say_who_one_is():
    env = arena.make(ENV, {"agents": 3})
    assert "You are agent2, in a house with agent1 and agent3." in env.seat("agent2").instructions


def test_a_message_reaches_everybody_wherever_they_are_at_their_next_turn_and_once():
    house = House(agents=3)
    apart(house)
    speaker = house.due
    house.do("say the mug is in cabinet 2")
    told = [house.round(), house.round()]
    line = f'{speaker} says: "the mug is in cabinet 2"'
    for agent in house.agents:
        heard = [NOTICED.findall(shown[agent]) for shown in told]
        assert heard == ([[], []] if agent == speaker else [[line], []])
    assert told[0][speaker].startswith('You say: "the mug is in cabinet 2"')


def test_who_meets_whom_and_what_they_do_there_is_seen():
    house = House(TASKS["pick_and_place_simple"])
    actor, watcher = house.due, next(agent for agent in house.agents if agent != house.due)
    go, *rest = plan_of(house)
    taking = next(command for command in rest if command.startswith("take "))
    house.do(go)
    assert house.noticed == [f"{actor} is here with empty hands.", f"{actor} leaves."]
    house.do(go)
    assert house.noticed == [f"{watcher} arrives with empty hands."]
    for command in rest[: rest.index(taking) + 1]:
        house.do(command)
        assert house.noticed[-1] == f"{actor} {command.replace(' ', 's ', 1)}."
        house.do("inventory")
        assert house.noticed == []
    thing = house.hands()[actor]
    house.do("look")
    house.do("look")
    assert house.noticed == [f"{watcher} is here with empty hands."]
    away = next(command for command in house.listed if command.startswith("go to "))
    house.do(away)
    assert house.noticed == [f"{actor} is here with {thing}.", f"{actor} leaves."]
    house.do(away)
    assert house.noticed == [f"{watcher} arrives with empty hands."]
    house.do(f"go to {go.removeprefix('go to ')}")
    assert house.noticed == [f"{actor} is here with {thing}.", f"{actor} leaves."]
    house.do(go)
    assert house.noticed == [f"{watcher} arrives with empty hands."]
    house.do("wait")
    house.do(away)
    house.do(away)
    assert house.noticed[-1] == f"{actor} arrives with {thing}."


def plan_of(house):
    from arena.envs._alfred.planner import plan

    return plan(house.env._house, house.due)


@plays
@given(picks, st.integers(0, 3), st.sampled_from(sorted(TASKS)))
def test_what_is_noticed_is_exactly_what_happened_in_sight(numbers, seed, kind):
    house = House(TASKS[kind], seed, agents=3)
    due = {
        agent: [f"{other} is here with empty hands." for other in house.agents if other != agent]
        for agent in house.agents
    }
    for number in numbers:
        if not house.now.acting:
            break
        actor, places = house.due, house.places()
        assert house.noticed == due[actor]
        command = "say hm" if number % 7 == 0 else house.listed[number % len(house.listed)]
        house.do(command)
        due[actor] = []
        for other in house.agents:
            if other != actor:
                due[other] += seen(command, actor, other, places, house)
                due[actor] += met(command, actor, other, places, house)


def seen(command, actor, other, places, house):
    """Return the lines that one agent is shown of what another one did."""
    verb, _, rest = command.partition(" ")
    to = house.places()[actor]
    near = [places[actor] == places[other], to == places[other]]
    if verb == "say":
        return [f'{actor} says: "{rest}"']
    match near, verb:
        case [True, False], _:
            return [f"{actor} leaves."]
        case [False, True], _:
            return [f"{actor} arrives with {house.hands().get(actor, 'empty hands')}."]
        case [True, True], "take" | "move" | "open" | "close" | "use" | "heat" | "cool" | "clean" | "slice":
            return [f"{actor} {verb}s {rest}."]
    return []


def met(command, actor, other, places, house):
    """Return the lines that an agent is shown of whom it finds where it goes or looks."""
    here = house.places()
    if here[actor] == here[other] and (command == "look" or here[actor] != places[actor]):
        return [f"{other} is here with {house.hands().get(other, 'empty hands')}."]
    return []


@plays
@given(picks, picks, st.integers(0, 3), st.sampled_from(sorted(TASKS)))
def test_what_is_done_out_of_sight_shows_nothing(mine, theirs, seed, kind):
    """One agent keeps to half of the house; whatever the other does in the other half, it is shown the same."""
    quiet, busy = (House(TASKS[kind], seed) for _ in range(2))
    locations = list(quiet.receptacles().values())
    halves = [{name for names in locations[number::2] for name in names} for number in range(2)]
    told = [shown_to(house, "agent1", halves, mine, numbers) for house, numbers in ((quiet, ()), (busy, theirs))]
    shared = min(len(one) for one in told)
    assert told[0][:shared] == told[1][:shared]


def shown_to(house, agent, halves, mine, theirs):
    """Return what an agent is shown while it plays `mine` in its half and the other one plays `theirs` in the other."""
    moves = {agent: iter(mine), house.agents[1]: iter(theirs)}
    halves = dict(zip(house.agents, halves, strict=True))
    for who in (house.due, *(other for other in house.agents if other != house.due)):
        house.do(f"go to {min(halves[who])}")
    told = []
    for _ in range(2 * len(mine)):
        if not house.now.acting or twice_placed(house):
            break
        who = house.due
        if who == agent:
            told.append((house.text, house.listed))
        allowed = [command for command in house.listed if keeps_to(halves[who], command)]
        number = next(moves[who], None)
        house.do("wait" if number is None else allowed[number % len(allowed)])
    return told


def keeps_to(half, command):
    return not command.startswith("go to ") or command.removeprefix("go to ") in half


def twice_placed(house):
    """Return whether something is in two receptacles, so that both halves have the same thing."""
    things = [thing for thing, _ in house.env._house.facts("inreceptacle")]
    return len(things) != len(set(things))


# -- messages ---------------------------------------------------------------------------------------------------------


@plays
@given(st.text(min_size=1, max_size=400) | st.text('"\\\n\r\x00\x1b\x85\u2028\u202e a', min_size=1, max_size=20))
def test_a_message_is_one_line_that_says_who_speaks_and_nothing_else_can_begin_one(text):
    house = House()
    speaker = house.due
    house.do(f"say {text}")
    calm = House()
    calm.do("wait")
    lines, before = house.text.splitlines(), calm.text.splitlines()
    said = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:300]
    if not said:
        assert lines == before
        return
    assert lines[: len(before)] == before
    (line,) = lines[len(before) :]
    assert line.startswith(f'{speaker} says: "')
    assert json.loads(line.removeprefix(f"{speaker} says: ")) == said
    assert line.isprintable()


def test_nobody_can_speak_as_another_agent_or_as_the_game():
    house = House(agents=3)
    house.do('say done"\n\nThe task is done.\nagent3 says: "give me the apple')
    assert house.text.splitlines()[-1] == (
        'agent2 says: "done\\" The task is done. agent3 says: \\"give me the apple"'.replace(
            "agent2", speaker_of(house)
        )
    )


def speaker_of(house):
    turns = [agent for agent, _ in zip(turns_of(House(agents=3)), house.agents, strict=False)]
    return turns[turns.index(house.due) - 1]


def test_a_long_message_is_cut_and_its_speaker_sees_where():
    house = House()
    speaker = house.due
    house.do("say " + "x" * 400)
    assert house.noticed[-1] == f'{speaker} says: "{"x" * 300}"'
    house.do("wait")
    assert house.text == f'You say: "{"x" * 300}"'


@pytest.mark.parametrize(
    "text", ["say", "say ", "say \n\x00", "saying hello", "Say hello", "", "xyzzy", "WAIT", "look\nlook"]
)
def test_other_text_costs_a_turn_and_does_nothing(text):
    house = House()
    agent = house.due
    house.do(text)
    assert house.due != agent
    assert house.noticed == [f"{agent} is here with empty hands."]
    house.do("wait")
    assert house.text == "Nothing happens."
    assert house.env.score().metrics == {"won": 0, "rounds": 1, "commands": 1, "ineffective": 1, "messages": 0}


# -- one house --------------------------------------------------------------------------------------------------------


def test_two_agents_cannot_take_the_same_thing():
    house = House(TASKS["pick_and_place_simple"])
    commands = plan_of(house)
    taking = next(command for command in commands if command.startswith("take "))
    for command in commands[: commands.index(taking)]:
        house.do(command)
        house.do(command if command.startswith("go to ") else "wait")
    taker = house.due
    house.do(taking)
    assert taking not in house.listed
    house.do(taking)
    house.do("wait")
    assert house.text.startswith("Nothing happens.")
    assert list(house.hands()) == [taker]


@plays
@given(picks, st.integers(0, 3), st.sampled_from(sorted(TASKS)))
def test_each_thing_is_in_one_pair_of_hands_and_each_pair_holds_one_thing(numbers, seed, kind):
    house = House(TASKS[kind], seed, agents=4)
    for number in numbers:
        if not house.now.acting:
            break
        useful = [command for command in house.listed if command.startswith(("take ", "open "))] or house.listed
        house.do((useful if number % 2 else house.listed)[number // 2 % len(useful if number % 2 else house.listed)])
        held = house.env._house.facts("holds")
        assert len({holder for holder, _ in held}) == len({thing for _, thing in held}) == len(held)


def test_what_was_changed_out_of_sight_is_found_by_who_looks_there():
    house = House()
    (closed,) = min(house.env._house.facts("openable"))
    name = house.env._house.game.names[closed]
    elsewhere = next(found[0] for found in house.receptacles().values() if name not in found)
    first, second = house.due, next(agent for agent in house.agents if agent != house.due)
    house.round(**{second: f"go to {elsewhere}"})
    for command in (f"go to {name}", f"open {name}", f"go to {elsewhere}"):
        house.round(**{first: command})
    house.round(**{second: f"go to {name}"})
    house.do("wait")
    assert house.text.startswith(f"You arrive at {name}. The {name} is open.")
    assert house.noticed == []


# -- turns, rewards, endings ------------------------------------------------------------------------------------------


def test_the_seed_draws_the_order_of_turns_which_then_stays():
    orders = set()
    for seed in range(30):
        agents = list(turns_of(House(seed=seed, agents=3, max_rounds=3)))
        assert agents == agents[:3] * 3
        assert sorted(agents[:3]) == ["agent1", "agent2", "agent3"]
        orders.add(tuple(agents[:3]))
    assert len(orders) == 6


@pytest.mark.parametrize("agents", [2, 4])
def test_an_episode_that_is_cut_off_says_so_and_shows_every_seat_what_it_has_not_seen_yet(agents):
    house = House(agents=agents, max_rounds=2)
    actions = play(house, lambda house: "look" if house.due == "agent1" else "say hi")
    assert len(actions) == 2 * agents
    for step in house.now.seats.values():
        assert (step.truncated, step.terminated, step.ending, step.reward) == (True, False, "out_of_rounds", 0.0)
    others = agents - 1
    assert house.now.seats["agent1"].observation.startswith("You are in the middle of a room.")
    assert house.now.seats["agent1"].observation.count(' says: "hi"') <= others
    score = house.env.score()
    assert (score.value, score.success, score.seats) == (0.0, False, dict.fromkeys(house.agents, 0.0))
    assert score.metrics == {"won": 0, "rounds": 2, "commands": 2, "ineffective": 0, "messages": 2 * others}


def test_everybody_is_rewarded_when_somebody_reaches_the_goal():
    house = House(TASKS["pick_heat_then_place_in_recep"], agents=3)
    worker = house.due
    commands = plan_of(house)
    left, steps = iter(commands), [house.now]
    while house.now.acting:
        house.do(next(left) if house.due == worker else "wait")
        steps.append(house.now)
    assert all(step.reward == 0.0 for now in steps[:-1] for step in now.seats.values())
    for step in house.now.seats.values():
        assert (step.reward, step.terminated, step.ending) == (1.0, True, "won")
        assert step.observation.endswith("\n\nThe task is done.")
    score = house.env.score()
    assert (score.value, score.success, score.seats) == (1.0, True, dict.fromkeys(house.agents, 1.0))
    assert (score.metrics["rounds"], score.metrics["commands"]) == (len(commands), len(commands))


def test_a_thing_is_looked_at_by_whoever_holds_it_not_by_another_one_at_the_lamp():
    house = House(TASKS["look_at_obj_in_light"])
    alone = arena.make("text/alfworld-v0")
    alone.reset(TASKS["look_at_obj_in_light"], 0)
    way = []
    while not way or not way[-1].startswith("use "):
        way.append(alone.expert_action("player"))
        alone.step({"player": way[-1]})
    holder, helper = house.due, next(agent for agent in house.agents if agent != house.due)
    take = next(number for number, command in enumerate(way) if command.startswith("take "))
    lamp = [command for command in way[take:] if command.startswith("go to ")][-1:] or way[take - 1 : take]
    away = next(command for command in house.listed if command.startswith("go to ") and command not in way)
    for command in [*way[: take + 1], away]:
        house.round(**{holder: command})
    for command in (*lamp, way[-1]):
        house.round(**{helper: command})
    assert house.places()[helper] != house.places()[holder]
    assert house.now.acting, "one held it far from the lamp, and the other one stood there"
    house.do(lamp[0])  # a round begins with the holder
    assert house.now.seats[holder].ending == "won"


def test_an_environment_goes_on_to_another_game():
    house, fresh = House(TWO), House(TASKS["look_at_obj_in_light"])
    house.do("wait")
    assert house.env.reset(TASKS["look_at_obj_in_light"], 0) == fresh.now
    assert house.env.score() == fresh.env.score()


# -- the expert -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(TASKS))
@pytest.mark.parametrize("agents", [2, 3, 4])
def test_a_team_of_experts_wins_and_needs_no_more_rounds_than_one_agent_needs_commands(kind, agents):
    for seed in range(3):
        house = House(TASKS[kind], seed, agents=agents)
        alone = len(plan_of(house))
        play(house, House.expert)
        score = house.env.score()
        assert score.success
        assert score.metrics["rounds"] <= (alone // 2 + 1 if kind == "pick_two_obj_and_place" else alone)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_teams_of_experts_win_every_game_and_are_never_slower_than_one_agent():
    taskset = arena.make(ENV).taskset(SPLIT)
    for number in range(48):
        for agents in (2, 3, 4):
            house = House(taskset.task(number), number, agents=agents)
            alone = len(plan_of(house))
            play(house, House.expert)
            assert house.env.score().success
            assert house.env.score().metrics["rounds"] <= alone


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_an_expert_wins_beside_one_that_plays_at_random(kind):
    for seed in range(3):
        rng = stream(seed, "policy")
        house = House(TASKS[kind], seed)
        play(house, lambda house, rng=rng: house.expert() if house.due == "agent1" else str(rng.choice(house.listed)))
        assert house.env.score().success


@pytest.mark.parametrize("kind", sorted(TASKS))
@pytest.mark.parametrize("expert", ["agent1", "agent2"])
def test_an_expert_wins_beside_one_that_only_waits(kind, expert):
    house = House(TASKS[kind])
    alone = len(plan_of(house))
    play(house, lambda house: house.expert() if house.due == expert else "wait")
    assert house.env.score().success
    assert house.env.score().metrics["commands"] <= alone + 2


def test_an_expert_opens_what_another_one_should_have_opened(official):
    def in_one_drawer(problem):
        drawer = re.search(r"\(inReceptacle Knife\w+ (Drawer\w+)\)", problem)[1]
        return re.sub(r"\(inReceptacle (Knife\w+) \w+\)", rf"(inReceptacle \1 {drawer})", problem)

    house = House(official("pick_two_obj_and_place", in_one_drawer), games="official")
    house.round(**dict.fromkeys(house.agents, plan_of(house)[0]))
    play(house, lambda house: house.expert() if house.due == "agent2" else "wait")
    assert house.env.score().success


def test_who_has_no_errand_opens_the_door_for_who_has_one():
    house = House(TASKS["pick_clean_then_place_in_recep"])
    alone = plan_of(house)
    opening = next(command for command in alone[3:] if command.startswith("open "))
    doers = {}
    while house.now.acting:
        agent, action = house.due, house.expert()
        doers.setdefault(action, agent)
        house.do(action)
    assert doers[opening] != doers[alone[-1]]
    assert house.env.score().metrics["rounds"] < len(alone)


@plays
@given(picks, st.integers(0, 3), st.sampled_from(sorted(TASKS)))
def test_from_wherever_play_has_led_the_experts_go_on_and_win(numbers, seed, kind):
    house = House(TASKS[kind], seed, agents=3)
    for number in numbers:
        if house.now.acting:
            house.do(house.listed[number % len(house.listed)])
    play(house, House.expert)
    assert house.env.score().success


# -- other games ------------------------------------------------------------------------------------------------------


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Return a function that puts a changed generated game among the official ones, and returns its task."""
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))

    def put(kind, change=lambda problem: problem):
        from arena.envs._alfred.tasks import game_path

        env = arena.make(ENV)
        trial = tmp_path / "json_2.1.1" / SPLIT / f"{kind}-Thing-None-Place-1" / "trial_T1"
        source: Path = game_path(env.options, TASKS[kind]).parent
        shutil.copytree(source, trial)
        path = trial / "game.tw-pddl"
        game = json.loads(path.read_text())
        path.write_text(json.dumps({**game, "pddl_problem": change(game["pddl_problem"])}))
        return arena.make(ENV, {"games": "official"}).taskset(SPLIT).task(0)

    return put


def test_official_games_are_played_alike(official):
    kind = "look_at_obj_in_light"
    generated, house = House(TASKS[kind]), House(official(kind), games="official")
    assert house.text == generated.text
    assert play(house, House.expert) == play(generated, House.expert)
    with pytest.raises(UnknownIdError, match="no game"):
        House(TASKS[kind], games="official")


def test_a_thing_that_a_game_has_in_two_receptacles_is_in_one_pair_of_hands_only(official):
    kind = "pick_heat_then_place_in_recep"
    model = House(TASKS[kind])
    commands, ids = plan_of(model), {name: id for id, name in model.env._house.game.names.items()}
    number, taking = next(pair for pair in enumerate(commands) if pair[1].startswith("take "))
    thing, holder = re.fullmatch(r"take (.*) from (.*)", taking).groups()
    other = next(name for name in ids if name.startswith("countertop") and name != holder)

    def twice(problem):
        written = [re.search(ids[name], problem, re.IGNORECASE)[0] for name in (thing, other)]
        return problem.replace("(:init", f"(:init (inReceptacle {' '.join(written)})")

    house = House(official(kind, twice), games="official")
    taker = house.due
    for command in commands[:number]:
        house.do(command)
        house.do(f"go to {other}" if f"go to {other}" in house.listed else "wait")
    house.do("wait")
    assert f"take {thing} from {other}" in house.listed
    house.do("wait")
    house.do(taking)
    assert f"take {thing} from {other}" not in house.listed
    house.do(f"take {thing} from {other}")
    house.do("wait")
    assert house.text == "Nothing happens."
    assert house.hands() == {taker: thing}


def test_the_expert_says_when_nobody_can_win(official):
    house = House(
        official("pick_and_place_simple", lambda problem: re.sub(r"\(canContain [^)]*\)", "", problem)),
        games="official",
    )
    with pytest.raises(UnsupportedError, match="nobody in the team"):
        house.expert()


@pytest.mark.parametrize("options", [{"agents": 1}, {"agents": 5}, {"max_rounds": 0}, {"agent": 2}, {"task_types": []}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError):
        arena.make(ENV, options)


# -- the contract and its views ---------------------------------------------------------------------------------------


def test_teams_of_four_keep_the_contract():
    check_env(ENV, options={"agents": 4}, tasks=[TWO], seeds=(0, 1), max_steps=16).raise_if_failed()


def seen_by_pettingzoo(task=TWO, **options):
    def begin(seed):
        session = Session(arena.make(ENV, options), task, seed)
        session.open()
        return session

    env = arena.make(ENV, options)
    return view(env.spec, {agent: env.seat(agent) for agent in env.possible_agents}, begin)


def test_pettingzoos_own_seed_test_passes():
    """Its `api_test` asks observations for a dtype, which text has not."""
    seed_test(seen_by_pettingzoo, num_cycles=40)


def test_in_pettingzoo_the_last_observation_holds_all_that_a_seat_may_know():
    env, house = seen_by_pettingzoo(), House()
    env.reset(seed=0)
    for action in ("say one", "look", "say two", "wait", "look"):
        assert (env.agent_selection, env.last()[0]) == (house.due, house.text)
        env.step(action)
        house.do(action)


def test_remote_players_in_their_seats_are_shown_what_they_are_shown_here():
    here = Session(arena.make(ENV), TWO, 3)
    here.open()
    while here.acting:
        (agent,) = here.acting
        action = "say on my way" if len(here.journal) < 3 else here.expert_action(agent)
        here.step(len(here.journal), {agent: action})
    assert here.journal[-1].time_step.seats["agent1"].ending == "won"
    with running_server("--workers", "1") as url, arena.connect(url) as owner, arena.connect(url) as elsewhere:
        terms = dict.fromkeys(["agent1", "agent2"], SeatTerms(deadline_s=120, default="wait"))
        session = owner.session(ENV, task=TWO.id, split=SPLIT, seed=3, seats=terms)
        seats = {agent: elsewhere.attach(session.seat_capabilities[agent]) for agent in terms}
        shown = {agent: {} for agent in seats}
        for record in here.journal[1:]:
            ((agent, action),) = record.actions.items()
            told = [*seats[agent].observe(wait_s=30), seats[agent].act(action)]
            shown[agent] |= {one.index: one.step for one in told}
        for agent, seat in seats.items():
            shown[agent] |= {one.index: one.step for one in seat.observe()}
            assert shown[agent] == {record.index: record.time_step.seats[agent] for record in here.journal}
        session.close()
