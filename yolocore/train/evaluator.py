"""One validation of the average: on a folded copy, in channels-last memory, so the average stays untouched.

It must not know the loop; a wish made in mid-validation arrives through `check`, which raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from yolocore.data.collate import Batch
from yolocore.eval.validate import Take, ValidationResult, validate
from yolocore.loss.detection import DetectionLoss
from yolocore.model.fuse import folded_copy
from yolocore.model.network import Network
from yolocore.train.precision import Precision


class Evaluator:
    """Validates a network on always the same batches in always the same way."""

    def __init__(
        self,
        *,
        batches: Iterable[Batch],
        loss: DetectionLoss,
        num_classes: int,
        conf_thres: float,
        iou_thres: float,
        max_det: int,
        single_class: bool,
        precision: Precision,
        check: Callable[[], None],
    ) -> None:
        self._batches = batches
        self._loss = loss
        self._num_classes = num_classes
        self._conf_thres = conf_thres
        self._iou_thres = iou_thres
        self._max_det = max_det
        self._single_class = single_class
        self._precision = precision
        self.check = check

    def __call__(
        self, network: Network, num_samples: int = 0, *, take: Take | None = None
    ) -> ValidationResult:
        """Validate a copy of the network; keep `num_samples` pictures; `take` gets the detections of each."""
        return validate(
            folded_copy(network),
            self._checked(),
            loss=self._loss,
            num_classes=self._num_classes,
            conf_thres=self._conf_thres,
            iou_thres=self._iou_thres,
            max_det=self._max_det,
            precision=self._precision,
            device=self._precision.device,
            single_class=self._single_class,
            num_samples=num_samples,
            take=take,
        )

    def _checked(self) -> Iterator[Batch]:
        for batch in self._batches:
            self.check()
            yield batch
