"""A language model with its tokenizer: built, saved, loaded, copied as a reference, and given a critic."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from arena import ConfigError, Options, import_extra

from .settings import LoraOptions, ModelOptions, TinyOptions
from .template import Template
from .tokenizer import train_tokenizer

__all__ = ["Critic", "LanguageModel"]

_SETTINGS_FILE, _ADAPTERS_FILE = "arena_model.json", "adapter_model.safetensors"
_EMBEDDED = "tiny"


class _Saved(Options):
    """What a saved model's settings are."""

    model: ModelOptions
    lora: LoraOptions | None


class LanguageModel:
    """A causal language model, its tokenizer and its chat template.

    Dropout is off at all times: what is trained is the distribution that was sampled from.

    Attributes:
        options: What it was built from.
        lora: Which adapters it has; None where all weights learn.
        network: The network, a ``PeftModel`` where there are adapters.
        tokenizer: Its tokenizer.
        template: Its chat template, as ids.
        context: Most tokens that an episode may have.
        device: Where it is.
        head_is_all: Whether logits are the output layer of the decoder's states; None until it was found out.
        shares_openings: Whether rows can go on from an opening that was computed once; None until it was found out.
        cache_is_exact: Whether turns can be sampled with a cache of keys and values; None until it was found out.
    """

    def __init__(
        self,
        options: ModelOptions,
        network: Any,
        tokenizer: Any,
        lora: LoraOptions | None = None,
        *,
        adapters: bool = True,
    ) -> None:
        self.options = options
        self.lora = lora
        self.network = network
        self.tokenizer = tokenizer
        self.template = Template(tokenizer, _stops(network))
        self.context = _context(network.config, tokenizer)
        self.device = next(network.parameters()).device
        self._adapters = adapters
        self.head_is_all: bool | None = None
        self.shares_openings: bool | None = None
        self.cache_is_exact: bool | None = None

    @classmethod
    def build(cls, options: ModelOptions, texts: Iterable[str], seed: int, lora: LoraOptions | None = None) -> Self:
        """Return a new model.

        Args:
            options: Which one.
            texts: What the embedded default's tokenizer is trained on; a pretrained model does not read them.
            seed: Of the weights that are drawn.
            lora: Adapters to train instead of all weights.

        Raises:
            ConfigError: The pretrained model cannot be loaded or used, or a model that starts from nothing would have
                adapters.
        """
        if lora is not None and options.name == _EMBEDDED:
            raise ConfigError(
                "lora needs a model that knows something, and the embedded one starts from nothing: name a pretrained "
                "model, or train all parameters"
            )
        with _seeded(seed):
            if options.name == _EMBEDDED:
                tokenizer = train_tokenizer(texts, options.tiny.vocabulary)
                network = LlamaForCausalLM(_tiny_config(options.tiny, tokenizer))
            else:
                tokenizer, network = _pretrained(options.name, options)
            return cls(options, _prepared(network, options, lora, None), tokenizer, lora)

    @classmethod
    def load(cls, folder: Path, device: Literal["auto", "cpu", "cuda"] | None = None) -> Self:
        """Return the model that was saved in `folder`, equal to the bit.

        Args:
            folder: What `save` wrote.
            device: Where it is to run; where it ran before if None.

        Raises:
            ConfigError: It holds none.
        """
        try:
            saved = _Saved.model_validate_json((folder / _SETTINGS_FILE).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder} holds no saved language model: {error}") from error
        options, lora = saved.model, saved.lora
        if device is not None:
            options = options.model_copy(update={"device": device})
        tokenizer, network = _pretrained(str(folder) if lora is None else options.name, options)
        return cls(options, _prepared(network, options, lora, folder), tokenizer, lora)

    def save(self, folder: Path) -> None:
        """Write weights (safetensors; of adapters only, where there are), tokenizer and settings into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with _without_progress_bars():
            self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        saved = _Saved(model=self.options, lora=self.lora)
        (folder / _SETTINGS_FILE).write_text(saved.model_dump_json(indent=1), "utf-8")

    @property
    def causal(self) -> Any:
        """The network below the adapters' wrapper: a decoder and an output layer."""
        return self.network if self.lora is None else self.network.get_base_model()

    @property
    def decoder(self) -> Any:
        """The network without its output layer."""
        return self.causal.get_decoder()

    @contextlib.contextmanager
    def active(self, *, sampling: bool = False) -> Iterator[Any]:
        """Give `causal` with this model's adapters on, or off if it is the reference of a model that has some.

        Args:
            sampling: Whether keys and values are to be kept, which gradient checkpointing would prevent.
        """
        training = self.network.training
        with contextlib.nullcontext() if self._adapters else self.network.disable_adapter():
            try:
                if sampling and training:
                    self.network.eval()
                yield self.causal
            finally:
                if sampling and training:
                    self.network.train()

    def parameters_to_train(self) -> list[nn.Parameter]:
        """Return the parameters that learn: all, or those of the adapters; none of a reference."""
        return [one for one in self.network.parameters() if one.requires_grad] if self._adapters else []

    def tables(self) -> list[nn.Parameter]:
        """Return the weights of embeddings and of the output layer."""
        layers = self.causal.get_input_embeddings(), self.causal.get_output_embeddings()
        return [layer.weight for layer in layers if layer is not None]

    def reference(self) -> LanguageModel:
        """Return this model as it is now, frozen; where it has adapters, the model without them, at no cost."""
        if self.lora is not None:
            return LanguageModel(self.options, self.network, self.tokenizer, self.lora, adapters=False)
        return LanguageModel(self.options, copy.deepcopy(self.network).requires_grad_(False), self.tokenizer)

    def critic(self) -> Critic:
        """Return a critic that begins with a copy of this model's decoder; it values everything at 0."""
        return Critic(self.decoder)

    def digest(self) -> str:
        """Return a hash of all weights: names, types, shapes and bytes."""
        total = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.network.state_dict().items()):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return total.hexdigest()


class Critic(nn.Module):
    """The value of a context, in the unit of returns: a decoder of its own and a linear head that starts at 0.

    Weights that do not learn are shared with the decoder that it was copied from.

    Args:
        decoder: The decoder to copy.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        frozen = {id(one): one for one in decoder.parameters() if not one.requires_grad}
        self.decoder = copy.deepcopy(decoder, frozen)
        first = next(self.decoder.parameters())
        self.head = nn.Linear(self.decoder.config.get_text_config().hidden_size, 1, device=first.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the value after each token, (R, L) float32, of ids (R, L) that are padded on the right."""
        hidden = self.decoder(input_ids=ids, use_cache=False).last_hidden_state
        values: Tensor = self.head(hidden.float())[..., 0]
        return values

    def parameters_to_train(self) -> list[nn.Parameter]:
        """Return the parameters that learn."""
        return [one for one in self.parameters() if one.requires_grad]

    def save(self, file: Path) -> None:
        """Write the weights that learn, as safetensors."""
        save_file({name: one.detach().contiguous() for name, one in self._learned()}, file)

    def load(self, file: Path) -> None:
        """Take the weights that `save` wrote, equal to the bit."""
        found = load_file(file)
        with torch.no_grad():
            for name, one in self._learned():
                one.copy_(found[name])

    def _learned(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, one) for name, one in self.named_parameters() if one.requires_grad)


def _tiny_config(tiny: TinyOptions, tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=tiny.hidden,
        intermediate_size=tiny.feed_forward,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.heads,
        num_key_value_heads=tiny.key_value_heads,
        max_position_embeddings=tiny.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _pretrained(name: str, options: ModelOptions) -> tuple[Any, Any]:
    """Return tokenizer and network of a folder or a model of Hugging Face: safetensors only, and none of its code."""
    try:
        with _without_progress_bars():
            return _loaded(name, options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"the model {name!r} cannot be loaded: {reason}") from error


def _loaded(name: str, options: ModelOptions) -> tuple[Any, Any]:
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    _switch_dropout_off(config)
    network = AutoModelForCausalLM.from_pretrained(
        name,
        config=config,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=getattr(torch, options.dtype),
        attn_implementation="eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa",
    )
    return AutoTokenizer.from_pretrained(name, trust_remote_code=False), network


def _switch_dropout_off(config: Any) -> None:
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)


def _prepared(network: Any, options: ModelOptions, lora: LoraOptions | None, saved: Path | None) -> Any:
    """Return the network on its device, with adapters (new ones, or those in a folder) and checkpointing if asked."""
    network = network.to(_device(options), getattr(torch, options.dtype))
    if lora is not None:
        network = _with_adapters(network, lora, saved)
    for one in [*network.parameters(), *network.buffers()]:
        one.data = one.data.clone()  # loaded tensors lie at odd addresses, where matrix products round differently
    if not options.gradient_checkpointing:
        return network.eval()
    causal = network if lora is None else network.get_base_model()
    if hasattr(causal, "activation_checkpointing_enable"):
        causal.activation_checkpointing_enable({"use_reentrant": False})
    else:  # transformers before 5.23
        causal.gradient_checkpointing_enable({"use_reentrant": False})
    return network.train()


def _with_adapters(network: Any, lora: LoraOptions, saved: Path | None) -> Any:
    if saved is not None and not (saved / _ADAPTERS_FILE).is_file():  # peft would go on to a pickle
        raise ConfigError(f"{saved} has no {_ADAPTERS_FILE}; adapters are loaded from safetensors only")
    peft = import_extra("peft", extra="language")
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=lora.targets or "all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft 0.21 asks transformers 5
        try:
            if saved is not None:
                return peft.PeftModel.from_pretrained(network, saved, is_trainable=True)
            return peft.get_peft_model(network, config)
        except ValueError as error:
            raise ConfigError(f"lora: {str(error).splitlines()[0]}") from error


def _device(options: ModelOptions) -> torch.device:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but there is no GPU that torch can use; allowed here: auto, cpu")
    return torch.device("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")


def _context(config: Any, tokenizer: Any) -> int:
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    return min(int(limit) for limit in limits if limit is not None and math.isfinite(limit))


def _stops(network: Any) -> list[int]:
    """Return the ids that the model's authors end generation with."""
    settings = getattr(network, "generation_config", None)
    stops = getattr(settings, "eos_token_id", None)
    return [stops] if isinstance(stops, int) else list(stops or [])


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, from which transformers draws weights, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
