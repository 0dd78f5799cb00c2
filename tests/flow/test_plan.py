"""Fingerprints and the reasons of a plan."""

import os
from pathlib import Path

import pytest
import toys

from pipeline import files
from pipeline.config import DataError, as_dict
from pipeline.flow.plan import Step, make_plan
from pipeline.flow.record import UNCHECKED, Record, SourceDigests, fingerprint_of
from pipeline.flow.run_file import read_run_file
from pipeline.flow.store import Store

TEXT = """
stages:
  pages: {kind: write, text: a, files: [SOURCE]}
  tokens: {kind: count, corpus: pages, how: {type: letters, least: 1}}
  results: {kind: compare, others: [tokens]}
"""


def plan(folder: Path, text: str, *overrides: str) -> dict[str, Step]:
    file = folder / "run.yaml"
    file.write_text(text.replace("SOURCE", str(folder / "source")))
    run = read_run_file(
        file,
        [f"store={folder / 'store'}", *overrides],
        kinds=toys.TOYS,
        stage_class=toys.TOYS.__getitem__,
    )
    return {step.name: step for step in make_plan(run, Store(run.head.store))}


def finish(steps: dict[str, Step], *names: str) -> None:
    """Put the records of stages into the store, as a run does."""
    for step in (steps[name] for name in names or steps):
        step.folder.mkdir(parents=True)
        Record(
            stage=step.name,
            kind=step.stage.kind,
            makes=step.stage.makes,
            version=step.stage.version,
            fingerprint=step.fingerprint,
            config=as_dict(step.stage),
            inputs={
                name: {"folder": one.label, "fingerprint": one.fingerprint}
                for name, one in step.inputs.items()
            },
            sources=step.sources,
            counts={},
            started=float(len(list(step.folder.parent.iterdir()))),
            seconds=0.0,
            host="",
            revision="",
            libraries={},
            files={},
        ).write(step.folder)


def told(steps: dict[str, Step]) -> dict[str, tuple[str, ...]]:
    return {name: (step.state, *step.reasons) for name, step in steps.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source").write_text("pages")
    return tmp_path


def test_missing_then_done(folder: Path) -> None:
    steps = plan(folder, TEXT)
    assert told(steps) == dict.fromkeys(["pages", "tokens", "results"], ("missing",))
    finish(steps, "pages")
    assert told(plan(folder, TEXT))["pages"] == ("done",)
    finish(steps, "tokens", "results")
    assert told(plan(folder, TEXT)) == dict.fromkeys(["pages", "tokens", "results"], ("done",))


def test_a_changed_key_is_named_and_what_reads_it_too(folder: Path) -> None:
    finish(plan(folder, TEXT))
    assert told(plan(folder, TEXT, "stages.tokens.how.least=4")) == {
        "pages": ("done",),
        "tokens": ("stale", "how.least: 1 -> 4"),
        "results": ("stale", "others: changed: tokens"),
    }


def test_a_changed_source_is_named(folder: Path) -> None:
    finish(plan(folder, TEXT))
    (folder / "source").write_text("other pages")
    steps = plan(folder, TEXT)
    assert steps["pages"].reasons == (f"source {folder / 'source'} changed",)
    assert steps["tokens"].reasons == ("corpus: changed: pages",)


def test_another_variant_tells_its_keys(folder: Path) -> None:
    finish(plan(folder, TEXT))
    steps = plan(folder, TEXT, "stages.tokens.how={type: words, dictionary: pages}")
    assert steps["tokens"].reasons == (
        'how.type: "letters" -> "words"',
        "how.least: 1 -> (absent)",
        "how.dictionary: now reads pages",
    )


def test_going_back_is_done(folder: Path) -> None:
    """The store keeps both; nothing is overwritten."""
    finish(plan(folder, TEXT))
    other = plan(folder, TEXT, "stages.tokens.seed=1")
    finish(other, "tokens")
    assert plan(folder, TEXT)["tokens"].state == "done"
    assert plan(folder, TEXT, "stages.tokens.seed=1")["tokens"].state == "done"
    assert plan(folder, TEXT, "stages.tokens.seed=2")["tokens"].reasons == ("seed: 1 -> 2",)


def test_renaming_a_stage_changes_nothing_that_reads_it(folder: Path) -> None:
    before = plan(folder, TEXT)
    after = plan(folder, TEXT.replace("pages", "web"))
    assert before["pages"].fingerprint == after["web"].fingerprint
    assert before["tokens"].fingerprint == after["tokens"].fingerprint


def test_names_in_a_list_count(folder: Path) -> None:
    """A stage with a list of references writes their names."""
    before = plan(folder, TEXT)
    after = plan(folder, TEXT.replace("tokens", "words"))
    assert before["tokens"].fingerprint == after["words"].fingerprint
    assert before["results"].fingerprint != after["results"].fingerprint


@pytest.mark.parametrize(
    "override", ["launch.processes=2", "ray.cpus=3", "tracking.enabled=false", "name=other"]
)
def test_where_a_run_executes_changes_nothing(folder: Path, override: str) -> None:
    before, after = plan(folder, TEXT), plan(folder, TEXT, override)
    assert [s.fingerprint for s in before.values()] == [s.fingerprint for s in after.values()]


def test_the_version_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(plan(folder, TEXT))
    monkeypatch.setattr(toys.Count, "version", 2)
    assert plan(folder, TEXT)["tokens"].reasons == (
        "what kind count makes changed: version 1 -> 2",
    )


def test_missing_sources_are_named_together(folder: Path) -> None:
    (folder / "source").unlink()
    text = TEXT + "  more: {kind: write, text: b, files: [nowhere/x]}\n"
    with pytest.raises(DataError) as caught:
        plan(folder, text)
    assert str(caught.value).splitlines() == [
        f"{folder}/run.yaml:3: stages.pages: source {folder}/source: no such file or folder",
        f"{folder}/run.yaml:6: stages.more: source nowhere/x: no such file or folder",
    ]


def test_a_folder_that_no_run_finished_is_refused(folder: Path) -> None:
    plan(folder, TEXT)["pages"].folder.mkdir(parents=True)
    with pytest.raises(DataError, match="move it away"):
        plan(folder, TEXT)


def test_a_plan_of_nothing_writes_nothing_but_digests(folder: Path) -> None:
    plan(folder, TEXT)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in written} <= {"run.yaml", "source", "digests.json"}


def test_digests_are_remembered_until_a_file_changes(folder: Path) -> None:
    stage = toys.Write(text="a", files=(folder / "source",))
    cache = folder / "store" / ".cache" / "digests.json"
    os.utime(folder / "source", (1e9, 1e9))
    first = SourceDigests(cache)
    digests = first.of_stage(stage)
    first.save()
    again = SourceDigests(cache)
    assert again.of_stage(stage) == digests
    assert not again.new
    (folder / "source").write_text("other")
    assert again.of_stage(stage) != digests


def test_a_file_changed_just_now_is_read_again(folder: Path) -> None:
    """Two writes of the same size within one tick of the file system's clock."""
    stage, digests = toys.Write(text="a", files=(folder / "source",)), SourceDigests(folder / "no")
    first = digests.of_stage(stage)
    facts = (folder / "source").stat()
    (folder / "source").write_text("gesap")
    os.utime(folder / "source", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert digests.of_stage(stage) != first


def test_a_folder_as_source_is_all_its_files(folder: Path) -> None:
    inside = folder / "pages"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep" / "b").write_text("b")
    (inside / "a").write_text("a")
    stage = toys.Write(text="a", files=(inside,))
    digests = SourceDigests(folder / "none.json").of_stage(stage)
    assert list(digests) == [f"{inside}/a", f"{inside}/deep/b"]


def test_fingerprints_cover_every_key() -> None:
    prints = {
        fingerprint_of(stage, {"p": "1"}, {})
        for stage in (
            toys.Count(corpus="p"),
            toys.Count(corpus="p", units=4),
            toys.Count(corpus="p", seed=1),
            toys.Count(corpus="p", how=toys.Letters(least=2)),
            toys.Count(corpus="p", how=toys.Words(dictionary="p")),
        )
    }
    prints.add(fingerprint_of(toys.Count(corpus="p"), {"p": "2"}, {}))
    prints.add(fingerprint_of(toys.Count(corpus="p"), {"p": "1"}, {"file": "1"}))
    assert len(prints) == 7


def test_checksums_leave_out_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoints/step_1", "model/weights", "journal", "tracking.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = files.checksums_of(tmp_path, without=UNCHECKED)
    assert list(found) == ["journal", "model/weights"]
