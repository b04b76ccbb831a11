"""Parts of a model whose weights are frozen, that cost less than as transformers and peft compute
them.

Each gives what it replaces does, within rounding. On a CPU, torch's operations on tensors of
different dtypes are some twenty times slower than on those of one, and its fused attention in
bfloat16 is four times slower than matrix products.
"""

from __future__ import annotations

from functools import lru_cache, partial
from types import MethodType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

ATTENTION: Final = "textgen"
"""The name of `attention` among the implementations of transformers."""
_ROWS: Final = 512  # of hidden states whose logits are in memory at once
_COLUMNS: Final = 8192  # tokens of the vocabulary, the same
_SQUARE: Final = 512  # longest window for which the weights of attention are kept


class AddAdapter(Function):
    """result + scale (x A^T) B^T, for x (..., K), A (r, K), B (N, r) and result (..., N).

    A and B are float32, and computed with in the dtype of x.
    """

    @staticmethod
    def forward(ctx: Any, result: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """The sum; x is kept, and not the result."""
        flat, a, b = x.reshape(-1, x.shape[-1]), a.to(x.dtype), b.to(x.dtype) * scale
        inner = flat @ a.t()
        ctx.save_for_backward(flat, inner, a, b)
        ctx.scale = scale
        return torch.addmm(result.reshape(-1, len(b)), inner, b.t()).view(result.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of result, x, A and B."""
        flat, inner, a, b = ctx.saved_tensors
        rows = gradient.reshape(-1, len(b)).to(b.dtype)  # autocast may have chosen another
        back = rows @ b
        x = (back @ a).view(*gradient.shape[:-1], -1) if ctx.needs_input_grad[1] else None
        return (
            gradient,
            x,
            (back.t() @ flat).float(),
            (rows.t() @ inner.to(b.dtype)).float() * ctx.scale,
            None,
        )


class Normed(Function):
    """w x / sqrt(mean(x^2) + eps), for x (..., K) and a frozen w (K,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Computed in float32."""
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        made: Tensor = (wide * inverse).to(x.dtype).mul_(weight)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of x."""
        x, weight, inverse = ctx.saved_tensors
        wide, normal = (gradient * weight).float(), x.float() * inverse
        along = (wide * normal).mean(-1, keepdim=True)
        return torch.addcmul(wide, normal, along, value=-1).mul_(inverse).to(x.dtype), None, None


class Gated(Function):
    """silu(gate) * up, which keeps these two alone for the gradient."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """The product."""
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of gate and up."""
        gate, up = ctx.saved_tensors
        of_gate = torch.ops.aten.silu_backward(gradient * up, gate)
        return of_gate, functional.silu(gate).mul_(gradient)


class HeadLosses(Function):
    """The cross-entropies (N,) float32 of hidden states (N, K) for targets (N,), whose logits are
    products with the frozen weight (V, K), but -inf for the tokens `silent`.

    Logits come in blocks of rows and columns, each with its own softmax, which is weighted once all
    are known; so there is no array (N, V). The gradient is computed along with the losses.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, silent: Tensor
    ) -> Tensor:
        """The losses."""
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), _ROWS):
            rows = slice(start, start + _ROWS)
            x, y = hidden[rows], targets[rows, None]
            chosen = x.new_zeros((len(x), 1), dtype=torch.float32)
            sums, means = [], []
            for first in range(0, len(weight), _COLUMNS):
                block = weight[first : first + _COLUMNS]
                logits = x @ block.t()
                here = silent[(silent >= first) & (silent < first + len(block))] - first
                logits.index_fill_(1, here, torch.finfo(logits.dtype).min)
                shares = torch.softmax(logits, 1)
                top, place = logits.max(1, keepdim=True)
                sums.append(top.float() - shares.gather(1, place).float().log())
                is_here = (y >= first) & (y < first + len(block))
                picked = logits.gather(1, (y - first).clamp(0, len(block) - 1)).float()
                chosen = torch.where(is_here, picked, chosen)
                if gradient is not None:
                    means.append(shares @ block)
            of_blocks = torch.cat(sums, 1)
            whole = of_blocks.logsumexp(1, keepdim=True)
            losses[rows] = (whole - chosen)[:, 0]
            if gradient is not None:
                total = -weight[y[:, 0]].float()
                for mean, share in zip(means, (of_blocks - whole).exp().unbind(1), strict=True):
                    total.addcmul_(mean.float(), share[:, None])
                gradient[rows] = total.to(gradient.dtype)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of the hidden states."""
        (made,) = ctx.saved_tensors
        return made * gradient[:, None].to(made.dtype), None, None, None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention as transformers calls it: query (B, H, T, D), key and value (B, G, S, D) to
    (B, T, H, D).

    That of windows in bfloat16, or to be trained, on a CPU, is computed here if all rows have the
    same mask; any other by torch.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    (batch, heads, length, size), (groups, keys) = query.shape, key.shape[1:3]
    is_slow = query.requires_grad or query.dtype == torch.bfloat16
    is_fit = query.device.type == "cpu" and 1 < length <= _SQUARE and not dropout
    is_shared = length == keys if attention_mask is None else _is_shared(attention_mask)
    if not (is_slow and is_fit and is_shared):
        own: Any = sdpa_attention_forward
        made, _ = own(module, query, key, value, attention_mask, dropout, scaling, **options)
        return made, None
    mask = _added(attention_mask, length, heads // groups, query.dtype)
    q = query.reshape(batch * groups, -1, size)
    k, v = (each.reshape(batch * groups, keys, size) for each in (key, value))
    scale = size**-0.5 if scaling is None else scaling
    weights = torch.softmax(torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale), -1)
    return (weights @ v).view(batch, heads, length, size).transpose(1, 2), None


def _is_shared(mask: Tensor) -> bool:
    """Whether all rows and heads have one mask (B, 1, T, S), which says what is seen."""
    is_one = mask.shape[1] == 1 and (len(mask) == 1 or mask.stride(0) == 0)
    return mask.dtype == torch.bool and is_one


@lru_cache(maxsize=4)  # all layers have the same
def _added(mask: Tensor | None, length: int, heads: int, dtype: torch.dtype) -> Tensor:
    """What is added to the products of `heads` heads that share keys, (heads T, S): -inf for what
    is hidden, by a mask (B, 1, T, S), or without one above the diagonal.
    """
    above = torch.ones(length, length, dtype=torch.bool).triu_(1)
    hidden = above if mask is None else ~mask[0, 0]
    added = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)
    return added.repeat(heads, 1)


def make_lean(model: Any) -> None:
    """Replace the attention, norms and gates of a frozen model of transformers, where trying them
    shows that the replacement gives the same.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        model.set_attn_implementation(ATTENTION)
    for module in model.modules():
        if hasattr(module, "variance_epsilon") and hasattr(module, "weight"):
            _replace(module, _norm, len(module.weight))
        elif all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")):
            _replace(module, _gated, module.gate_proj.in_features)


def _norm(module: Any, x: Tensor) -> Tensor:
    made: Tensor = Normed.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return made


def _gated(module: Any, x: Tensor) -> Any:
    return module.down_proj(Gated.apply(module.gate_proj(x), module.up_proj(x)))  # type: ignore[no-untyped-call]


def _replace(module: Any, forward: Any, size: int) -> None:
    """Make `forward` that of the module if it gives the same for vectors of `size` numbers."""
    weight = next(module.parameters())
    x = torch.linspace(-1, 1, 3 * size, device=weight.device).view(3, size).to(weight.dtype)
    with torch.no_grad():
        same = partial(torch.allclose, rtol=0.02, atol=1e-3)
        if same(forward(module, x).float(), module(x).float()):
            module.forward = MethodType(forward, module)
