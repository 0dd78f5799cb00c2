"""The graph of stages: what a stage is, what is to be done, and who does it. Free of torch."""
