"""A model of Hugging Face goes through the whole trainer: all weights or adapters, in either precision."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from arena import TrainingJob
from arena.agents.learning._models.model import LanguageModel
from arena.agents.learning.language import LanguageLearner, LanguageOptions
from arena.learning import Progress, learn
from arena.runner import Progress as RunProgress
from arena.runner import plan, run
from arena.scenario import parse_scenario

from . import toys
from .models import small

LORA: dict[str, Any] = {"parameters": {"kind": "lora", "rank": 4, "alpha": 8}}
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"objective": {"data": {"group_size": 4}, "regularisers": []}},
    "lora": {"objective": {"data": {"group_size": 4}, **LORA}},
    "critic": {"algorithm": "ppo", "objective": {"data": {"group_size": 1}, **LORA}, "tasks": 8},
    "half": {"objective": {"data": {"group_size": 4}, "regularisers": []}, "dtype": "bfloat16", "minibatches": 1},
    "imitated": {
        "objective": {"data": {"group_size": 4}, "regularisers": [], **LORA},
        "demonstrations": {"episodes": 8, "batch": 4, "optimiser": "muon"},
    },
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: Any) -> str:
    folder = tmp_path_factory.mktemp("pretrained")
    small.network("qwen3").save_pretrained(folder)
    small.tokenizer().save_pretrained(folder)
    return str(folder)


def _made(name: str, pretrained: str) -> LanguageLearner:
    chosen = dict(SETTINGS[name])
    model = {"name": pretrained, "device": "cpu", "dtype": chosen.pop("dtype", "float32")}
    shown = chosen.get("demonstrations", {}).get("episodes", 0)
    options = toys.options(**{"model": model, "minibatches": 2, "learning_rate": 1e-2, **chosen})
    sizes = options["tasks"] * options["objective"]["data"]["group_size"]
    job = TrainingJob("toy/names-v0", {"paid": "noise"}, (0,), (shown + 3 * sizes) * options["turns"])
    return LanguageLearner(job, LanguageOptions.model_validate(options))


def _trained(name: str, pretrained: str, folder: Path, stop: int | None = None) -> bytes:
    for at in (stop, None) if stop else (None,):
        progress = Progress(updates=_made(name, pretrained).updates)
        learn(
            lambda: _made(name, pretrained),
            folder,
            checkpoint_every=1,
            progress=progress,
            stop=lambda at=at, progress=progress: progress.done == at,
        )
    return (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", SETTINGS)
def test_it_learns_is_stopped_and_goes_on_to_the_bit(name: str, pretrained: str, tmp_path: Path) -> None:
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(pretrained).iterdir()}
    whole = _trained(name, pretrained, tmp_path / "whole")
    rows = [json.loads(line) for line in whole.splitlines()]
    assert sum(row.get("grad_norm", 0) > 0 for row in rows) >= len(rows) - 2
    assert _trained(name, pretrained, tmp_path / "parted", stop=3) == whole
    saved = tmp_path / "whole" / "final" / "seed-0" / "model"
    assert (saved / "adapter_model.safetensors").exists() == ("parameters" in SETTINGS[name]["objective"])
    learned = LanguageModel.load(saved)
    assert learned.digest() == LanguageModel.load(tmp_path / "parted" / "final" / "seed-0" / "model").digest()
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(pretrained).iterdir()} == before
    assert learned.network.dtype == (torch.bfloat16 if name == "half" else torch.float32)


def test_what_was_sampled_in_half_precision_is_what_is_trained(pretrained: str, tmp_path: Path) -> None:
    """Log-probabilities recomputed in whole rows are those of sampling with a cache, as near as bfloat16 allows."""
    rows = [json.loads(line) for line in _trained("half", pretrained, tmp_path).splitlines()]
    drift = [row["drift"] for row in rows if "drift" in row]
    assert drift
    assert max(drift) < 0.1


def test_adapters_are_an_agent(pretrained: str, tmp_path: Path) -> None:
    _trained("lora", pretrained, tmp_path)
    wanted = parse_scenario(
        json.dumps(
            {
                "name": "adapters",
                "env": {"id": "toy/names-v0"},
                "tasks": {"split": "test"},
                "episodes": 4,
                "agents": {"policy": {"id": "learning/policy", "options": {"checkpoint": str(tmp_path / "final")}}},
            }
        )
    ).resolve()
    ended: list[Any] = []
    asyncio.run(run(wanted, plan(wanted), lambda _, episode: ended.append(episode.end), progress=RunProgress(4)))
    assert [end.error for end in ended] == [None] * 4
    assert [end.steps for end in ended] == [2] * 4


def test_a_reference_that_would_forget_the_imitation_is_refused(pretrained: str) -> None:
    with pytest.raises(ValidationError, match="leave demonstrations out, or the divergence"):
        LanguageOptions.model_validate(
            toys.options(
                model={"name": pretrained},
                objective={"data": {"group_size": 4}, **LORA},
                demonstrations={"episodes": 8},
            )
        )
