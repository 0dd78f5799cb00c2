"""The training job: loop, engines, optimizer, checkpoints."""
