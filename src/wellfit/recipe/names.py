"""A name that does not exist in; the nearest that does, or what it means elsewhere, out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

NANOGPT = "nanoGPT"
HF = "Hugging Face"
LITGPT = "litgpt"
AXOLOTL = "axolotl"
FACTORY = "LLaMA-Factory"
TORCHTUNE = "torchtune"
LLAMA = "Meta's Llama code"
LIGHTNING = "Lightning"
TORCHTITAN = "torchtitan"
KERAS = "Keras"
TIMM = "timm"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other trainers call one of our settings."""

    setting: str
    """Dotted path of ours; empty where we have no such setting."""
    trainers: tuple[str, ...]
    note: str = ""
    """What differs, as a clause."""


def elsewhere(key: str) -> Elsewhere | None:
    """A key as another trainer spells it → our setting, or None.

    >>> elsewhere("n_embd").setting
    'model.width'
    """
    return _ELSEWHERE.get(_normal(key))


def suggest(key: str, allowed: Iterable[str]) -> str:
    """A name and the names that exist → the one most likely meant, or nothing.

    Dotted paths may stand among `allowed`; a bare `key` also meets their last part. What other
    trainers call a setting counts when that setting is among `allowed`.

    >>> suggest("too_shrt", ["too_short", "repetitive"])
    'too_short'
    >>> suggest("lr", ["train.optimizer.learning_rate"])
    'train.optimizer.learning_rate'
    """
    names = list(dict.fromkeys(allowed))
    known = elsewhere(key)
    if known is not None and known.setting in names:
        return known.setting
    by_form: dict[str, str] = {}
    for name in names:
        by_form.setdefault(_normal(name), name)
    if _normal(key) in by_form:
        return by_form[_normal(key)]
    for name in names:
        by_form.setdefault(_normal(name.rpartition(".")[2]), name)
    # 0.7: one letter wrong in a word of four still counts, two different words do not.
    near = get_close_matches(_normal(key), by_form, n=1, cutoff=0.7)
    return by_form[near[0]] if near else ""


def suggest_value(value: str, allowed: Iterable[str]) -> str:
    """A word where one of `allowed` belongs → the one most likely meant, or nothing.

    >>> suggest_value("bfloat16", ["auto", "fp32", "bf16"])
    'bf16'
    """
    names = list(allowed)
    meant = _VALUES.get(_normal(value), "")
    return meant if meant in names else suggest(value, names)


def _normal(key: str) -> str:
    return key.strip().lstrip("-").lower().replace("-", "_").replace(" ", "_")


_VALUES = {
    "bfloat16": "bf16", "bf16_true": "bf16", "bf16_mixed": "bf16", "float16": "fp16",
    "16_mixed": "fp16", "16_true": "fp16", "half": "fp16", "float8": "fp8", "float8_e4m3fn": "fp8",
    "tensorfloat32": "tf32", "tfloat32": "tf32", "float32": "fp32", "float": "fp32",
    "32_true": "fp32",
    "gpu": "cuda", "cuda:0": "cuda", "silu": "swiglu", "swish": "swiglu", "glu": "swiglu",
    "gelu_new": "gelu_tanh", "gelu_glu": "geglu", "gemmamlp": "geglu",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_approx": "gelu_tanh",
    "relu": "relu2", "relu_squared": "relu2", "squared_relu": "relu2", "relu^2": "relu2",
    "rope": "rotary", "absolute": "learned", "rms_norm": "rmsnorm", "rms": "rmsnorm",
    "layer_norm": "layernorm", "ln": "layernorm", "adam": "adamw", "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "paged_adamw": "adamw",
    "paged_adamw_32bit": "adamw", "adamw_bnb_8bit": "adamw_8bit", "adamw8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_8bit", "adam_8bit": "adamw_8bit", "adamw_torch_8bit": "adamw_8bit",
    "lion_32bit": "lion", "paged_lion_32bit": "lion", "momentum": "sgd", "adafactor_torch":
    "adafactor", "cpu": "offload", "host": "offload", "disk": "paged", "mmap": "paged",
    "warmup_stable_decay": "wsd", "trapezoidal": "wsd", "constant_with_warmup": "constant",
    "inverse_square_root": "inverse_sqrt", "inv_sqrt": "inverse_sqrt", "rsqrt": "inverse_sqrt",
    "noam": "inverse_sqrt", "poly": "polynomial", "onecycle": "one_cycle", "onecyclelr":
    "one_cycle", "one_cycle_lr": "one_cycle", "1cycle": "one_cycle",
    "cosine_with_min_lr": "cosine", "cosine_with_warmup": "cosine",
    "linear_with_warmup": "linear", "txt": "text", "md": "markdown", "json": "jsonl",
    "ndjson": "jsonl", "pq": "parquet", "python": "code", "source": "code",
    "gpt2": "scaled_normal", "normal": "scaled_normal", "zero_init": "zero_projections",
    "glorot": "xavier", "glorot_normal": "xavier", "xavier_normal": "xavier", "kaiming": "he",
    "kaiming_normal": "he", "he_normal": "he", "small_init": "small", "wang_init": "small",
    "mlm": "masked", "masked_lm": "masked", "clm": "next_token", "causal_lm": "next_token",
    "span_corruption": "denoising", "bert": "encoder", "gpt": "decoder", "t5": "encoder_decoder",
    "seq2seq": "encoder_decoder", "encoder-decoder": "encoder_decoder",
    "tiny": "nano", "medium": "base", "large": "1b", "xl": "3b",
}  # fmt: skip


def _table() -> dict[str, Elsewhere]:
    table: dict[str, Elsewhere] = {}
    for setting, trainers, keys, note in _ROWS:
        for key in keys.split():
            table[key] = Elsewhere(setting, trainers, note)
    return table


_ROWS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    # ── model ──
    ("model.width", (NANOGPT, HF, LITGPT), "n_embd hidden_size d_model embed_dim embedding_dim "
     "embedding_size emb_dim dim hidden_dim n_embed", ""),
    ("model.kind", (HF,), "is_encoder_decoder is_decoder", "decoder, encoder or encoder_decoder"),
    ("model.encoder_layers", (HF,), "num_encoder_layers n_encoder_layers enc_layers", ""),
    ("model.layers", (NANOGPT, HF, LITGPT), "n_layer n_layers num_hidden_layers num_layers depth",
     ""),
    ("model.heads", (NANOGPT, HF, LITGPT), "n_head n_heads num_attention_heads num_heads", ""),
    ("model.kv_heads", (HF, LITGPT, TORCHTUNE), "num_key_value_heads num_kv_heads n_kv_heads "
     "n_kv_head n_query_groups", ""),
    ("model.hidden", (HF, LITGPT), "intermediate_size n_inner ffn_dim d_ff ffn_hidden_size "
     "intermediate_dim mlp_hidden_size", ""),
    ("model.context", (NANOGPT, HF, AXOLOTL, FACTORY, TORCHTUNE), "block_size seq_length seq_len "
     "max_seq_len max_seq_length sequence_length sequence_len cutoff_len n_ctx context_length "
     "max_position_embeddings n_positions context_size model_max_length max_length", ""),
    ("model.head_width", (HF, LITGPT, TORCHTUNE), "head_dim head_size d_head kv_channels", ""),
    ("model.experts.count", (HF, LITGPT), "num_local_experts num_experts n_routed_experts "
     "n_experts n_expert moe_num_experts num_moe_experts", ""),
    ("model.experts.active", (HF, LITGPT), "num_experts_per_tok n_expert_per_token moe_top_k "
     "num_experts_per_token experts_per_token per_token moe_router_topk", ""),
    ("model.experts.hidden", (HF, LITGPT), "moe_intermediate_size expert_intermediate_size "
     "moe_ffn_hidden_size", ""),
    ("model.experts.shared", (HF, LITGPT), "n_shared_experts num_shared_experts n_shared_expert",
     ""),
    ("model.experts.normalise", (HF,), "norm_topk_prob norm_topk", ""),
    ("model.experts.balance_loss", (HF,), "router_aux_loss_coef aux_loss_alpha moe_aux_loss_coeff "
     "load_balancing_loss", ""),
    ("model.experts.router_z_loss", (HF,), "router_z_loss_coef moe_z_loss_coeff", ""),
    ("model.position", (HF,), "position_embedding_type pos_emb positional_encoding positions", ""),
    ("model.rope_base", (HF, LITGPT, LLAMA), "rope_theta rope_freq_base rotary_emb_base", ""),
    ("model.rope_scaling.kind", (HF,), "rope_type", ""),
    ("model.rope_scaling.original_context", (HF, LITGPT), "original_max_position_embeddings "
     "original_max_seq_len", ""),
    ("model.rope_scaling.low_factor", (HF, LITGPT), "low_freq_factor", ""),
    ("model.rope_scaling.high_factor", (HF, LITGPT), "high_freq_factor", ""),
    ("model.rope_local_base", (HF, LITGPT), "rope_local_base_freq", ""),
    ("model.rotary_share", (HF, LITGPT), "partial_rotary_factor rotary_pct rotary_percentage",
     ""),
    ("model.window", (HF, LITGPT), "sliding_window sliding_window_size window_size "
     "attention_window use_sliding_window", "in tokens, 0 for none"),
    ("model.global_every", (HF,), "sliding_window_pattern layer_types "
     "sliding_window_layer_placement", "every n-th layer sees past the window"),
    ("model.attention_soft_cap", (HF, LITGPT), "attn_logit_softcapping "
     "attention_logit_softcapping attention_logit_soft_cap", ""),
    ("model.norm", (LITGPT,), "norm_class_name normalization norm_type", ""),
    ("model.norm_epsilon", (HF, LITGPT, LLAMA), "rms_norm_eps layer_norm_eps layer_norm_epsilon "
     "norm_eps", ""),
    ("model.activation", (HF, LITGPT), "hidden_act activation_function act_fn mlp_class_name", ""),
    ("model.bias", (HF,), "attention_bias mlp_bias use_bias", ""),
    ("model.qkv_bias", (LITGPT,), "attn_bias add_qkv_bias", ""),
    ("model.post_norm", (LITGPT,), "post_attention_norm post_mlp_norm use_post_norm", ""),
    ("model.scale_embeddings", (LITGPT,), "scale_embeddings embed_scale", ""),
    ("model.qk_norm", (HF, LITGPT), "use_qk_norm norm_qk qk_layernorm", ""),
    ("model.tie_embeddings", (HF,), "tie_word_embeddings tied_embeddings weight_tying "
     "tie_weights", ""),
    ("model.logit_soft_cap", (HF, LITGPT), "final_logit_softcapping logit_softcap softcap "
     "logits_soft_cap", ""),
    ("model.dropout", (HF, TORCHTUNE), "attn_dropout attention_dropout hidden_dropout resid_pdrop "
     "embd_pdrop attn_pdrop dropout_p resid_dropout", "one share for all places"),
    ("model.init", (HF,), "initializer_range init_std init_method", "a scheme, not a number"),
    ("model.base_width", (HF,), "mup_base_width mup_base_dim base_d_model d_model_base "
     "dim_model_base mup_base_shapes mup base_dim", "a width; the rest of the base model is in "
     "proportion"),
    ("model.base_head_width", (), "d_head_base base_d_head base_head_dim", ""),
    ("model.size", (), "model_size", ""),
    ("model.preset", (NANOGPT, HF, LITGPT), "model_name model_type base_model model_name_or_path "
     "pretrained_model_name_or_path", "a published shape, without its weights"),
    # ── train ──
    ("train.objective.kind", (HF,), "mlm objective task_type", "it follows model.kind"),
    ("train.objective.share", (HF,), "mlm_probability mlm_prob masked_lm_prob noise_density "
     "corruption_rate", ""),
    ("train.objective.mask_share", (HF,), "mask_replace_prob", "of the tokens to be predicted"),
    ("train.objective.random_share", (HF,), "random_replace_prob", "of the tokens to be "
     "predicted"),
    ("train.objective.span_length", (HF,), "mean_noise_span_length mean_span_length", ""),
    ("train.optimizer.learning_rate", (NANOGPT, HF, AXOLOTL), "lr learning_rate max_lr peak_lr "
     "base_lr", "with muon the matrices have matrix_learning_rate"),
    ("train.optimizer.kind", (HF, AXOLOTL, FACTORY), "optim optimizer_type optimizer_name", ""),
    ("train.optimizer.weight_decay", (NANOGPT, HF), "weight_decay wd", ""),
    ("train.optimizer.beta1", (NANOGPT, HF), "adam_beta1 beta_1 betas", "two settings, "
     "beta1 and beta2"),
    ("train.optimizer.beta2", (NANOGPT, HF), "adam_beta2 beta_2", ""),
    ("train.optimizer.epsilon", (HF,), "adam_epsilon adam_eps eps", ""),
    ("train.optimizer.states", (TORCHTUNE, HF), "cpu_offload offload_optimizer offload_optimizer_"
     "device optimizer_offload optimizer_cpu_offload is_paged paged",
     "one of device, offload, paged"),
    ("train.optimizer.groups", (HF, AXOLOTL, FACTORY), "param_groups param_groups_rates "
     "embedding_lr embedding_lr_scale lr_groups embedding_learning_rate", "by role, each with rate "
     "(times the peak) and weight_decay"),
    ("train.optimizer.scale_by_size", (HF,), "scale_parameter", ""),
    ("train.optimizer.decay_power", (HF,), "decay_rate beta2_decay", "without the minus sign"),
    ("train.optimizer.clip_threshold", (HF,), "clip_threshold", ""),
    ("train.schedule.power", (HF,), "lr_power poly_power polynomial_power", ""),
    ("train.schedule.kind", (HF, AXOLOTL, FACTORY), "lr_scheduler_type lr_scheduler scheduler "
     "lr_schedule decay_lr", ""),
    ("train.schedule.warmup", (NANOGPT, HF, LITGPT), "warmup_ratio warmup_steps warmup_iters "
     "lr_warmup_steps lr_warmup_iters num_warmup_steps warmup lr_warmup_fraction",
     "a share of all steps if below 1, else a number of steps"),
    ("train.schedule.decay_share", (NANOGPT, HF), "cooldown_frac warmdown_ratio num_decay_steps "
     "cooldown decay_frac", "a share of all steps"),
    ("train.schedule.final_share", (NANOGPT, LITGPT, HF), "min_lr min_lr_ratio min_lr_rate "
     "cosine_min_lr_ratio", "a share of the peak, not a rate"),
    ("train.budget.steps", (NANOGPT, HF, LITGPT, TORCHTUNE), "max_steps max_iters max_step "
     "num_steps total_steps train_steps num_iterations max_steps_per_epoch", ""),
    ("train.budget.epochs", (HF, AXOLOTL, TORCHTUNE), "num_train_epochs num_epochs epochs "
     "max_epochs n_epochs", ""),
    ("train.budget.tokens", (LITGPT,), "max_tokens total_tokens train_tokens num_tokens", ""),
    ("train.budget.minutes", (), "max_time max_minutes time_limit minutes", ""),
    ("train.batch_tokens", (NANOGPT, LITGPT, HF), "global_batch_size total_batch_size "
     "effective_batch_size train_batch_size batch_size",
     "in tokens: sequences of one step × model.context"),
    ("train.batch_tokens", (NANOGPT, HF, AXOLOTL, TORCHTUNE), "gradient_accumulation_steps "
     "gradient_accumulation_iters grad_accum accumulate_grad_batches grad_accum_steps",
     "not counted in passes: a step takes as many passes of train.micro_batch sequences as "
     "train.batch_tokens holds"),
    ("train.micro_batch", (HF, AXOLOTL, LITGPT), "per_device_train_batch_size micro_batch_size "
     "device_batch_size micro_batch per_device_batch_size auto_find_batch_size",
     "sequences in one pass"),
    ("train.clip_norm", (NANOGPT, HF, TORCHTUNE), "grad_clip max_grad_norm gradient_clip_val "
     "clip_grad_norm max_norm gradient_clipping clip_grad", ""),
    ("train.precision", (NANOGPT, HF, LITGPT, AXOLOTL), "dtype bf16 fp16 mixed_precision "
     "torch_dtype amp fp32 tf32", "one of auto, fp32, tf32, bf16, fp16, fp8"),
    ("train.label_smoothing", (HF,), "label_smoothing_factor label_smoothing smoothing", ""),
    ("train.z_loss", (), "z_loss_coefficient z_loss_weight z_loss_multiplier lm_z_loss "
     "use_z_loss softmax_auxiliary_loss", "a factor; 0 turns it off"),
    ("train.activation_checkpointing", (HF, AXOLOTL, FACTORY, TORCHTUNE), "gradient_checkpointing "
     "enable_activation_checkpointing activation_checkpoint activation_checkpointing_mode "
     "recompute_activations recompute_granularity", "one of none, selective, full"),
    ("train.activation_offload", (AXOLOTL, TORCHTUNE), "enable_activation_offloading "
     "activation_offloading offload_activations cpu_offload_activations", ""),
    ("train.compile", (NANOGPT, HF, AXOLOTL, TORCHTUNE), "compile torch_compile",
     "one of auto, on, off"),
    ("train.device", (NANOGPT, HF), "device use_cpu no_cuda accelerator", ""),
    ("train.document_mask", (FACTORY,), "neat_packing intra_doc_mask", "rows are always packed; "
     "this keeps documents apart"),
    ("train.checkpoint_every", (HF, LITGPT, AXOLOTL), "save_steps save_interval save_every "
     "checkpoint_interval save_strategy", ""),
    ("train.keep_last", (HF,), "save_total_limit keep_last", ""),
    ("train.keep_best", (LIGHTNING,), "save_top_k keep_top_k keep_best", ""),
    ("train.best_by", (HF,), "metric_for_best_model best_metric early_stopping_metric",
     "such as validation.loss"),
    ("train.restore_best", (HF, KERAS), "load_best_model_at_end restore_best_weights "
     "load_best_model", "needs train.keep_best"),
    ("train.stop_early.patience", (HF, AXOLOTL, LIGHTNING), "early_stopping_patience patience "
     "early_stopping", "in evaluations"),
    ("train.stop_early.min_delta", (HF, LIGHTNING), "early_stopping_threshold min_delta", ""),
    ("train.save_in_background", (TORCHTITAN, TORCHTUNE), "async_mode enable_async_checkpointing "
     "async_save async_checkpoint", "true or false"),
    ("train.ema_decay", (TIMM,), "ema model_ema model_ema_decay use_ema ema_rate", "a share; "
     "0 turns it off"),
    ("train.threads", (), "num_threads n_threads omp_num_threads", ""),
    # ── evaluate, monitor ──
    ("evaluate.every", (NANOGPT, HF, LITGPT), "eval_interval eval_steps evals_per_epoch "
     "eval_every evaluation_strategy eval_strategy val_check_interval", "in steps"),
    ("evaluate.tokens", (NANOGPT, LITGPT), "eval_iters eval_batches max_eval_samples eval_tokens "
     "max_eval_steps", "in tokens"),
    ("monitor.sample_every", (), "sample_interval generate_every sample_steps", ""),
    ("monitor.sampling.tokens", (HF, NANOGPT), "max_new_tokens", ""),
    ("monitor.sampling.temperature", (), "temperature", ""),
    ("monitor.sampling.top_k", (), "top_k", ""),
    ("monitor.sampling.top_p", (), "top_p", ""),
    ("monitor.sampling.min_p", (), "min_p", ""),
    ("monitor.sampling.repetition_penalty", (), "repetition_penalty", ""),
    ("monitor.sampling.stop", (HF,), "stop_strings", ""),
    # ── data ──
    ("data.sources", (HF, AXOLOTL, FACTORY, LITGPT), "dataset datasets dataset_name data_dir "
     "train_file train_files dataset_path data_path train_data data_files dataset_dir", ""),
    ("data.tokens", (), "pretokenized pretokenized_data tokenized_data tokenized_dataset "
     "skip_tokenization skip_prepare_dataset token_files", "tokens made elsewhere"),
    ("data.tokens.train", (), "train_bin input_bin train_files_bin train_tokens",
     "a list of files"),
    ("data.tokens.validation", (), "val_bin input_val_bin val_files_bin validation_tokens",
     "a list of files"),
    ("data.tokens.separator", (), "eot eot_token eos_token_id eot_token_id document_separator "
     "delimiter_token", "an id"),
    ("data.tokens.column", (), "input_ids_column token_column tokens_column", ""),
    ("model.weights", (HF, AXOLOTL, FACTORY, TORCHTUNE), "model_name_or_path base_model "
     "pretrained_model_name_or_path model_name checkpoint_dir pretrained model_id init_weights "
     "pretrained_model", "a folder: nothing is downloaded"),
    ("model.adapter", (HF, AXOLOTL, FACTORY, LITGPT, TORCHTUNE), "adapter lora peft peft_config "
     "lora_config finetuning_type use_lora qlora use_peft", "a section: {rank: 16}"),
    ("model.adapter.rank", (HF, AXOLOTL, FACTORY, LITGPT, TORCHTUNE), "r lora_r lora_rank", ""),
    ("model.adapter.alpha", (HF, AXOLOTL, FACTORY, LITGPT, TORCHTUNE), "lora_alpha", ""),
    ("model.adapter.dropout", (HF, AXOLOTL, FACTORY, LITGPT, TORCHTUNE), "lora_dropout", ""),
    ("model.adapter.targets", (HF, AXOLOTL, FACTORY, TORCHTUNE), "target_modules lora_target "
     "lora_target_modules lora_attn_modules lora_target_linear", "a list of names or patterns"),
    ("model.adapter.modules_to_save", (AXOLOTL, FACTORY), "lora_modules_to_save "
     "additional_target", ""),
    ("model.adapter.rslora", (HF, FACTORY, AXOLOTL), "use_rslora peft_use_rslora", ""),
    ("model.adapter.kind", (HF, FACTORY, AXOLOTL), "use_dora peft_use_dora", "lora or dora"),
    ("model.adapter.bias", (HF,), "lora_bias", "none, adapter or all"),
    ("model.adapter.init", (HF,), "init_lora_weights", "kaiming or gaussian"),
    ("model.quantize.kind", (HF, AXOLOTL, FACTORY, LITGPT), "load_in_4bit load_in_8bit "
     "quantization_bit bnb_4bit_quant_type quantize_base quantization", "nf4, int8 or bf16"),
    ("model.quantize.double_quantization", (HF, FACTORY), "bnb_4bit_use_double_quant "
     "double_quantization", ""),
    ("model.module", (HF,), "model_class auto_model module_path model_cls architectures",
     "a function of your own, package.module:function"),
    ("train.loss", (HF,), "loss_fn loss_function criterion compute_loss_func objective loss_type",
     "a function of your own, package.module:function"),
    ("data.packing", (HF, AXOLOTL, FACTORY, TORCHTUNE), "packing packing_strategy sample_packing "
     "packed multipack", "rows are always packed: stream cuts documents, best_fit pads; what keeps "
     "them apart is train.document_mask"),
    ("data.folder", (AXOLOTL,), "dataset_prepared_path cache_dir", ""),
    ("data.tokenizer.file", (HF, TORCHTUNE), "tokenizer_name tokenizer_path tokenizer_file "
     "tokenizer_dir", "a tokenizer.json"),
    ("data.tokenizer.vocabulary_size", (NANOGPT, HF, LITGPT), "vocab_size n_vocab "
     "padded_vocab_size vocabulary_size", "learned from the data; a tokenizer file brings its own"),
    ("data.split.validation", (AXOLOTL, FACTORY), "val_set_size val_size validation_split "
     "val_split_fraction val_fraction validation_split_percentage eval_fraction", "a share"),
    ("data.split.test", (), "test_size test_fraction test_split", "a share"),
    ("data.workers", (HF, FACTORY), "num_workers num_proc preprocessing_num_workers "
     "dataset_processes dataloader_num_workers dataset_num_proc", "processes of the data build"),
    ("seed", (HF, TORCHTUNE), "random_seed data_seed seed_value manual_seed", ""),
    ("name", (HF, AXOLOTL), "run_name wandb_run_name exp_name experiment_name wandb_name", ""),
    # ── named elsewhere, not a setting here ──
    ("", (HF, LITGPT, AXOLOTL, NANOGPT), "output_dir out_dir save_dir",
     "the run folder is given on the command line: --out DIR"),
    ("", (HF, AXOLOTL), "resume_from_checkpoint auto_resume_from_checkpoints init_from",
     "resuming is asked for on the command line: --resume"),
    ("", (HF, AXOLOTL), "logging_steps log_interval log_every_n_steps logging_strategy",
     "every step is recorded"),
    ("", (HF, NANOGPT), "report_to wandb_log use_wandb wandb_project logging_dir",
     "records are written to the run folder"),
    ("", (HF, LIGHTNING), "greater_is_better", "train.best_by knows which way is better"),
)  # fmt: skip

_ELSEWHERE = _table()
