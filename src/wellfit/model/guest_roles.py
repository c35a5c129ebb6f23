"""A module of somebody's own in; what each of its parameters is for, guessed, out."""

from __future__ import annotations

from torch import nn

from wellfit.recipe.schema import Role

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def adapter_role(name: str) -> Role | None:
    """A parameter's name → its role where an adapter brought it; None where it is the model's own.

    >>> adapter_role("up.lora_A"), adapter_role("up.magnitude"), adapter_role("up.weight")
    ('adapter', 'norm', None)
    """
    roles: dict[str, Role] = {"lora_A": "adapter", "lora_B": "adapter", "magnitude": "norm"}
    return roles.get(name.rpartition(".")[2])


def guessed_roles(module: nn.Module, vocabulary_size: int) -> dict[str, Role]:
    """A module and its vocabulary → parameter name → role, in the order of `named_parameters`.

    By the module that owns it: `nn.Embedding` is the embedding where it has an entry for each
    token, else positions; the last `nn.Linear` to the vocabulary is the head. By shape: two
    dimensions, or a stack of matrices, are a matrix; one dimension is a bias where it is called
    so, else a norm. What is left (kernels of convolutions) trains as a norm: without decay.

    >>> net = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 9))
    >>> list(guessed_roles(net, 9).values())
    ['embedding', 'norm', 'bias', 'head', 'bias']
    """
    owners: dict[int, nn.Module] = {}
    for owner in module.modules():
        for parameter in owner.parameters(recurse=False):
            owners.setdefault(id(parameter), owner)
    heads = [
        owner
        for owner in module.modules()
        if isinstance(owner, nn.Linear) and owner.out_features == vocabulary_size
    ]
    roles: dict[str, Role] = {}
    for name, parameter in module.named_parameters():
        owner = owners[id(parameter)]
        added = adapter_role(name)
        if added is not None:
            roles[name] = added
        elif isinstance(owner, nn.Embedding):
            roles[name] = "embedding" if len(parameter) >= vocabulary_size else "position"
        elif parameter.ndim < 2:
            roles[name] = "bias" if "bias" in name.rpartition(".")[2] else "norm"
        elif heads and parameter is heads[-1].weight:
            roles[name] = "head"
        elif parameter.ndim <= 3 and not isinstance(owner, CONVOLUTIONS):
            roles[name] = "matrix"
        else:
            roles[name] = "norm"
    return roles
