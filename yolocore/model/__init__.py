"""The network: blocks, head, routed forward, building from a plan, folding for inference."""
