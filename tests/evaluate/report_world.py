"""Output folders of a whole run, as stages and the runner write them, with made-up figures."""

import math

from pipeline import files

HOSTILE = "<script>alert('x')</script> & \"quotes\""
LIBRARIES = {"python": "3.11.2", "torch": "2.13.0", "ray": "2.54.0"}
READS = {
    "corpus": (),
    "vocab": ("corpus",),
    "tokens": ("corpus", "vocab"),
    "task": (),
    "pretrain": ("tokens",),
    "finetune": ("pretrain", "task"),
    "theseus": ("finetune", "task"),
    "evaluate": ("finetune", "theseus", "pretrain", "task", "tokens"),
    "export": ("theseus",),
}
SERVERS = {
    "pretrain": "https://mlflow.example.org/",
    "finetune": "sqlite:///store/mlflow.db",
    "theseus": "javascript:alert(1)",
}
SECONDS = (14.2, 6.5, 2.1, 0.3, 412.0, 95.0, 128.4, 33.0, 8.8)

PAGES = {
    "in": 1503,
    "kept": 1101,
    "dropped": {
        "too_few_sentences": 260,
        "duplicate_url": 9,
        "curly_bracket": 71,
        "not_html": 62,
    },
}
LINES = {
    "in": 60210,
    "kept": 38544,
    "dropped": {"no_end_mark": 17033, "too_few_words": 3120, "duplicate_line": 1513},
}


def half_of(account):
    """Half of every number, rounded down."""
    dropped = {reason: count // 2 for reason, count in account["dropped"].items()}
    return {"in": account["in"] // 2, "kept": account["kept"] // 2, "dropped": dropped}


GROUP = {"pages": half_of(PAGES), "lines": half_of(LINES), "characters": {"kept": 3_210_000}}
FAULT = {
    "reason": "truncated_record",
    "file": "crawl/0001.warc.gz",
    "record": 71_234_567,
    "excerpt": "the file holds 12 of 4096 bytes",
}
COUNTS = {
    "corpus": {
        "pages": PAGES,
        "lines": LINES,
        "masked": {"emails": 1234},
        "sources": {"manuals": {"weight": 2.5, **GROUP}, "<news>": {"weight": 1.0, **GROUP}},
        "languages": {"de": GROUP, "en": GROUP},
        "faults": [FAULT],
        "speed": {"pages_per_core_second": 612.3, "megabytes_per_core_second": 4.56},
    },
    "vocab": {
        "size": 8100,
        "pieces": 8000,
        "algorithm": "unigram",
        "validation": {"characters_per_token": 4.1234, "unknown_rate": 0.00012},
    },
    "tokens": {
        split: {"documents": d, "rows": r, "tokens": t, "shards": 1, "pack_efficiency": 0.9991}
        for split, d, r, t in (("train", 1046, 9521, 1218000), ("validation", 55, 480, 61400))
    },
    "task": {"labels": ["animal", "food"], "rows": {"train": 8000}},
    "export": {
        "architecture": "BertForSequenceClassification",
        "max_abs_difference": 9.5e-7,
        "texts": 9,
        "texts_with_equal_ids": 9,
    },
}


NEAR = {
    "settings": {"threshold": 0.8},
    "documents": {"in": 900, "removed": 77},
    "pairs": {"joined_truly": {"sampled": 200, "share_below_threshold": 0.025}},
    "clusters": {
        "largest": [
            {
                "size": 12,
                "kept": {"url": "https://example.org/a", "text": "The longest."},
                "removed": [
                    {"url": "https://example.org/b", "text": "A copy.", "jaccard": 0.91},
                ],
            }
        ]
    },
}
CONTAMINATION = {
    "gram_words": 13,
    "sets": [
        {
            "name": "quiz",
            "texts": 50,
            "texts_found": 3,
            "documents_with_it": 4,
            "examples": [{"gram": "one two three", "text": "quiz.jsonl:7", "url": HOSTILE}],
        }
    ],
}


def score(value):
    return {"name": "accuracy", "value": value, "low": value - 0.02, "high": value + 0.02}


def classifier(value, layers, parameters, milliseconds, speed):
    latency = {
        "median_ms": milliseconds,
        "first_quartile_ms": milliseconds * 0.9,
        "third_quartile_ms": milliseconds * 1.2,
        "relative_speed": speed,
    }
    sizes = {"layers": layers, "parameters": parameters, "bytes": 4 * parameters}
    return {"score": score(value), "latency": latency, **sizes}


RESULTS = {
    "task": {"metric": "accuracy", "labels": ["animal", "food"], "rows": 1000},
    "threads": 1,
    "baselines": {"majority": score(0.183), "tfidf_logistic_regression": score(0.742)},
    "classifiers": {
        "finetune": classifier(0.806, 4, 4_400_000, 4.21, 1.0),
        "theseus": classifier(0.791, 2, 2_820_000, 2.17, 1.94),
    },
    "language_models": {
        "pretrain": {
            "objective": "mlm",
            "parameters": 4_400_000,
            "before": {"mlm": 9.04, "accuracy": 0.0},
            "after": {"mlm": 4.61, "accuracy": 0.263},
        }
    },
}


def journal(steps, name, start, end):
    """Falling losses with some ripple, and held-out values now and then."""
    about = {"precision": "bf16", "asked_precision": "auto", "engine": "deepspeed", "world_size": 2}
    entries = [{"seq": 0, "type": "note", **about}]

    def add(step, values):
        entries.append({"seq": len(entries), "type": "metrics", "step": step, "values": values})

    for step in range(steps + 1):
        fallen = end + (start - end) * math.exp(-4 * step / steps)
        if step:
            loss = fallen + 0.15 * math.sin(step * 1.7)
            values = {"loss": loss, name: loss, "accuracy": 1 - fallen / start}
            if steps == 200:
                values["modules_replaced"] = min(1.0, 0.3 + step / steps)
            add(step, {**values, "lr": 1e-3, "tokens_per_second": 5000.0 + 10 * math.cos(step)})
        if step % (steps // 8) == 0:
            add(step, {f"held_out/{name}": fallen + 0.1, "held_out/accuracy": 1 - fallen / start})
    return entries


def make_run(folder):
    """Write the folders of every stage; returns them by stage name."""
    folders = {name: folder / f"{name}-{number:08x}" for number, name in enumerate(READS)}
    started = 1_790_000_000.0
    for (name, reads), seconds in zip(READS.items(), SECONDS, strict=True):
        record = {
            "stage": name,
            "kind": name,
            "version": 1,
            "fingerprint": "ab" * 32,
            "config": {},
            "inputs": {one: {"folder": folders[one].name, "fingerprint": "cd"} for one in reads},
            "counts": COUNTS.get(name, {}),
            "started": started,
            "seconds": seconds,
            "revision": "1a2b3c4d5e6f",
            "libraries": LIBRARIES,
        }
        if name in SERVERS:
            tracking = {"uri": SERVERS[name], "run_id": "77", "experiment_id": "3"}
            files.write_json(folders[name] / "tracking.json", tracking)
        files.write_json(folders[name] / "record.json", record)
        started += seconds
    kept = {"url": "https://example.org/kept", "title": "A page", "text": "One two three. Four."}
    dropped = {"url": HOSTILE, "title": HOSTILE, "text": HOSTILE}
    line = {"url": "https://example.org/l", "file": "a!b", "record": 5, "text": "Click here"}
    samples = {
        "kept": [kept] * 3,
        "dropped": {"too_few_sentences": [dropped] * 2},
        "lines": {"no_end_mark": [line]},
    }
    files.write_json(folders["corpus"] / "samples.json", samples)
    files.write_json(folders["corpus"] / "near_duplicates.json", NEAR)
    files.write_json(folders["corpus"] / "contamination.json", CONTAMINATION)
    for name, steps, loss, start, end in (
        ("pretrain", 400, "mlm", 9.0, 4.5),
        ("finetune", 160, "cross_entropy", 2.1, 0.5),
        ("theseus", 200, "cross_entropy", 1.4, 0.6),
    ):
        files.write_json_lines(folders[name] / "journal.jsonl", journal(steps, loss, start, end))
    files.write_json(folders["evaluate"] / "results.json", RESULTS)
    return folders
