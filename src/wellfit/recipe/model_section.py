"""The recipe's section `model`: tokens → logits → loss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wellfit.recipe.adapter_section import Adapter, Quantize, refuse_idle
from wellfit.recipe.section import Call, Section

Size = Literal["nano", "micro", "mini", "small", "base", "1b", "3b", "7b"]
Preset = Literal[
    "none", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "llama-7b", "llama-13b", "llama-30b",
    "llama-65b", "llama2-7b", "llama2-13b", "llama2-70b", "llama3-8b", "llama3-70b",
    "llama3.1-8b", "llama3.1-70b", "llama3.2-1b", "llama3.2-3b", "mistral-7b", "mistral-nemo",
    "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b", "qwen2.5-14b", "qwen2.5-32b",
    "qwen2.5-72b", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-30b-a3b",
    "gemma-2b", "gemma-7b", "gemma2-2b", "gemma2-9b", "gemma3-270m", "gemma3-1b", "gemma3-4b",
    "mixtral-8x7b", "mixtral-8x22b",
]  # fmt: skip
Role = Literal["embedding", "position", "matrix", "router", "norm", "bias", "head", "adapter"]
Kind = Literal["decoder", "encoder", "encoder_decoder"]
Head = Literal["tokens", "classes", "span"]
Activation = Literal["swiglu", "geglu", "gelu", "gelu_tanh", "relu2"]
GATED = ("swiglu", "geglu")
"""Activations with a third matrix, the gate."""


class RopeScaling(Section):
    """Rotary frequencies for contexts longer than the base was made for."""

    kind: Literal["none", "linear", "llama3", "yarn"] = Field(
        "none",
        description="`linear`: all slower by the factor; `llama3`: only the slow ones; `yarn`: the "
        "slow ones, and sharper attention.",
    )
    factor: float = Field(1.0, ge=1, le=4096, description="How many times slower.")
    original_context: int = Field(
        0,
        ge=0,
        le=1_048_576,
        description="Tokens of the context that the base was made for; llama3 and yarn need it.",
    )
    low_factor: float = Field(
        1.0, gt=0, description="llama3: fewer turns than this in original_context are slow."
    )
    high_factor: float = Field(
        4.0, gt=0, description="llama3: more turns than this in original_context are fast."
    )
    beta_fast: float = Field(
        32.0, gt=0, description="yarn: more turns than this in original_context are fast."
    )
    beta_slow: float = Field(
        1.0, gt=0, description="yarn: fewer turns than this in original_context are slow."
    )
    attention_factor: float = Field(
        0.0, ge=0, description="yarn: factor on cosines and sines; 0 takes 0.1·ln(factor) + 1."
    )

    @model_validator(mode="after")
    def _knows_its_context(self) -> RopeScaling:
        if self.kind in ("llama3", "yarn") and not self.original_context:
            raise ValueError(
                f"kind {self.kind} needs original_context, the context that the base was made for; "
                "try original_context 8192"
            )
        if self.kind == "llama3" and self.high_factor <= self.low_factor:
            raise ValueError(
                f"high_factor {self.high_factor:g} is not above low_factor {self.low_factor:g}; "
                f"try high_factor {4 * self.low_factor:g}"
            )
        if self.kind == "yarn" and self.beta_fast <= self.beta_slow:
            raise ValueError(
                f"beta_fast {self.beta_fast:g} is not above beta_slow {self.beta_slow:g}; "
                f"try beta_fast {32 * self.beta_slow:g}"
            )
        return self


class Experts(Section):
    """A mixture of experts in place of the feed-forward; routed ones have no biases."""

    count: int = Field(
        0, ge=0, le=4096, description="Experts of a layer; 0 is one feed-forward for all tokens."
    )
    active: int = Field(
        2, ge=1, le=4096, description="Experts that a token goes through: the most probable ones."
    )
    hidden: int = Field(
        0, ge=0, le=1_048_576, description="Features inside one expert; 0 takes model.hidden."
    )
    shared: int = Field(
        0, ge=0, le=64, description="Further experts that every token goes through, unweighted."
    )
    normalise: bool = Field(
        True, description="The weights of a token's experts sum to 1, as in Mixtral."
    )
    balance_loss: float = Field(
        0.01, ge=0, le=100, description="Coefficient of the loss that spreads tokens over experts."
    )
    router_z_loss: float = Field(
        0.001, ge=0, le=100, description="Coefficient of the loss that keeps router logits small."
    )

    @model_validator(mode="after")
    def _enough_of_them(self) -> Experts:
        if self.count and self.active > self.count:
            raise ValueError(
                f"active {self.active} is more than count {self.count}; "
                f"try active {min(2, self.count)}"
            )
        return self


class Model(Section):
    """A transformer, from its parts: a decoder, an encoder, or both."""

    size: Size = Field("nano", description="The dial: sets every number left out below.")
    preset: Preset = Field(
        "none", description="A published shape: goes before the dial for what is left out below."
    )
    module: Call | None = Field(
        None,
        description="A function of your own that makes the model, a torch.nn.Module, in place of "
        "all settings below but `context`, `adapter` and `quantize`.",
    )
    weights: str = Field(
        "",
        description="A folder of trained weights to begin with: in the layout of Hugging Face, an "
        "export, or a run. Its shape goes before the dial.",
    )
    architecture: Literal["own", "transformers"] = Field(
        "own",
        description="Who computes `weights`: our own parts, or the library transformers, which "
        "knows many more; then all settings below but `context` and `vocabulary_size` are its.",
    )
    vocabulary_size: int = Field(
        0,
        ge=0,
        le=16_777_216,
        description="Entries of embedding and head; 0: as many as the corpus has. More than "
        "`weights` have: the new ones begin as the mean of the others.",
    )
    adapter: Adapter | None = Field(
        None, description="Small matrices that are trained in place of the model, which is frozen."
    )
    quantize: Quantize = Field(Quantize(), description="Fewer bits for the frozen base.")
    kind: Kind = Field(
        "decoder",
        description="`decoder`: a token sees earlier ones; `encoder`: it sees both sides; "
        "`encoder_decoder`: a decoder that also reads what an encoder made of a source.",
    )
    context: int = Field(ge=8, le=1_048_576, description="Tokens in a training sequence.")
    layers: int = Field(ge=1, le=512, description="Blocks; of an encoder_decoder, its decoder's.")
    encoder_layers: int = Field(
        0, ge=0, le=512, description="encoder_decoder: blocks of its encoder; 0 takes `layers`."
    )
    width: int = Field(ge=8, le=65_536, description="Features of a token between blocks.")
    heads: int = Field(ge=1, le=512, description="Query heads.")
    kv_heads: int = Field(ge=1, le=512, description="Key and value heads; divides `heads`.")
    head_width: int = Field(
        0, ge=0, le=4096, description="Features of a head; 0 takes `width / heads`."
    )
    hidden: int = Field(ge=8, le=1_048_576, description="Features inside the feed-forward.")
    experts: Experts = Field(Experts(), description="A mixture in place of the feed-forward.")
    position: Literal["rotary", "learned"] = Field("rotary", description="How order is told.")
    rope_base: float = Field(10_000.0, gt=1, description="Base of the rotary frequencies.")
    rope_scaling: RopeScaling = Field(
        RopeScaling(), description="Slower rotary frequencies for longer contexts."
    )
    rope_local_base: float = Field(
        0.0,
        ge=0,
        description="Base in layers with a window, which are then never scaled; 0 treats them as "
        "the others.",
    )
    rotary_share: float = Field(
        1.0, gt=0, le=1, description="Share of a head's features that rotary positions turn."
    )
    window: int = Field(
        0,
        ge=0,
        le=1_048_576,
        description="Tokens that a token sees, itself included; in an encoder, half as many on "
        "each side; 0: all.",
    )
    global_every: int = Field(
        0, ge=0, le=512, description="Every n-th layer sees past the window; 0: none does."
    )
    attention_soft_cap: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Attention scores pass cap·tanh(score/cap); 0 leaves them as they are.",
    )
    norm: Literal["rmsnorm", "layernorm"] = Field("rmsnorm", description="Normalisation.")
    norm_epsilon: float = Field(1e-5, gt=0, lt=1, description="Added to the mean square.")
    post_norm: bool = Field(
        False, description="Norms also behind attention and feed-forward, before they are added."
    )
    activation: Activation = Field("swiglu", description="Non-linearity of the feed-forward.")
    bias: bool = Field(False, description="Biases on linear layers (and LayerNorm).")
    qkv_bias: bool = Field(False, description="Biases on queries, keys and values in any case.")
    qk_norm: bool = Field(True, description="RMSNorm on queries and keys, per head.")
    head: Head = Field(
        "tokens",
        description="What a place predicts: `tokens` of the vocabulary; `classes` of the text that "
        "ends there; `span`: whether an answer begins or ends there. As data.examples.task has it.",
    )
    classes: int = Field(
        0, ge=0, le=65_536, description="head classes: how many; as data.examples.classes has them."
    )
    tie_embeddings: bool = Field(False, description="One matrix for embedding and head.")
    scale_embeddings: bool = Field(False, description="Embeddings are multiplied by √width.")
    logit_soft_cap: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Logits pass cap·tanh(logit/cap); 0 leaves them as they are.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of activations dropped in training.")
    init: Literal["scaled_normal", "zero_projections", "xavier", "he", "small"] = Field(
        "zero_projections",
        description="`scaled_normal`: GPT-2's 0.02, projections into the residual stream "
        "/√(2·layers); `zero_projections`: variance-preserving, those projections and the head "
        "start at zero; `xavier`: by both sides of a matrix; `he`: by its inputs and the "
        "activation in front; `small`: √(2/(5·width)), those projections 2/(layers·√width).",
    )
    base_width: int = Field(
        0,
        ge=0,
        le=65_536,
        description="The width at which rates and first weights were found: they are carried over "
        "to `width`, as if `hidden` and heads grew in proportion; 0 takes them as they are.",
    )
    base_head_width: int = Field(
        0,
        ge=0,
        le=4096,
        description="With base_width: features of a head there, where heads grow wider and not "
        "more numerous; 0: a head is as wide here.",
    )

    @property
    def foreign(self) -> bool:
        """Whether its layers are not ours: a module of one's own, or one of transformers."""
        return self.module is not None or self.architecture == "transformers"

    @property
    def reading_layers(self) -> int:
        """Blocks that read a source: those of the encoder in front of a decoder, else 0."""
        return (self.encoder_layers or self.layers) if self.kind == "encoder_decoder" else 0

    @property
    def features_per_head(self) -> int:
        """Features of a head: `head_width` where it is given, else width / heads."""
        return self.head_width or self.width // self.heads

    @property
    def width_ratio(self) -> float:
        """How many times wider than `base_width` it is; 1 where nothing is carried over."""
        return self.width / self.base_width if self.base_width else 1.0

    @property
    def score_scale(self) -> float:
        """What attention scores are multiplied by: 1/√W, or √W_base/W (arXiv 2203.03466, 4.1)."""
        features, base = self.features_per_head, self.base_head_width
        return float(features**-0.5 if base in (0, features) else base**0.5 / features)

    @property
    def rotary_features(self) -> int:
        """Features of a head that rotary positions turn."""
        return int(self.features_per_head * self.rotary_share)

    @property
    def expert_hidden(self) -> int:
        """Features inside one expert."""
        return self.experts.hidden or self.hidden

    def outputs(self, vocabulary_size: int) -> int:
        """The entries of its vocabulary → numbers that its head makes at each place.

        Of a span these are two: how well an answer begins there, and how well it ends before it.
        """
        return {"tokens": vocabulary_size, "classes": self.classes, "span": 2}[self.head]

    def is_local(self, layer: int) -> bool:
        """Whether the layer, counted from 0, sees no further than the window."""
        return bool(self.window) and not (
            self.global_every and (layer + 1) % self.global_every == 0
        )

    @model_validator(mode="after")
    def _local_layers_have_a_window(self) -> Model:
        for name in ("global_every", "rope_local_base"):
            if getattr(self, name) and not self.window:
                raise ValueError(
                    f"{name} {getattr(self, name):g} tells layers with a window apart, and window "
                    f"is 0; set window, or {name} 0"
                )
        return self

    @model_validator(mode="after")
    def _adapter_has_an_effect(self) -> Model:
        refuse_idle(self)
        return self

    @model_validator(mode="after")
    def _base_is_known(self) -> Model:
        if self.base_head_width and not self.base_width:
            raise ValueError(
                f"base_head_width {self.base_head_width} is that of a model of base_width, which "
                "is not given; set base_width, or leave base_head_width out"
            )
        if (
            self.base_width
            and not self.base_head_width
            and self.heads * self.base_width % self.width
        ):
            there = self.heads * self.base_width / self.width
            wide = self.features_per_head * self.base_width / self.width
            raise ValueError(
                f"heads {self.heads} at width {self.width} are {there:.3g} heads at base_width "
                f"{self.base_width}; choose heads in proportion to the width, or where heads grow "
                f"wider and not more numerous, set base_head_width {max(1, round(wide))}"
            )
        return self

    @model_validator(mode="after")
    def _architecture_fits(self) -> Model:
        if self.architecture == "transformers" and not self.weights:
            raise ValueError(
                "architecture transformers is that of a folder of weights, and none is given; set "
                "weights, or leave architecture out"
            )
        if self.architecture == "transformers" and self.head != "tokens":
            raise ValueError(
                f"architecture transformers gives tokens, and not what head {self.head} learns; "
                "take weights of one of our own architectures, or head tokens"
            )
        return self

    @model_validator(mode="after")
    def _head_fits(self) -> Model:
        if (self.head == "classes") != (self.classes > 1):
            raise ValueError(
                f"head {self.head} with classes {self.classes}: head classes needs 2 or more, and "
                "the others none; name them as data.examples.classes"
            )
        wanted = {"tokens": ("decoder", "encoder", "encoder_decoder"), "classes": ("encoder",
                  "decoder"), "span": ("encoder",)}[self.head]  # fmt: skip
        if self.kind not in wanted:
            raise ValueError(
                f"head {self.head} does not fit kind {self.kind}; try kind {wanted[0]}"
            )
        if self.head != "tokens" and self.tie_embeddings:
            raise ValueError(
                f"tie_embeddings true would do nothing with head {self.head}, whose outputs are no "
                "tokens; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _shapes_fit(self) -> Model:
        if self.encoder_layers and self.kind != "encoder_decoder":
            raise ValueError(
                f"encoder_layers {self.encoder_layers} has no effect with kind {self.kind}; leave "
                "it out, or try kind encoder_decoder"
            )
        if self.width % self.heads and not self.head_width:
            near = min(
                (h for h in range(1, self.width + 1) if self.width % h == 0),
                key=lambda h: abs(h - self.heads),
            )
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; try heads {near}"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.position == "rotary" and self.features_per_head % 2:
            raise ValueError(
                f"rotary positions need an even head width, not {self.features_per_head}"
            )
        if self.position == "rotary" and (self.rotary_features % 2 or not self.rotary_features):
            raise ValueError(
                f"rotary_share {self.rotary_share:g} of {self.features_per_head} features are "
                f"{self.rotary_features}, and rotary positions turn pairs; try rotary_share "
                f"{max(2, self.rotary_features // 2 * 2) / self.features_per_head:g}"
            )
        return self
