"""Maps our parameter names to those of the released files (method section 5)."""

from __future__ import annotations

EMBEDDINGS = {"video": "cuboid_embed.proj", "audio": "patch_embed.proj"}
_HEAD_LAYERS = {"layer1": "mlp.0", "norm": "mlp.1", "layer2": "mlp.3", "layer3": "mlp.6"}


def encoder_key(modality: str, name: str) -> str:
    """Returns the key in a released backbone of parameter `name` of a `VisionTransformer`."""
    first, _, rest = name.partition(".")
    if first == "embed":
        return f"{EMBEDDINGS[modality]}.{rest}"
    if first == "blocks":
        return f"encoder.{name}"
    if first == "norm":
        return f"encoder_norm.{rest}"
    return {"cls_token": "cls_token", "positions": "enc_pos_embed"}[name]


def head_key(name: str) -> str:
    """Returns the key of parameter `name` of a `ProjectionHead`; its one LayerNorm is listed under mlp.4 too."""
    if name == "directions":
        return "last_layer.weight_v"
    layer, _, kind = name.partition(".")
    return f"{_HEAD_LAYERS[layer]}.{kind}"


def decoder_key(name: str) -> str:
    """Returns the key of parameter `name` of a `PatchDecoder`."""
    first, _, rest = name.partition(".")
    if first == "blocks":
        return f"decoder.{name}"
    return {
        "positions": "dec_pos_embed",
        "mask_token": "mask_token",
        "project": f"mid_proj.{rest}",
        "predict": f"out_proj.{rest}",
    }[first]
