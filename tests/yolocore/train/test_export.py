"""What is delivered is what was judged."""

from __future__ import annotations

import copy

import torch

from tests.support.loops import no_validation
from tests.support.shapes import TINY_MODEL
from yolocore.eval.validate import ValidationResult
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.train.export import judge_best
from yolocore.train.outputs import halved


def test_the_best_weights_are_judged_as_rounded_as_they_are_delivered() -> None:
    network = build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=2))
    best = copy.deepcopy(network.state_dict())
    judged: dict[str, torch.Tensor] = {}

    def evaluate(candidate: Network, num_pictures: int) -> ValidationResult:
        judged.update(candidate.state_dict())
        return no_validation(candidate)

    judge_best(network, best, evaluate)
    for key, delivered in halved(best).items():
        assert torch.equal(judged[key], delivered.to(judged[key].dtype)), key
    assert not torch.equal(judged["model.0.conv.weight"], best["model.0.conv.weight"])
    assert torch.equal(network.state_dict()["model.0.conv.weight"], best["model.0.conv.weight"])
