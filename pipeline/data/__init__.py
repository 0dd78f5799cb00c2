"""From token shards to batches: rows, their order, and the loader. Free of torch."""
