"""The host's SGD in fewer kernels: the same groups and clipping, the same update to fp32's rounding."""

import torch
from torch import nn

_FASTEST_FIRST = ({"fused": True, "foreach": False}, {"fused": False, "foreach": True})


def speed_up(optimizer: torch.optim.SGD) -> torch.optim.SGD:
    """`optimizer` itself, with one kernel for the whole update, or one per operation, where torch has it.

    A state of any other way of updating can be loaded: how to update is this process's choice.
    """
    device = optimizer.param_groups[0]["params"][0].device
    options = next((way for way in _FASTEST_FIRST if _runs(way, device)), {})

    def choose(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group.update(options)
        _lay_out_momentum(optimizer)

    choose(optimizer)
    optimizer.register_load_state_dict_post_hook(choose)
    optimizer.register_step_pre_hook(_start_momentum)
    return optimizer


def _lay_out_momentum(optimizer: torch.optim.SGD) -> None:
    """Like the weights, which may have lain otherwise when it was saved: the fused kernel goes by memory."""
    for parameter, state in optimizer.state.items():
        momentum = state.get("momentum_buffer")
        if momentum is not None and momentum.stride() != parameter.stride():
            state["momentum_buffer"] = torch.empty_like(parameter, requires_grad=False).copy_(momentum)


def _start_momentum(optimizer: torch.optim.SGD, args, kwargs) -> None:
    """Of weights that have joined later, as a cascade's do: the fused kernel wants it of all or of none."""
    for group in optimizer.param_groups:
        moving = [p for p in group["params"] if p.grad is not None and group["momentum"]]
        fresh = [p for p in moving if optimizer.state[p].get("momentum_buffer") is None]
        if len(fresh) < len(moving):
            for parameter in fresh:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def plain_update(optimizer: torch.optim.SGD) -> torch.optim.SGD:
    """`optimizer` itself; what a loaded state says of kernels does not count."""
    before = [{key: group.get(key) for key in _FASTEST_FIRST[0]} for group in optimizer.param_groups]

    def keep(optimizer: torch.optim.Optimizer) -> None:
        for group, options in zip(optimizer.param_groups, before, strict=True):
            group.update(options)

    optimizer.register_load_state_dict_post_hook(keep)
    return optimizer


def _runs(way: dict[str, bool], device: torch.device) -> bool:
    weight = nn.Parameter(torch.ones(1, device=device))
    weight.grad = torch.ones_like(weight)
    try:
        torch.optim.SGD([weight], lr=0.1, momentum=0.9, **way).step()
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return True
