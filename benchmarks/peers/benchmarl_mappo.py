"""BenchMARL's MAPPO on PettingZoo's simple_spread, in turns: run by `benchmarks.marl` with BenchMARL's own Python.

Its argument is JSON. With actions it prints what a game shows to them. With settings it trains: it prints a line of
JSON when all is built, waits for a line on its standard input, trains for a turn, prints what that took, and so on;
after the last turn it waits once more, plays greedily, and prints the returns. Only turns are on the clock.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from typing import Any

import torch
from benchmarl.algorithms import MappoConfig
from benchmarl.environments import PettingZooTask
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from pettingzoo.mpe import simple_spread_v3
from torchrl.envs.utils import ExplorationType, set_exploration_type


def say(line: Any) -> None:
    """Print a line of JSON."""
    print(json.dumps(line), file=sys.__stdout__, flush=True)


def trace(seed: int, actions: list[list[int]]) -> dict[str, Any]:
    """Return what an episode shows to given actions: observations and rewards of every step, agent by agent."""
    env = simple_spread_v3.parallel_env(N=3, local_ratio=0.5, max_cycles=len(actions), continuous_actions=False)
    first, _ = env.reset(seed=seed)
    agents = list(env.agents)
    shown, rewards, over = [[first[agent].tolist() for agent in agents]], [], []
    for joint in actions:
        seen, received, _, truncated, _ = env.step(dict(zip(agents, joint, strict=True)))
        shown.append([seen[agent].tolist() for agent in agents])
        rewards.append([float(received[agent]) for agent in agents])
        over.append(all(truncated.values()))
    return {"observations": shown, "rewards": rewards, "over": over}


def experiment(given: dict[str, Any], folder: str, callback: Any) -> Any:
    """Return BenchMARL's experiment with the given settings; what is not given stays as the package has it."""
    task = PettingZooTask.SIMPLE_SPREAD.get_from_yaml()
    task.config["max_cycles"] = given["cycles"]
    config, algorithm, model = ExperimentConfig.get_from_yaml(), MappoConfig.get_from_yaml(), MlpConfig.get_from_yaml()
    config.save_folder, config.loggers, config.create_json = folder, [], False
    config.evaluation, config.render, config.prefer_continuous_actions = False, False, False
    config.max_n_frames, config.max_n_iters = given["steps"], None
    for target, changes in ((config, given["experiment"]), (algorithm, given["algorithm"]), (model, given["model"])):
        for name, value in changes.items():
            if not hasattr(target, name):
                raise AttributeError(f"BenchMARL has no setting {name}")
            setattr(target, name, value)
    return Experiment(
        task=task,
        algorithm_config=algorithm,
        model_config=model,
        seed=given["seed"],
        config=config,
        callbacks=[callback],
    )


def reseed(made: Any, seed: int) -> None:
    """Give every environment a seed of its own: BenchMARL gives all of them the same one, so they begin alike."""
    made.collector.env.set_seed(seed)


def returns(made: Any, episodes: int, seed: int) -> list[float]:
    """Return the greedy returns of episodes, each the mean over the agents."""
    env = made.task.get_env_fun(1, False, seed, "cpu")()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        played = [env.rollout(made.max_steps, made.policy) for _ in range(episodes)]
    env.close()
    return [float(one["next", "agent", "reward"].sum(0).mean()) for one in played]


class Turns(Callback):  # type: ignore[misc]
    """Stops the clock, and the training, at the end of every turn.

    Args:
        length: Steps of a turn, a multiple of those between two updates.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.began_s = length, 0.0

    def start(self) -> None:
        """Wait for the word to go on."""
        sys.stdin.readline()
        self.began_s = time.process_time()

    def on_train_end(self, training_td: Any, group: str) -> None:
        """Say how long the turn took, if this was its last update, and wait."""
        steps = self.experiment.total_frames
        if steps % self.length == 0:
            took_s = time.process_time() - self.began_s
            say({"steps": steps, "cpu_s": took_s, "return": self.experiment.mean_return})
            self.start()


def train(given: dict[str, Any]) -> None:
    """Train in turns, and play at the end."""
    torch.set_num_threads(1)
    turns = Turns(given["turn"])
    with tempfile.TemporaryDirectory() as folder:
        made = experiment(given, folder, turns)
        if given["distinct"]:
            reseed(made, given["seed"])
        say({"ready": True})
        turns.start()
        made.run()
        say({"returns": returns(made, given["episodes"], given["seed"] + 10_000)})


def main() -> None:
    """Do what the argument asks for."""
    asked = json.loads(sys.argv[1])
    with contextlib.redirect_stdout(sys.stderr):  # what the libraries print is not for the reader of our lines
        if "actions" in asked:
            say(trace(asked["seed"], asked["actions"]))
        else:
            train(asked)


if __name__ == "__main__":
    main()
