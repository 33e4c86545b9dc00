"""Golden parameter groups: names in order and hyperparameters of each group, for each optimizer."""

from __future__ import annotations

import pytest
import torch

from tests.fidelity.harness import Case, architecture_text, cases
from yolocore.model.build import build_network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.train.optim import build_optimizer, parameter_groups


@pytest.mark.parametrize("case", cases("optgroups"), ids=str)
def test_optgroups(case: Case) -> None:
    architecture = parse_architecture(architecture_text(case.meta))
    plan = plan_architecture(architecture, num_classes=case.meta.get("nc"))
    network = build_network(plan)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for optimizer_name, groups in case.result.items():
        if optimizer_name not in ("SGD", "Adam", "AdamW"):
            continue
        optimizer = build_optimizer(
            network, name=optimizer_name, lr=0.01, momentum=0.937, weight_decay=0.0005
        )
        assert isinstance(optimizer, getattr(torch.optim, optimizer_name))
        for group, expected, keys in zip(
            optimizer.param_groups, groups, parameter_groups(network), strict=True
        ):
            assert [names[id(parameter)] for parameter in group["params"]] == keys
            assert keys == expected.get("params", keys)  # given once, with the first optimizer
            assert len(group["params"]) == expected["n"]
            for name, value in expected["hyper"].items():
                assert group[name] == pytest.approx(tuple(value) if isinstance(value, list) else value), name
