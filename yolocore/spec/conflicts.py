"""Settings of a run that contradict each other: every rule in one place, as a pure function of their values.

It must not know how the settings are declared, nor what the data or the machine is like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def conflicts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the JSON pointer of a setting and why it cannot hold beside another, for each conflict."""
    batch, world_size = config["batch"], config["world_size"]
    share = batch // world_size
    if batch > 0 and batch % world_size:
        yield "/batch", f"a batch of {batch} cannot be shared by {world_size} processes"
    if batch > 0 and config["quad"] and share % 4:
        yield "/quad", f"quads need a batch that is a multiple of 4 for each process, not {share}"
    if batch < 0 and world_size > 1:
        yield "/batch", "the batch is measured for one process only; give its size"
    if config["image_weights"] and config["rect"]:
        yield "/image_weights", "rectangular batches have a fixed order; images cannot be drawn by weight"
    if config["image_weights"] and world_size > 1:
        yield "/image_weights", "images are drawn by weight in one process only"
    if config["sync_bn"] and world_size == 1:
        yield "/sync_bn", "there is nothing to synchronise with one process; set world_size"
    if config["hyp"]["anchors"] is not None and not config["autoanchor"]:
        yield "/hyp/anchors", "a number of anchors without their sizes needs autoanchor"
