"""Starting jobs: on this machine, on a scheduler. Free of torch."""
