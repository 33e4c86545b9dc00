"""From files to training batches: reading, caching, augmentation, collation, loading."""
