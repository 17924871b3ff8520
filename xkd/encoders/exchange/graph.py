"""One graph from frames or samples to features, for batches of any size and clips of any length, and its test."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from xkd import __version__
from xkd.encoders.exchange.inputs import GraphInput, input_of
from xkd.encoders.exchange.positions import AnyLengthTransformer
from xkd.encoders.pretrained import PretrainedEncoder
from xkd.errors import UserError
from xkd.models.encoder import Backbone, Encoder, ModalityShape
from xkd.models.vit import VisionTransformer

OUTPUT = "features"
BATCHES = (1, 3)


class EncoderGraph(nn.Module):
    """What is traced: the conversion of the input, the network, and the mean of its patch tokens.

    Attributes:
        words: what the file says of itself: input, output, where the weights come from, and config.json.
    """

    def __init__(self, model: PretrainedEncoder) -> None:
        super().__init__()
        self.input = input_of(model)
        self.encoder = _any_length(model)
        self.words = _words(model, self.input)

    def forward(self, clips: Tensor) -> Tensor:
        """Computes features (B, D) of clips (B, T, H, W, 3) or (B, S)."""
        return self.encoder.features(self.input(clips))


def traced(graph: EncoderGraph) -> ExportedProgram:
    """Traces a graph; the size of the batch and the length of the clips stay open.

    Raises:
        UserError: the backbone, a plugin's, cannot be traced so.
    """
    clips = graph.input
    # Neither the trained length nor one of whole patches: what holds for these alone must not become part of the graph.
    example = clips.draw(2, max(clips.usual, clips.shortest) + clips.step + 1)
    axes = {0: Dim("batch"), 1: Dim(clips.name, min=clips.shortest)}
    try:
        return torch.export.export(
            graph, (example,), dynamic_shapes=(axes,), strict=True, prefer_deferred_runtime_asserts_over_guards=True
        )
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the backbone of {type(graph.encoder).__name__} cannot be exported, since something in it holds for one "
            f"length of clips or one size of batches only; mend it there: {reason}"
        ) from error


def largest_difference(model: PretrainedEncoder, clips: GraphInput, run: Callable[[Tensor], Tensor]) -> float:
    """Compares features with those of the encoder itself: random clips of three lengths, two sizes of batches.

    Args:
        run: computes features of clips, as another runtime does.

    Returns:
        The largest difference of a value; nan if one is not finite.

    Raises:
        UserError: the runtime fails.
    """
    rate = (clips.rate,) if model.modality.name == "audio" else ()
    longest = 2 * max(clips.usual, clips.shortest) + clips.step // 2
    differences = []
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        for length in (clips.shortest, clips.usual, longest):
            for batch in BATCHES:
                drawn = clips.draw(batch, length)
                differences.append((_ran(run, drawn) - model(drawn, *rate)).abs().max())
    return torch.stack(differences).max().item()


def _ran(run: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    try:
        return run(clips)
    except Exception as error:  # every runtime has errors of its own
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the exported file does not run for clips of {tuple(clips.shape)}: {reason}") from error


def _any_length(model: PretrainedEncoder) -> Encoder:
    """Returns the network, which may have to compute its positions in another way."""
    config, trained = model.config, model.encoder
    if type(trained) is not VisionTransformer:
        return trained
    shape = ModalityShape(config.patch, config.grid, config.channels)
    backbone = Backbone(config.arch, config.width, config.depth, config.heads)
    return AnyLengthTransformer(trained, shape, backbone, model.modality.time_axis).requires_grad_(False).eval()


def _words(model: PretrainedEncoder, clips: GraphInput) -> dict[str, str]:
    config = model.config
    return {
        "description": f"XKD {config.modality} encoder ({config.owner}), written by xkd {__version__}",
        clips.name: clips.words,
        OUTPUT: f"float32 (batch, {config.width}): mean of the patch tokens after the final norm, one row per clip.",
        "origin": config.origin,
        "licence": config.licence,
        "config": json.dumps(config.model_dump(mode="json")),
    }
