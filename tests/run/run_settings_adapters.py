"""How each setting of adapters shows its effect: (what both have, the change, where it is seen)."""

from __future__ import annotations

# Beside a base that is not all zeros where it writes.
LORA = ("model.adapter={rank: 4, alpha: 8}", "model.init=scaled_normal")
LAYERS = (*LORA, "model.layers=2")
PACKED = (*LORA, "model.quantize={kind: nf4}")
ADAPTERS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "model.adapter.kind": (LORA, "model.adapter.kind=dora", "weights"),
    "model.adapter.rank": (LORA, "model.adapter.rank=3", "weights"),
    "model.adapter.alpha": (LORA, "model.adapter.alpha=80", "weights"),
    "model.adapter.rslora": (LORA, "model.adapter.rslora=true", "weights"),
    "model.adapter.dropout": (LORA, "model.adapter.dropout=0.3", "weights"),
    "model.adapter.targets": (LORA, "model.adapter.targets=[query]", "weights"),
    "model.adapter.targets[]": (
        (*LORA, "model.adapter.targets=[query]"), "model.adapter.targets.0=.*(up|down)", "weights",
    ),
    "model.adapter.layers_to_transform": (
        LAYERS, "model.adapter.layers_to_transform=[1]", "weights",
    ),
    "model.adapter.layers_to_transform[]": (
        (*LAYERS, "model.adapter.layers_to_transform=[1]"),
        "model.adapter.layers_to_transform.0=0",
        "weights",
    ),
    "model.adapter.layers_pattern": (
        (*LORA, "model.kind=encoder_decoder", "model.adapter.layers_to_transform=[0]"),
        "model.adapter.layers_pattern=encoder_blocks",
        "weights",
    ),
    "model.adapter.modules_to_save": (LORA, "model.adapter.modules_to_save=[head]", "weights"),
    "model.adapter.modules_to_save[]": (
        (*LORA, "model.adapter.modules_to_save=[head]"),
        "model.adapter.modules_to_save.0=final_norm",
        "weights",
    ),
    "model.adapter.bias": (
        (*LORA, "model.bias=true", "model.adapter.targets=[query]"),
        "model.adapter.bias=all",
        "weights",
    ),
    "model.adapter.init": (LORA, "model.adapter.init=gaussian", "weights"),
    "model.quantize.kind": (LORA, "model.quantize.kind=int8", "weights"),
    "model.quantize.block_size": (PACKED, "model.quantize.block_size=32", "weights"),
    "model.quantize.double_quantization": (
        PACKED, "model.quantize.double_quantization=false", "weights",
    ),
}  # fmt: skip
