"""A training that was stopped or killed, and then resumed, is byte for byte the one that was not."""

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from arena.agents.learning._models.model import LanguageModel
from arena.agents.learning.language import LanguageLearner
from arena.learning import Progress, latest_checkpoint, learn

from . import toys

SHOWN = {"episodes": 5, "epochs": 2, "batch": 2, "learning_rate": 1e-3}
TRAININGS: dict[str, dict[str, Any]] = {
    "ppo": {
        "algorithm": "ppo",
        "objective": {"data": {"group_size": 2}},
        "minibatches": 2,
        "env_options": {"paid": "noise", "tasks": 6},
    },
    "grpo": {
        "algorithm": "grpo",
        "objective": {
            "data": {"group_size": 2},
            "control": {"kind": "adaptive-kl", "coefficient": "kl_reference", "target": 0.01},
        },
        "env_options": {"paid": "noise", "tasks": 6},
        "seeds": (3, 1),
    },
    "dapo": {
        "algorithm": "dapo",
        "objective": {"data": {"group_size": 2}},
        "demonstrations": {**SHOWN, "optimiser": "muon"},
        "epochs": 2,
        "minibatches": 2,
        "env_options": {"paid": "whole", "tasks": 6},
    },
    "windows": {
        "env": "toy/babel-v0",
        "history": "window",
        "turns": 4,
        "window_turns": 1,
        "model": {"tiny": {**toys.SMALL, "context": 160}, "device": "cpu"},
        "objective": {"data": {"group_size": 2}},
        "held_out": {"episodes": 3, "every": 2, "temperature": 0.7},
        "steps": 5 * 8 * 4,
    },
}
IMITATED = {"demonstrations": SHOWN, "steps": 2 * (5 + 8 * 4)}
"""Six updates of imitation, then four of reinforcement; evaluations after 1, 7, 9 and 11."""

LOADED = {"is_local", "local_files_only"}
"""What transformers notes about a tokenizer that was loaded from a folder."""


def made(name: str) -> LanguageLearner:
    imitated = {} if name == "windows" else IMITATED
    return toys.learner(**{**imitated, **TRAININGS[name]})


def trained(name: str, folder: Path, *, stops: Any = (), every: int = 1000) -> Path:
    """Train to the end, but begin anew after these updates."""
    for stop in [*stops, None]:
        progress = Progress(updates=made(name).updates)
        learn(
            lambda: made(name),
            folder,
            checkpoint_every=every,
            progress=progress,
            stop=lambda stop=stop, progress=progress: progress.done == stop,
        )
    return folder


def kept(folder: Path) -> dict[str, bytes]:
    """Return what a training leaves, without its times, and without pictures for TensorBoard, which have times too."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "tfevents" not in path.name]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    for path in [path for path in found if path.endswith("tokenizer_config.json")]:
        found[path] = repr(sorted(item for item in json.loads(found[path]).items() if item[0] not in LOADED)).encode()
    checkpoint = json.loads(found.pop("final/checkpoint.json"))
    return {**found, "checkpoint": repr({**checkpoint, "cpu_s": 0, "wall_s": 0}).encode()}


@pytest.fixture(scope="module", params=TRAININGS)
def straight(request: Any, tmp_path_factory: Any) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, kept(trained(request.param, folder))


def test_loaded_weights_are_aligned_as_new_ones_are(tmp_path: Path) -> None:
    """Matrix products differ in their last bits between tensors at multiples of 64 bytes and others."""
    model = toys.tiny_model()
    model.save(tmp_path)
    loaded = LanguageModel.load(tmp_path)
    assert {one.data_ptr() % 64 for one in model.network.parameters()} == {0}
    assert {one.data_ptr() % 64 for one in loaded.network.parameters()} == {0}


def test_an_uninterrupted_training_has_every_phase(straight: Any) -> None:
    name, found = straight
    rows = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    rows = [row for row in rows if row["seed"] == rows[0]["seed"]]
    imitated = [row["update"] for row in rows if "imitation_loss" in row]
    evaluated = [row["update"] for row in rows if "held_out_return" in row]
    assert imitated == ([] if name == "windows" else [2, 3, 4, 5, 6, 7])
    assert evaluated == ([1, 3, 5, 6] if name == "windows" else [1, 7, 9, len(rows)])
    assert len(rows) in {"windows": (6,), "dapo": (10, 11)}.get(name, (11,)), "rounds of sampling spend steps sooner"
    learned = [row for row in rows if row.get("grad_norm", 0) > 0]
    assert len(learned) >= len(rows) - 3, "a test of weights that stay would show nothing"
    assert any(path.endswith("model.safetensors") for path in found)
    if name == "ppo":
        assert any(path.endswith("critic.safetensors") for path in found)


@pytest.mark.parametrize("stops", [(1,), (4,), (6, 7), (8,), (9, 10), tuple(range(1, 11))], ids=str)
def test_stopped_and_resumed_it_is_the_same(straight: Any, stops: Any, tmp_path: Path) -> None:
    name, expected = straight
    stops = [stop for stop in stops if stop < made(name).updates]
    found = kept(trained(name, tmp_path, stops=stops))
    assert found["metrics.jsonl"].decode() == expected["metrics.jsonl"].decode()
    assert found.keys() == expected.keys()
    assert [path for path in found if found[path] != expected[path]] == []


def test_a_checkpoint_that_was_not_the_last_word_is_gone_on_from(tmp_path: Path) -> None:
    """Updates after the latest checkpoint are computed again, and their rows replaced."""
    whole = kept(trained("grpo", tmp_path / "whole"))
    folder, progress = tmp_path / "part", Progress(updates=11)

    def advanced() -> None:
        if progress.done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(lambda: made("grpo"), folder, checkpoint_every=3, progress=progress, advanced=advanced)
    found = latest_checkpoint(folder)
    assert found is not None
    assert found.update == 6
    assert kept(trained("grpo", folder, every=3)) == whole


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tests.agents.learning.toys_served
from tests.agents.learning.test_resume import trained
print("began", flush=True)
trained(sys.argv[1], Path(sys.argv[2]), every=1)
"""


def _killed(name: str, folder: Path, times: int, rng: random.Random) -> int:
    """Kill a training again and again, as soon as it has written something more; return how often it was."""
    killed = 0
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, name, str(folder)],
            cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE,
            text=True,
        )
        with contextlib.closing(process.stdout or sys.stdin) as lines:
            assert lines.readline() == "began\n"
            metrics = folder / "metrics.jsonl"
            before = metrics.stat().st_size if metrics.exists() else 0
            while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > before):
                time.sleep(0.002)
            time.sleep(rng.random() * 0.3)
            process.kill()
            killed += process.wait() == -9
    return killed


def test_killed_at_any_moment_and_resumed_it_is_the_same(tmp_path: Path) -> None:
    expected = kept(trained("ppo", tmp_path / "whole"))
    assert _killed("ppo", tmp_path / "killed", 2, random.Random(1)) >= 1
    assert kept(trained("ppo", tmp_path / "killed", every=1)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_killed_many_times_and_resumed_it_is_the_same(name: str, tmp_path: Path) -> None:
    expected = kept(trained(name, tmp_path / "whole"))
    assert _killed(name, tmp_path / "killed", 8, random.Random(name)) >= 1
    assert kept(trained(name, tmp_path / "killed", every=1)) == expected


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_a_seed_alone_is_what_it_is_among_several(name: str) -> None:
    changes = {**IMITATED, **TRAININGS[name]}
    together = toys.rows_of(toys.learner(**{**changes, "seeds": (5, 2, 9)}))
    alone = toys.rows_of(toys.learner(**{**changes, "seeds": (2,)}))
    assert [row for row in together if row["seed"] == 2] == alone
    assert [row for row in together if row["seed"] == 5] != [{**row, "seed": 5} for row in alone]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    """Weights of another size, or files that hold nothing, are one clear line; `learn` then begins anew."""
    from arena import ConfigError

    trainer = made("ppo")
    with contextlib.closing(trainer):
        trainer.begin()
        trainer.update()
        trainer.save(tmp_path)
        (tmp_path / "seed-0" / "state.safetensors").write_bytes(b"nothing")
        with pytest.raises(ConfigError, match="holds no state of this training") as caught:
            trainer.load(tmp_path)
        assert "\n" not in str(caught.value)


def test_the_reference_is_the_model_as_reinforcement_began(tmp_path: Path) -> None:
    """After imitation, also where the training was stopped in between; and it stays so."""
    digests: list[str] = []
    for stop in (None, 6, 7, 8, 10):
        trainer = made("grpo")
        with contextlib.closing(trainer):
            trainer.begin()
            while trainer.done < trainer.updates:
                trainer.update()
                if trainer.done == 7:
                    imitated = toys.pupil_of(trainer).model.digest()
                if trainer.done == stop:
                    folder = tmp_path / str(stop)
                    folder.mkdir()
                    trainer.save(folder)
                    trainer.close()
                    trainer = made("grpo")
                    trainer.begin()
                    trainer.load(folder)
            pupil = toys.pupil_of(trainer)
            digests.append(pupil._phase.reference.digest())
            assert pupil.model.digest() != imitated
            trainer.close()
    assert digests == [imitated] * 5
