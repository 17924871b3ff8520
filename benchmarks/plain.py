"""The training step written down plainly, as a baseline for `benchmarks.step`: the formulas of the paper one by one.

Softmax attention is explicit and its weights are kept everywhere, in the teacher's last block too; all patches are
embedded, then those of the mask dropped; each network cuts its own patches; the refinement builds the cross-modal
matrix; clipping, AdamW and the teachers' moving average go parameter by parameter. Norms, activations and the
cross-entropy are PyTorch's own. Shapes as in `xkd.models` and `xkd.objectives`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.modalities import MODALITIES, OTHER
from xkd.models.decoder import PatchDecoder
from xkd.models.networks import Networks
from xkd.models.vit import Attention, Block, VisionTransformer
from xkd.objectives.alignment import GAMMAS, SMALLEST_SQUARED_DISTANCE
from xkd.objectives.reconstruction import VARIANCE_FLOOR
from xkd.recipe import Recipe


class PlainStep:
    """One training step of XKD on given networks (only their tensors are used), with `mean` refinement and MMD.

    Args:
        networks: changed by every step.
        recipe: settings; the objective must have all three terms, and global teacher views.
    """

    def __init__(self, networks: Networks, recipe: Recipe):
        self.networks, self.recipe = networks, recipe
        self.centre = {m: torch.zeros(recipe.model.head.out, device=device_of(networks)) for m in MODALITIES}
        named = [(name, p) for name, p in networks.named_parameters() if p.requires_grad]
        decay = recipe.training.weight_decay
        groups = [
            {"params": [p], "weight_decay": decay if p.ndim >= 2 and not name.endswith("bias") else 0.0}
            for name, p in named
        ]
        training = recipe.training
        self.optimiser = torch.optim.AdamW(
            groups, lr=training.learning_rate, betas=training.betas, foreach=False, fused=False
        )

    def __call__(self, views: dict[str, list[Tensor]], ranks: dict[str, Tensor]) -> Tensor:
        """The loss of a batch before the update that it makes."""
        device = views["video"][0].device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.recipe.training.precision == "bfloat16"):
            predicted, students = self._students(views, ranks)
            with torch.no_grad():
                teachers = self._teachers(views)
        loss = self._loss(views, ranks, predicted, students, teachers)
        self.optimiser.zero_grad()
        loss.backward()
        self._clip()
        self.optimiser.step()
        self._follow()
        return loss.detach()

    def _students(self, views, ranks) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        predicted, logits = {}, {}
        for m in MODALITIES:
            encoder = self.networks.students[m]
            keep_BK = self._keep(m, ranks[m])
            visible_BSD, _ = encode(encoder, views[m][0], keep_BK)
            predicted[m] = full(decode(self.networks.decoders[m], visible_BSD, keep_BK))
            means = [visible_BSD[:, 1:].mean(1)]
            means += [encode(encoder, view)[0][:, 1:].mean(1) for view in views[m][1:]]
            logits[m] = full(self.networks.student_heads[m](torch.cat(means)))
        return predicted, logits

    def _teachers(self, views) -> dict[str, Tensor]:
        tokens, attention = {}, {}
        for m in MODALITIES:
            encoded, weights_BHSS = encode(self.networks.teachers[m], views[m][0])
            tokens[m], attention[m] = full(encoded[:, 1:]), full(weights_BHSS[:, :, 0, 1:])
        matrix_BHVA = attention["video"].unsqueeze(-1) * attention["audio"].unsqueeze(-2)
        weights = {
            "video": (matrix_BHVA.mean(-1) / attention["video"].mean(-1, keepdim=True)).mean(1),
            "audio": (matrix_BHVA.mean(-2) / attention["audio"].mean(-1, keepdim=True)).mean(1),
        }
        logits = {}
        for m in MODALITIES:
            weighted = weights[m].unsqueeze(-1) * tokens[m]
            before, after = tokens[m].mean(1).square().sum(-1), weighted.mean(1).square().sum(-1)
            refined = torch.sqrt(before / after)[:, None, None] * weighted
            logits[m] = full(self.networks.teacher_heads[m](refined.mean(1)))
        return logits

    def _loss(self, views, ranks, predicted, students, teachers) -> Tensor:
        objective = self.recipe.objective
        temperatures = {
            "video": objective.teacher_temperature_video[0],
            "audio": objective.teacher_temperature_audio[0],
        }
        reconstruction, distillation = 0.0, 0.0
        for m in MODALITIES:
            patches_BNP = cut(views[m][0], self.networks.students[m].patch)
            targets = patches_BNP - patches_BNP.mean(-1, keepdim=True)
            targets = targets / torch.sqrt(patches_BNP.var(-1, keepdim=True) + VARIANCE_FLOOR)
            hidden_BN = torch.ones(ranks[m].shape, dtype=torch.bool, device=ranks[m].device)
            hidden_BN.scatter_(1, self._keep(m, ranks[m]), False)
            errors_BN = (predicted[m] - targets).square().mean(-1)
            reconstruction = reconstruction + (errors_BN * hidden_BN).sum() / hidden_BN.sum() / 2
            teacher = OTHER[m]
            target = F.softmax((teachers[teacher] - self.centre[teacher]) / temperatures[teacher], dim=-1)
            views_VBK = students[m].view(-1, *target.shape)
            for view_BK in views_VBK:
                log_p = F.log_softmax(view_BK / objective.student_temperature, dim=-1)
                distillation = distillation - (target * log_p).sum(-1).mean() / len(views_VBK) / 2
            momentum = objective.centre_momentum
            self.centre[teacher] = momentum * self.centre[teacher] + (1 - momentum) * teachers[teacher].mean(0)
        alignment = (discrepancy(students) + discrepancy(teachers)) / 2
        weights = (objective.reconstruction, objective.distillation, objective.alignment)
        terms = (reconstruction, distillation, alignment)
        return sum(w * term for w, term in zip(weights, terms, strict=True)) / sum(weights)

    def _keep(self, modality: str, ranks_BN: Tensor) -> Tensor:
        kept = round(ranks_BN.shape[1] * (1 - getattr(self.recipe.objective, f"mask_{modality}")))
        return ranks_BN.argsort(1)[:, :kept]

    def _clip(self) -> None:
        limit = self.recipe.training.clip_gradient
        for parameter in nn.ModuleList([self.networks.students, self.networks.student_heads]).parameters():
            if parameter.grad is not None:
                norm = parameter.grad.norm()
                parameter.grad.mul_((limit / (norm + 1e-6)).clamp(max=1.0))

    @torch.no_grad()
    def _follow(self) -> None:
        momentum = self.recipe.training.ema[0]
        pairs = (
            (self.networks.teachers, self.networks.students),
            (self.networks.teacher_heads, self.networks.student_heads),
        )
        for m in MODALITIES:
            for teachers, students in pairs:
                for teacher, student in zip(teachers[m].parameters(), students[m].parameters(), strict=True):
                    teacher.mul_(momentum).add_(student, alpha=1 - momentum)


def full(x: Tensor) -> Tensor:
    """In float32, or float64 where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def encode(encoder: VisionTransformer, x: Tensor, keep_BK: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Tokens after the final norm and the last block's attention weights (B, H, S, S)."""
    grid = tuple(size // part for size, part in zip(x.shape[-len(encoder.patch) :], encoder.patch, strict=True))
    tokens = encoder.embed(cut(x, encoder.patch)) + encoder.positions_for(grid)
    if keep_BK is not None:
        tokens = tokens.gather(1, keep_BK.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    cls = (encoder.cls_token + encoder.positions[:, :1]).expand(len(x), -1, -1)
    return _blocks(encoder.blocks, torch.cat((cls, tokens), 1), encoder.norm)


def decode(decoder: PatchDecoder, visible_BSD: Tensor, keep_BK: Tensor) -> Tensor:
    """Predicted patches (B, N, P)."""
    x = decoder.project(visible_BSD)
    index = keep_BK.unsqueeze(-1).expand(-1, -1, x.shape[-1])
    filled = decoder.mask_token.to(x.dtype).repeat(len(x), decoder.tokens, 1).scatter(1, index, x[:, 1:])
    x, _ = _blocks(decoder.blocks, torch.cat((x[:, :1], filled), 1) + decoder.positions, nn.Identity())
    return decoder.predict(x[:, 1:])


def _blocks(blocks: nn.ModuleList, x: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    for block in blocks:
        x, weights = _block(block, x)
    return norm(x), weights


def _block(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    out, weights = _attention(block.attn, block.norm1(x))
    x = x + out
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x)))), weights


def _attention(attention: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
    B, S, D = x.shape
    q, k, v = attention.qkv(x).reshape(B, S, 3, attention.heads, D // attention.heads).permute(2, 0, 3, 1, 4)
    weights_BHSS = (q @ k.transpose(-2, -1) * (D // attention.heads) ** -0.5).softmax(-1)
    return attention.proj((weights_BHSS @ v).transpose(1, 2).reshape(B, S, D)), weights_BHSS


def cut(x: Tensor, patch: tuple[int, ...]) -> Tensor:
    """A view as patch vectors (B, N, P), video (t, h, w, channel), audio (mel, time)."""
    B, C, *axes = x.shape
    split = [part for size, step in zip(axes, patch, strict=True) for part in (size // step, step)]
    x = x.reshape(B, C, *split)
    grid, inner = range(2, x.ndim, 2), range(3, x.ndim, 2)
    return x.permute(0, *grid, *inner, 1).flatten(1, len(patch)).flatten(2)


def discrepancy(rows: dict[str, Tensor]) -> Tensor:
    """Biased squared MMD of video and audio rows, each kernel matrix on its own."""
    x, y = rows["video"], rows["audio"]
    return _kernel(x, x).mean() + _kernel(y, y).mean() - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    squared = (x[:, None] - y[None]).square().sum(-1).clamp(min=SMALLEST_SQUARED_DISTANCE)
    return sum(torch.exp(-gamma * squared) for gamma in GAMMAS)


def device_of(module: nn.Module) -> torch.device:
    """The device of its parameters."""
    return next(module.parameters()).device
