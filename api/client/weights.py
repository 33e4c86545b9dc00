"""The client's part about weights: sent, waited for, listed, held against a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.client.base import BaseClient, Progress, answer_timeout
from api.client.models import Weights
from api.client.patience import GIVE_UP_S, Patience, deadline_in, time_left


class WeightsClient(BaseClient):
    """Talks of weights."""

    def push_weights(
        self, file: Path, name: str, progress: Progress | None = None, *, give_up_s: float = GIVE_UP_S
    ) -> Weights:
        """Upload a checkpoint, or only name it where the service has it; returns while it is still read."""
        order = {"name": name, "file_name": file.name}
        return self._send_file(
            Weights, "/v1/weights", file, order, progress, as_body=True, give_up_s=give_up_s
        )

    def weights(self, weights_id: str) -> Weights:
        """Return weights with the report of their import."""
        return self._one(Weights, self.request("GET", f"/v1/weights/{weights_id}"))

    def all_weights(self) -> Iterator[Weights]:
        """Yield all weights, newest first."""
        return self._many(Weights, "/v1/weights", {})

    def delete_weights(self, weights_id: str) -> None:
        """Remove weights that no unfinished job needs."""
        self.request("DELETE", f"/v1/weights/{weights_id}")

    def weights_fit(
        self, weights_id: str, architecture: str, num_classes: int | None = None
    ) -> dict[str, Any]:
        """Return which tensors an architecture (id or public name) takes from weights, and which not."""
        params = {"architecture": architecture}
        params |= {} if num_classes is None else {"num_classes": str(num_classes)}
        found: dict[str, Any] = self.request("GET", f"/v1/weights/{weights_id}/fit", params=params).json()
        return found

    def wait_for_weights(
        self, weights_id: str, *, timeout_s: float | None = None, give_up_s: float = GIVE_UP_S
    ) -> Weights:
        """Ask until weights are ready or not; raise TimeoutError after `timeout_s`.

        A service that goes away is asked again for `give_up_s` seconds.
        """
        deadline = deadline_in(timeout_s)
        patience = Patience(give_up_s)
        while True:
            with patience.with_failures():
                timeout = answer_timeout(deadline)
                found = self._one(Weights, self.request("GET", f"/v1/weights/{weights_id}", timeout=timeout))
                if found.status != "importing":
                    return found
                patience.renew()
            if time_left(deadline) <= 0:
                raise TimeoutError(f"{weights_id} are still being read after {timeout_s:g} s")
            patience.pause(deadline)
