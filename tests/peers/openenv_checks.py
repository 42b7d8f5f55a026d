"""The unmodified `openenv` package against Arena: its clients, its models of HTTP, its own validation."""

import asyncio
import json
import os
from types import SimpleNamespace

import httpx
import pytest
from openenv.cli._validation import validate_running_environment
from openenv.core import EnvClient, GenericEnvClient
from openenv.core.client_types import StepResult
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation, ListToolsAction
from openenv.core.env_server.types import (
    Action,
    EnvironmentMetadata,
    HealthResponse,
    Observation,
    ResetResponse,
    SchemaResponse,
    State,
    StepResponse,
)
from openenv.core.mcp_client import MCPToolClient
from openenv.validation.graders.runtime import ObservationSchemaGrader, RewardWellFormedGrader, StateContractGrader
from openenv.validation.runtime.collector import collect_runtime_evidence
from openenv.validation.runtime.contracts import RuntimePlan, RuntimeReset
from openenv.validation.types import CheckStatus

URL, GUARDED_URL, TOKEN = (os.environ[name] for name in ("PEERS_URL", "PEERS_GUARDED_URL", "PEERS_TOKEN"))
with open(os.environ["PEERS_EXPECTED"]) as file:
    EXPECTED = json.load(file)


def label(case):
    return f"{case['env']}-{case['task']}-{case['seed']}-{len(case['actions'])}"


def address(case, url=URL):
    return f"{url}/openenv/{case['env']}"


def reset_arguments(case):
    return {"seed": case["seed"], "task": case["task"], "split": case["split"], **case.get("options", {})}


def check_episode(case, first, steps):
    """Compare an episode's results with what the same episode gave in Arena's own process."""
    assert first.reward is None
    assert first.done is False
    assert [result.observation["text"] for result in [first, *steps]] == case["texts"]
    assert [result.reward for result in steps] == case["rewards"]
    assert [result.done for result in steps] == [False] * (len(steps) - 1) + [True]
    last = steps[-1].metadata
    assert (last["ending"], last["terminated"], last["truncated"]) == (case["ending"], case["terminated"], False)
    assert last["score"]["value"] == case["score"]


cases = pytest.mark.parametrize("case", EXPECTED, ids=label)


# -- the generic client ---------------------------------------------------------------------------------------------


@cases
def test_the_async_client_plays_a_whole_episode(case):
    async def play():
        async with GenericEnvClient(base_url=address(case)) as env:
            first = await env.reset(**reset_arguments(case))
            steps = [await env.step({"message": action}) for action in case["actions"]]
            return first, steps, await env.state()

    first, steps, state = asyncio.run(play())
    check_episode(case, first, steps)
    assert state["step_count"] == len(steps)
    assert state["done"] is True


@cases
def test_the_sync_client_plays_a_whole_episode(case):
    with GenericEnvClient(base_url=address(case)).sync() as env:
        first = env.reset(**reset_arguments(case))
        check_episode(case, first, [env.step({"message": action}) for action in case["actions"]])


def test_many_resets_on_one_connection_and_what_the_seed_does():
    one, two = EXPECTED[0], EXPECTED[1]
    assert one["actions"] != two["actions"], "the seeds must differ in effect, or this shows nothing"
    with GenericEnvClient(base_url=address(one)).sync() as env:
        for case in (one, two, one, two):
            first = env.reset(**reset_arguments(case))
            check_episode(case, first, [env.step({"message": action}) for action in case["actions"]])


def test_sessions_at_the_same_time_do_not_mix():
    async def play(env, case):
        first = await env.reset(**reset_arguments(case))
        check_episode(case, first, [await env.step({"message": action}) for action in case["actions"]])

    async def play_all():
        async with GenericEnvClient(base_url=address(EXPECTED[0])) as env:
            others = [await env.new_session() for _ in range(7)]
            await asyncio.gather(*(play(each, EXPECTED[n % 3]) for n, each in enumerate([env, *others])))

    asyncio.run(play_all())


def test_a_refused_action_is_an_error_after_which_the_session_goes_on():
    case = EXPECTED[0]
    with GenericEnvClient(base_url=address(case)).sync() as env:
        first = env.reset(**reset_arguments(case))
        with pytest.raises(RuntimeError, match=r"legal.*EXECUTION_ERROR"):
            env.step({"message": "65"})
        with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
            env.step({"text": "6"})
        check_episode(case, first, [env.step({"message": action}) for action in case["actions"]])
        with pytest.raises(RuntimeError, match="over"):
            env.step({"message": "1"})


def test_arguments_that_mean_nothing_are_dropped_and_wrong_ones_are_refused():
    with GenericEnvClient(base_url=address(EXPECTED[0])).sync() as env:
        assert env.reset(seed=1, prompt="from a data set").metadata["ignored"] == ["prompt"]
        with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
            env.reset(task="no such task")
        with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
            env.reset(seed="one")


def test_an_unknown_environment_and_one_with_several_seats_say_why():
    for env_id, reason in (("text/gess-v0", "text/guess-v0"), ("play/nim-v0", "one agent")):
        client = GenericEnvClient(base_url=f"{URL}/openenv/{env_id}").sync()
        with client, pytest.raises(RuntimeError, match=reason):
            client.reset()


def test_a_lost_connection_is_taken_up_again():
    case = EXPECTED[0]

    async def play():
        lost = GenericEnvClient(base_url=address(case))
        await lost.connect()
        steps = []
        first = await lost.reset(**reset_arguments(case))
        steps.append(await lost.step({"message": case["actions"][0]}))
        capability = (await lost.state())["session_id"]
        lost._ws.transport.abort()
        async with GenericEnvClient(base_url=address(case), headers={"X-Session-ID": capability}) as found:
            assert (await found.state())["step_count"] == 1
            steps += [await found.step({"message": action}) for action in case["actions"][1:]]
        await lost.close()
        return first, steps

    check_episode(case, *asyncio.run(play()))


def test_a_server_with_tokens_wants_one():
    case = EXPECTED[0]
    with GenericEnvClient(base_url=address(case, GUARDED_URL)).sync() as env, pytest.raises(RuntimeError):
        env.reset()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with GenericEnvClient(base_url=address(case, GUARDED_URL), headers=headers).sync() as env:
        first = env.reset(**reset_arguments(case))
        check_episode(case, first, [env.step({"message": action}) for action in case["actions"]])


# -- a typed client -------------------------------------------------------------------------------------------------


class GuessAction(Action):
    message: str


class GuessObservation(Observation):
    """Unknown fields are refused, so this is all that Arena may send."""

    text: str
    legal_actions: list[str] | None = None
    instructions: str | None = None


class GuessEnv(EnvClient[GuessAction, GuessObservation, State]):
    def _step_payload(self, action):
        return action.model_dump()

    def _parse_result(self, payload):
        observation = GuessObservation(**payload["observation"], reward=payload["reward"], done=payload["done"])
        return StepResult(observation=observation, reward=payload["reward"], done=payload["done"])

    def _parse_state(self, payload):
        return State(**payload)


def test_a_typed_client_plays_a_whole_episode():
    case = EXPECTED[0]
    with GuessEnv(base_url=address(case)).sync() as env:
        first = env.reset(**reset_arguments(case), episode_id="typed").observation
        assert first.instructions
        assert first.legal_actions == [str(n) for n in range(1, 65)]
        assert first.metadata["episode_id"] == "typed"
        seen = [env.step(GuessAction(message=action)).observation for action in case["actions"]]
        assert [observation.text for observation in seen] == case["texts"][1:]
        assert [observation.reward for observation in seen] == case["rewards"]
        assert seen[-1].metadata["ending"] == case["ending"]
        state = env.state()
        assert (state.episode_id, state.step_count) == ("typed", len(seen))


# -- tools ----------------------------------------------------------------------------------------------------------

SAFE = f"{URL}/openenv/play/safe-v0"


def test_the_tool_client_lists_and_calls_tools():
    async def play():
        async with MCPToolClient(base_url=SAFE) as env:
            await env.reset(seed=4)
            assert {tool.name for tool in await env.list_tools()} == {"turn", "listen", "env_reset"}
            for _ in range(3):
                heard = await env.call_tool("listen")
                told = await env.call_tool("turn", digit=int(heard.split()[2]))
            with pytest.raises(RuntimeError, match="over"):
                await env.call_tool("listen")
            return told, (await env.state()).step_count

    assert asyncio.run(play()) == ("The safe is open.", 6)


def test_tool_actions_over_steps():
    with GenericEnvClient(base_url=SAFE).sync() as env:
        listed = env.step(ListToolsAction()).observation["tools"]
        assert [tool["name"] for tool in listed] == ["turn", "listen", "reset"]
        env.reset(seed=4)
        heard = env.step(CallToolAction(tool_name="listen"))
        answer = CallToolObservation(**heard.observation, reward=heard.reward, done=heard.done)
        assert answer.result.startswith("You hear")
        refused = env.step(CallToolAction(tool_name="turn", arguments={"digit": 9}))
        assert CallToolObservation(**refused.observation).error.error_type.value == "invalid_args"


# -- HTTP -----------------------------------------------------------------------------------------------------------


@cases
def test_http_plays_a_whole_episode_in_openenvs_models(case):
    with httpx.Client(base_url=address(case), timeout=60) as http:
        first = ResetResponse(**http.post("/reset", json=reset_arguments(case)).json())
        steps = []
        for action in case["actions"]:
            steps.append(StepResponse(**http.post("/step", json={"action": {"message": action}}).json()))
        check_episode(case, first, steps)
        assert State(**http.get("/state").json()).step_count == len(steps)


def test_http_describes_the_environment_in_openenvs_models():
    with httpx.Client(base_url=address(EXPECTED[0])) as http:
        schema = SchemaResponse(**http.get("/schema").json())
        assert schema.action["required"] == ["message"]
        assert EnvironmentMetadata(**http.get("/metadata").json()).name == "text/guess-v0"
        assert HealthResponse(**http.get("/health").json()).status.value == "healthy"
        http.post("/reset", json={"seed": 1, "task": "range-64"})
        assert http.post("/step", json={"action": {"word": "1"}}).status_code == 422


@pytest.mark.parametrize("env", ["text/guess-v0", "text/textworld-v0", "play/safe-v0", "play/dial-v0"])
def test_openenvs_own_check_of_a_running_environment_passes(env):
    report = validate_running_environment(f"{URL}/openenv/{env}")
    assert report["passed"], report["summary"]
    assert (report["mode"], report["standard_profile"]) == ("simulation", "openenv-http/1.x")


PLANS = {
    "text/guess-v0": ([0, 1], {"task": "range-64"}, [{"message": "32"}, {"message": "16"}]),
    "text/textworld-v0": ([0, 1], {}, [{"message": "look"}, {"message": "inventory"}]),
    "play/safe-v0": ([0, 1], {}, [{"type": "call_tool", "tool_name": "listen"}] * 2),
    "play/dial-v0": ([0, 1], {}, [{"action_id": 1}, {"action_id": 2}]),
}


@pytest.mark.parametrize("env", PLANS)
@pytest.mark.parametrize("grader", [RewardWellFormedGrader, ObservationSchemaGrader, StateContractGrader])
def test_openenvs_own_graders_find_the_contracts_kept(env, grader):
    reward_range, options, actions = PLANS[env]
    reset = RuntimeReset(episode_id="graded", seed=4, options=options)
    plan = RuntimePlan(plan_schema_version="1", reset=reset, actions=actions)
    evidence = collect_runtime_evidence(f"{URL}/openenv/{env}", plan, episode_timeout_s=60)
    assert evidence.failure_reason is None
    manifest = SimpleNamespace(reward=SimpleNamespace(range=reward_range))
    result = grader().run(SimpleNamespace(runtime_evidence=evidence, manifest=manifest))
    assert result.status is CheckStatus.PASS, result.evidence
