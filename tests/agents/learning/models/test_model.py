import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from arena import ConfigError
from arena.agents.learning._models.generation import Conversations
from arena.agents.learning._models.model import LanguageModel
from arena.agents.learning._models.scoring import Row, micro_batches, score
from arena.agents.learning._models.settings import LoraOptions, ModelOptions, TinyOptions

from . import small

ROWS = [Row(list(range(10, 40)), [5, 6, 7, 20]), Row([9, 8, 7], [1, 2])]


def scores(model: LanguageModel) -> torch.Tensor:
    (batch,) = micro_batches(ROWS, 10**6)
    return score(model, batch, 1.0)[0]


@pytest.fixture
def pretrained(tmp_path: Path) -> str:
    """Return a folder as Hugging Face publishes one, with dropout that training must switch off."""
    folder = tmp_path / "pretrained"
    network = small.network("llama")
    network.config.attention_dropout = 0.5
    network.save_pretrained(folder)
    small.tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_default_has_one_to_five_million_parameters() -> None:
    model = LanguageModel.build(ModelOptions(), small.TEXTS, 0)
    assert 1e6 < sum(one.numel() for one in model.network.parameters()) < 5e6
    assert model.context == 2048
    assert model.network.get_input_embeddings().weight is model.network.get_output_embeddings().weight


def test_the_seed_decides_the_weights_and_torchs_own_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    digests = [small.tiny(seed).digest() for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(before, torch.get_rng_state())


def test_a_saved_model_is_loaded_equal_to_the_bit(tmp_path: Path) -> None:
    model = small.tiny()
    with torch.no_grad():
        for one in model.parameters_to_train():
            one.add_(torch.randn(one.shape, generator=torch.Generator().manual_seed(0)) / 3)
    model.save(tmp_path)
    again = LanguageModel.load(tmp_path)
    assert again.digest() == model.digest()
    assert (again.options, again.context) == (model.options, model.context)
    assert torch.equal(scores(again), scores(model))
    assert again.template.opening("Go <|end|>.", "é") == model.template.opening("Go <|end|>.", "é")
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors", ".jinja"}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no saved language model"):
        LanguageModel.load(tmp_path)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        LanguageModel.build(ModelOptions(name=str(tmp_path)), [], 0)


def test_pickled_weights_are_refused(tmp_path: Path, pretrained: str) -> None:
    Path(pretrained, "model.safetensors").unlink()
    torch.save(small.network("llama").state_dict(), Path(pretrained, "pytorch_model.bin"))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        LanguageModel.build(ModelOptions(name=pretrained), [], 0)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path, pretrained: str) -> None:
    config = json.loads(Path(pretrained, "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    Path(pretrained, "config.json").write_text(json.dumps(config))
    Path(pretrained, "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        LanguageModel.build(ModelOptions(name=pretrained), [], 0)
    assert not (tmp_path / "ran").exists()


def test_a_pretrained_model_is_loaded_without_dropout(pretrained: str) -> None:
    model = LanguageModel.build(ModelOptions(name=pretrained), [], 0)
    assert torch.equal(scores(model), scores(small.model("llama")))
    model.network.train()
    assert torch.equal(scores(model), scores(small.model("llama")))


def test_gradient_checkpointing_changes_nothing_but_memory(pretrained: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = LanguageModel.build(ModelOptions(name=pretrained, gradient_checkpointing=checkpointing), [], 0)
        playing = Conversations(model, temperature=1.0, max_new_tokens=3, generator=torch.Generator(), greedy=True)
        playing.turn({0: [20, 21, 22]})
        assert model.network.training == checkpointing
        scores(model).sum().backward()
        gradients.append([one.grad for one in model.parameters_to_train()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_adapters_learn_alone_and_the_reference_is_the_base(tmp_path: Path, pretrained: str) -> None:
    base = scores(LanguageModel.build(ModelOptions(name=pretrained), [], 0))
    model = LanguageModel.build(ModelOptions(name=pretrained), [], 3, LoraOptions(rank=4))
    assert torch.equal(scores(model), base)  # B starts at 0
    frozen = {name: one.clone() for name, one in model.network.named_parameters() if not one.requires_grad}
    optimizer = torch.optim.SGD(model.parameters_to_train(), lr=10.0)
    for _ in range(2):
        optimizer.zero_grad()
        (-scores(model).sum()).backward()
        optimizer.step()
    assert all("lora" in name for name, one in model.network.named_parameters() if one.requires_grad)
    assert all(torch.equal(one, frozen[name]) for name, one in model.network.named_parameters() if name in frozen)
    assert not torch.allclose(scores(model), base)
    reference = model.reference()
    assert torch.equal(scores(reference), base)
    assert not reference.parameters_to_train()
    assert reference.network is model.network
    assert not torch.allclose(scores(model), base)  # asking the reference has switched nothing off

    model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "adapter_model.safetensors").stat().st_size < 40_000
    again = LanguageModel.load(tmp_path / "saved")
    assert again.digest() == model.digest()
    assert torch.equal(scores(again), scores(model))
    assert len(again.parameters_to_train()) == len(model.parameters_to_train())

    (tmp_path / "saved" / "adapter_model.safetensors").rename(tmp_path / "saved" / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors; adapters are loaded from safetensors only"):
        LanguageModel.load(tmp_path / "saved")


def test_adapters_are_sampled_from_too(pretrained: str) -> None:
    model = LanguageModel.build(ModelOptions(name=pretrained), [], 3, LoraOptions(rank=4))
    with torch.no_grad():
        for one in model.parameters_to_train():
            one.add_(torch.randn(one.shape, generator=torch.Generator().manual_seed(0)) / 3)
    settings: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 8, "generator": torch.Generator(), "greedy": True}
    turn = Conversations(model, **settings).turn({0: [20, 21, 22]})[0]
    (batch,) = micro_batches([Row([20, 21, 22, *turn.ids], range(3, 3 + len(turn.ids)))], 10**6)
    torch.testing.assert_close(turn.log_probs, score(model, batch, 1.0)[0].detach(), atol=1e-4, rtol=0)
    other = Conversations(model.reference(), **settings).turn({0: [20, 21, 22]})[0]
    assert other.ids != turn.ids or not torch.allclose(other.log_probs, turn.log_probs)


def test_unknown_targets_of_adapters_are_refused(pretrained: str) -> None:
    with pytest.raises(ConfigError, match="nothing_like_it"):
        LanguageModel.build(ModelOptions(name=pretrained), [], 0, LoraOptions(targets=["nothing_like_it"]))


def test_a_model_that_starts_from_nothing_gets_no_adapters() -> None:
    with pytest.raises(ConfigError, match="starts from nothing"):
        LanguageModel.build(ModelOptions(), ["some text"], 0, LoraOptions())


def test_a_reference_stays_as_the_model_was() -> None:
    model = small.tiny()
    reference, before = model.reference(), scores(model)
    with torch.no_grad():
        for one in model.parameters_to_train():
            one.mul_(1.5)
    assert torch.equal(scores(reference), before)
    assert not torch.allclose(scores(model), before)
    assert not any(one.requires_grad for one in reference.network.parameters())


def test_a_critic_is_a_copy_that_is_saved_equal_to_the_bit(tmp_path: Path, pretrained: str) -> None:
    model = LanguageModel.build(ModelOptions(name=pretrained), [], 0, LoraOptions(rank=4))
    critic = model.critic()
    learning = {id(one) for one in critic.parameters_to_train()}
    assert not learning & {id(one) for one in model.network.parameters()}
    shared = {id(one) for one in model.decoder.parameters() if not one.requires_grad}
    assert shared < {id(one) for one in critic.parameters()}  # what does not learn is not copied
    with torch.no_grad():
        for one in critic.parameters_to_train():
            one.add_(1.0)
    critic.save(tmp_path / "critic.safetensors")
    again = model.critic()
    again.load(tmp_path / "critic.safetensors")
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(again(ids), critic(ids))
    assert critic(ids).any()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"lora": {}}, "lora"),
        ({"name": "x/y", "tiny": {"layers": 2}}, "leave tiny out"),
        ({"tiny": {"hidden": 100}}, "no multiple of twice the heads"),
        ({"tiny": {"key_value_heads": 4}}, "no multiple of key_value_heads"),
        ({"nmae": "x"}, "nmae"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ModelOptions.model_validate(wrong)


def test_a_missing_gpu_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="no GPU"):
        LanguageModel.build(ModelOptions(device="cuda", tiny=TinyOptions(layers=1)), small.TEXTS, 0)
