"""What `theseum plan` says of training that has not begun, and what it refuses."""

from pathlib import Path

import pytest

from launch.cluster import ClusterConfig
from pipeline.cli import main
from pipeline.config import build_from
from pipeline.forecast import Forecast, operations, parts_of, read_cluster
from pipeline.stages.pretrain import Pretrain
from pipeline.train.sketch import blank_vocabulary

ROOT = Path(__file__).resolve().parents[1]
CLUSTERS = sorted((ROOT / "configs" / "clusters").glob("*.yaml"))


class Tokens:
    """What a sketch asks of a `tokens` stage."""

    row_length = 62


def forecast(processes=1, memory_gib=1.0, **train):
    """A small BERT in float32 on one small machine."""
    values = {
        "kind": "pretrain",
        "tokens": "tokens",
        "objective": {"type": "mlm"},
        "model": {
            "type": "encoder",
            "num_layers": 2,
            "hidden_size": 64,
            "num_heads": 4,
            "ffn_size": 256,
            "max_length": 64,
        },
        "steps": 1000,
        "train": {"batch": 64, "micro_batch": 64, "engine": {"type": "torch"}, **train},
    }
    stage = build_from(Pretrain, values, "stage")
    sketch = stage.sketch({"tokens": Tokens()}, blank_vocabulary(2000, 100))
    machine = ClusterConfig(
        device_type="cpu",
        memory_gib=memory_gib,
        tflops_float32=0.1,
        tflops_bf16=0.1,
        utilisation=0.5,
    )
    return Forecast(sketch, processes, machine)


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_clusters_can_be_read(path):
    cluster = read_cluster(path)
    assert cluster.peak_flops("bf16") > cluster.peak_flops("float32") > 1e12
    assert path.name in path.read_text(encoding="utf-8")


def test_parts_are_all_parameters():
    told = forecast()
    parts = parts_of(told.sketch.objective)
    assert set(parts) == {"embeddings", "encoder", "head"}
    assert sum(parts.values()) == sum(p.numel() for p in told.sketch.objective.parameters())


def test_time_is_operations_by_speed():
    told = forecast()
    lines = dict(line.split(maxsplit=1) for line in told.lines())
    seconds = told.step_flops / (0.1e12 * 0.5)
    assert f"({seconds:.3g} s a step)" in lines["time"]
    assert lines["in"].endswith(operations(1000 * told.step_flops))


def test_a_step_costs_the_same_however_it_is_cut_and_recomputed():
    whole = forecast().step_flops
    assert forecast(micro_batch=16).step_flops == whole
    assert forecast(recompute_blocks=1).step_flops == whole


def test_what_does_not_fit_is_refused_with_a_change_that_does():
    needed = forecast().memory.total
    gib = 0.7 * needed / (1 << 30) / 0.9
    words = forecast(memory_gib=gib).refusal()
    assert "train.micro_batch=32" in words
    assert forecast(memory_gib=gib, micro_batch=32).refusal() == ""
    assert forecast(memory_gib=1.0).refusal() == ""
    assert "take more or larger devices" in forecast(memory_gib=1e-4).refusal()


def test_ranks_share_the_memory_of_their_machine():
    room = 1.5 * forecast().memory.total / (1 << 30) / 0.9
    assert forecast(memory_gib=room).refusal() == ""
    assert forecast(processes=2, memory_gib=room).refusal() != ""


def test_the_command_tells_and_refuses(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    small = tmp_path / "small.yaml"
    small.write_text("device_type: cpu\nmemory_gib: 0.01\ntflops_float32: 0.1\ntflops_bf16: 0.1\n")
    run = ["plan", "configs/runs/quickstart.yaml", f"store={tmp_path / 'store'}"]
    assert main(run) == 0
    out = capsys.readouterr().out
    assert "parameters  1.62 M" in out
    assert "finetune: what it needs is told when the stages it reads are done" in out
    assert main([*run, "--hardware", str(small)]) == 2
    assert "stages.pretrain: a rank needs" in capsys.readouterr().err
