"""The optimizers of a training: SGD with Nesterov momentum or Adam, and Muon for the filters of convolutions."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from train.loop.recipe import Recipe

MUON_MOMENTUM = 0.6
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 3


def orthogonalized(matrix: Tensor) -> Tensor:
    """Nearly the nearest orthogonal matrix U·Vᵀ of M = U·S·Vᵀ, by Newton-Schulz steps (Jordan et al., Muon, 2024).

        X ← M / ‖M‖,   then three times   X ← a·X + (b·A + c·A²)·X   with A = X·Xᵀ, (a, b, c) = (3.4445, −4.775, 2.0315)

    A step maps each singular value s to a·s + b·s³ + c·s⁵, which drives those that are not tiny to about 1.

    Args:
        matrix: (m, n).
    """
    a, b, c = _COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-7)
    for _ in range(_ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.T if wide is not matrix else x


class Muon(torch.optim.Optimizer):
    """Steps of equal size in all directions of a filter, seen as a matrix (C_out, rest), for filters before batch norm.

        m ← μ·m + g,   W ← W · √C_out / ‖W‖,   W ← W − lr · orthogonalized(g + μ·m)

    Batch norm makes the norm of a filter meaningless; held at √C_out, it gives the learning rate the same effect in
    all layers and through the whole training. So it needs no weight decay. The rate follows the batch: 0.06 suits 500
    images, 0.24 suits 2,000 (Jordan, airbench94_muon).

    Args:
        filters: of convolutions (C_out, C_in, ...).
        lr: learning rate. momentum: μ.
    """

    def __init__(self, filters: Iterable[nn.Parameter], lr: float = 0.0, momentum: float = MUON_MOMENTUM) -> None:
        super().__init__(filters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step. The closure is not used."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(weight.grad)
                towards = weight.grad.add(momentum, alpha=group["momentum"])
                weight.mul_(len(weight) ** 0.5 / (weight.norm() + 1e-7))
                change = orthogonalized(towards.flatten(1)).view_as(weight)
                weight.add_(change, alpha=-group["lr"])


class Optimizers:
    """SGD or Adam for all parameters, or Muon for filters and SGD for the rest; as one optimizer.

    Attributes:
        parts: torch optimizers.
        param_groups: of all parts; each has the ``peak`` of its learning rate.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        """The optimizers that a recipe asks for, with learning rate 0."""
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
        biases = {id(m.bias) for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
        filters: list[nn.Parameter] = []
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        fast: list[nn.Parameter] = []
        for parameter in (p for p in network.parameters() if p.requires_grad):
            if parameter.dim() == 4 and recipe.muon:
                filters.append(parameter)
            elif parameter.dim() > 1:
                matrices.append(parameter)
            else:
                (fast if id(parameter) in biases and recipe.bias_rate != 1 else others).append(parameter)
        rate = recipe.learning_rate
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": recipe.weight_decay, "peak": rate},
            {"params": others, "weight_decay": 0.0, "peak": rate},
        ]
        if fast:
            groups.append({"params": fast, "weight_decay": 0.0, "peak": rate * recipe.bias_rate})
        most: torch.optim.Optimizer
        if recipe.optimizer == "adam":
            most = torch.optim.AdamW(groups, lr=0.0)
        else:
            most = torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
        self.parts: list[torch.optim.Optimizer] = [most]
        if filters:
            self.parts.append(Muon([{"params": filters, "peak": recipe.muon}]))  # type: ignore[list-item]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def set_rate(self, share: float) -> None:
        """Learning rates as a share of their peaks."""
        for group in self.param_groups:
            group["lr"] = share * group["peak"]

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of the loss."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)
        loss.backward()
        for part in self.parts:
            part.step()

    def expected(self) -> dict[str, Tensor]:
        """What a checkpoint holds, by name: tensors of these shapes."""
        return {
            name: torch.zeros(()) if key == "step" else parameter
            for part in self.parts
            for group in part.param_groups
            for parameter in group["params"]
            for name, key in self._kept(parameter, group)
        }

    def momentum(self) -> dict[str, Tensor]:
        """Momentum by name; all else follows from the recipe."""
        return {
            name: state[key]
            for part in self.parts
            for group in part.param_groups
            for parameter in group["params"]
            for state in [part.state.get(parameter, {})]
            for name, key in self._kept(parameter, group)
            if state.get(key) is not None
        }

    def load_momentum(self, saved: dict[str, Tensor]) -> None:
        """Continue with the momentum that a checkpoint holds."""
        for part in self.parts:
            for group in part.param_groups:
                for parameter in group["params"]:
                    found = {key: saved[name] for name, key in self._kept(parameter, group) if name in saved}
                    if found:
                        part.state[parameter] = {
                            key: value.clone() if key == "step" else torch.empty_like(parameter).copy_(value)
                            for key, value in found.items()
                        }

    def _kept(self, parameter: Tensor, group: dict[str, Any]) -> list[tuple[str, str]]:
        """Names in a checkpoint, and in the optimizer's state, of what it keeps of a parameter."""
        keys = ("exp_avg", "exp_avg_sq", "step") if "betas" in group else ("momentum_buffer",)
        if not group.get("momentum", True):
            return []
        return [(f"{self._names[parameter]} {key.removesuffix('_buffer')}", key) for key in keys]
