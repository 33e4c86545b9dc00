"""A training run the textbook way: planes instead of channels-last, everything read and made in each step.

The network's words are those of the project, its memory layout and activation are not.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from benchmarks.baselines.data import TextbookData
from benchmarks.baselines.loss import TextbookLoss
from benchmarks.baselines.optim import TextbookEma, textbook_sgd
from benchmarks.baselines.scoring import Floats, TextbookJudge, textbook_nms
from yolocore.model.network import Network
from yolocore.train.optim import apply_point
from yolocore.train.protocols import Rates


def plain_twin(network: Network) -> Network:
    """Return a copy in plain memory format whose activations work in place."""
    twin = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in twin.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = True
    return twin


class TextbookTraining:
    """One run; `epoch` trains and `validate` judges the average."""

    def __init__(
        self,
        network: Network,
        loss: TextbookLoss,
        schedule: Rates,
        train: TextbookData,
        val: TextbookData,
        *,
        batch: int,
        frame_hw: tuple[int, int],
    ) -> None:
        self.network, self.loss, self.schedule = network, loss, schedule
        self.train, self.val = train, val
        self.batch, self.frame_hw = batch, frame_hw
        self.ema = TextbookEma(network)
        self.optimizer = textbook_sgd(network, 0.01, 0.937, 0.0005)
        self._rng = np.random.default_rng(0)
        self._counter, self._last_step = 0, -1

    def epoch(self) -> list[float]:
        """Train one epoch; return the mean of the three terms."""
        self.network.train()
        self.optimizer.zero_grad()
        means = torch.zeros(3)
        for number, (images, targets) in enumerate(self.train.epoch(self.batch, self._rng)):
            items = self.step(images, targets)
            means = (means * number + items) / (number + 1)
            means.tolist()  # the line of progress reads them at every batch
        return [float(value) for value in means]

    def step(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Train one batch; return its three terms."""
        point = self.schedule.at(self._counter)
        apply_point(self.optimizer, point)
        total, items = self.loss(self.network(images.float() / 255), targets)
        total.backward()
        if self._counter - self._last_step >= point.accumulate:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.ema.update(self.network)
            self._last_step = self._counter
        self._counter += 1
        return items

    @torch.no_grad()
    def validate(self) -> Floats:
        """Return the AP of the average; as in YOLOv5 suppression gives up when it takes too long."""
        judge = TextbookJudge()
        height, width = self.frame_hw
        for images, targets in self.val.val_batches(2 * self.batch, self.frame_hw):
            decoded, maps = self.ema.network(images.float() / 255)
            self.loss(maps, targets)
            scaled = targets.clone()
            scaled[:, 2:] *= torch.tensor([width, height, width, height])
            for number, found in enumerate(textbook_nms(decoded, time_limit=True)):
                rows = scaled[scaled[:, 0] == number, 1:]
                half = rows[:, 3:5] / 2
                judge.add(found, torch.cat((rows[:, :1], rows[:, 1:3] - half, rows[:, 1:3] + half), 1))
        return judge.ap()
