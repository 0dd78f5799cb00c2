"""The `corpus` stage: raw pages to clean, deduplicated documents, split into train and validation.

Passes over many small units, each done anywhere and once: read and clean; find what repeats in the
whole corpus; settle what is left of each page; put it together. What lies between the passes are
files in a scratch folder inside the output, so a killed stage goes on with the units that are
missing, and its output is the same byte for byte.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from data_prep.clean import Cleaning, cleaner_of
from data_prep.corpus import assembly
from data_prep.corpus.finishing import (
    EXPOSURE,
    Finishing,
    finish_block,
    settle_block,
    settled_documents,
)
from data_prep.corpus.limits import Allowed, refuse_excess
from data_prep.corpus.reading import (
    FAULTS,
    FIRST_FAULTS,
    Reading,
    block_folder,
    give_up,
    read_unit,
)
from data_prep.corpus.settling import Block, Settling
from data_prep.corpus.units import Unit, planned
from data_prep.dedup import exact, repeats
from data_prep.dedup.contamination import (
    Contamination,
    Exposure,
    contamination_report,
    exposure_of,
    write_grams,
)
from data_prep.dedup.near import Near, decide
from data_prep.extract import ExtractMode
from data_prep.sources import InputSource, all_files
from pipeline import files
from pipeline.config import DataError, config
from pipeline.flow.stage import Artifact, Claim, Remote, Work

Positive = Annotated[int, pydantic.Field(ge=1)]
REPEAT_KINDS: dict[str, Literal["lines", "spans"]] = {"lines": "lines", "sentence_spans": "spans"}
GRAMS = "contamination"  # in the scratch folder
NEAR_REPORT, CONTAMINATION_REPORT = "near_duplicates.json", "contamination.json"


@config
class Corpus:
    """Clean documents of every source in `inputs`.

    `extract` is how text is taken from HTML, `clean` the preset of rules and what differs from it.
    `unique` says what may occur only once: addresses (the newest page stays) and whole documents;
    repeated lines or spans are the preset's business. `near` removes near duplicates, and
    `contamination` documents that share text with evaluation sets, where they are given.
    `validation_fraction` is taken in thousandths, by MD5 of the address; `shard_documents` is how
    many documents a part holds; `unit_bytes` is about how much input a worker reads at a time.
    `limits` names how many pages may be dropped for a reason, and `strict` allows no damage at all.
    """

    makes: ClassVar[Artifact] = "corpus"
    claims: ClassVar[Claim] = "units"
    version: ClassVar[int] = 2

    kind: Literal["corpus"] = "corpus"
    inputs: Annotated[tuple[InputSource, ...], pydantic.Field(min_length=1)]
    extract: ExtractMode = "main"
    clean: Cleaning = dataclasses.field(default_factory=Cleaning)
    unique: tuple[Literal["urls", "documents"], ...] = ("urls", "documents")
    near: Near | None = None
    contamination: Contamination | None = None
    validation_fraction: Annotated[float, pydantic.Field(ge=0.001, le=0.5)] = 0.001
    shard_documents: Positive = 50_000
    unit_bytes: Annotated[int, pydantic.Field(ge=1 << 10)] = 64_000_000
    limits: Allowed = dataclasses.field(default_factory=dict)
    strict: bool = False

    @pydantic.field_validator("inputs")
    @classmethod
    def _names_differ(cls, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [source.name for source in inputs]
        for name, times in Counter(names).items():
            if times > 1:
                raise ValueError(f"source name {name!r} is given twice; each source needs its own")
        return inputs

    def sources(self) -> Sequence[Path | Remote]:
        """Every input file once, and the evaluation sets."""
        sets = self.contamination.sources() if self.contamination is not None else []
        return [*all_files(self.inputs), *sets]

    def run(self, work: Work) -> Mapping[str, Any]:
        """Read, remove duplicates, settle, write; returns the account that is in `counts.json`,
        and the `speed` of a core.
        """
        if (counts := assembly.hand_over(work.out)) is not None:
            return counts
        run = _Run(self, work, work.out / assembly.SCRATCH)
        speed = run.passes()
        counts = assembly.hand_over(work.out)
        assert counts is not None
        return counts | {"speed": speed}


@dataclasses.dataclass
class _Run:
    """One attempt at the stage."""

    stage: Corpus
    work: Work
    scratch: Path

    @property
    def results(self) -> Path:
        return self.scratch / assembly.RESULTS

    def passes(self) -> dict[str, float]:
        """All passes up to complete results; returns how fast a core was."""
        notes, blocks = self._read()
        folders = [block.folder for block in blocks]
        exact.decide_pages(self.work, self.scratch / "pages", folders, self.stage.unique)
        settlings = self._settlings(blocks, self._repeated(folders))
        losers, seconds = self._near(settlings, folders)
        finishings = [
            Finishing(one, self.stage.near, losers, self.stage.validation_fraction)
            for one in settlings
        ]
        documents = self._each(finish_block, finishings, "blocks settled")
        parts = assembly.planned_parts(self.results, blocks, documents, self.stage.shard_documents)
        self._each(assembly.make_part, parts, "parts written")
        counts, samples, settled = self._account(blocks)
        assembly.write_account(self.results, blocks, counts, samples)
        seconds += settled + sum(note["seconds"] for note in notes)
        speed = _speed(notes, seconds)
        files.write_json(self.scratch / assembly.COMPLETE, speed)
        return speed

    def _each(self, function: Callable[[Any], Any], items: Sequence[Any], unit: str) -> list[Any]:
        return list(self.work.map(function, items, unit=unit))

    def _read(self) -> tuple[list[dict[str, Any]], list[Block]]:
        """Read what is not read yet; returns the notes of all units, and all blocks in order."""
        stage = self.stage
        readings = [
            Reading(self.scratch, unit, stage.extract, stage.clean)
            for unit in planned(stage.inputs, stage.unit_bytes)
        ]
        missing = [reading for reading in readings if not reading.note.exists()]
        fresh = self.work.map(read_unit, missing, unit="units read", amounts=_amounts, lost=give_up)
        made = dict(zip([one.unit.number for one in missing], fresh, strict=True))
        notes = [made.get(one.unit.number) or read_unit(one) for one in readings]
        self._refuse_empty([one.unit for one in readings], notes)
        self._refuse_damage(notes)
        folders = [
            (one.unit.source.name, block_folder(self.scratch, one.unit.number, number))
            for one, note in zip(readings, notes, strict=True)
            for number in range(note["blocks"])
        ]
        return notes, [Block(n, folder, source) for n, (source, folder) in enumerate(folders)]

    def _refuse_empty(self, units: Sequence[Unit], notes: Sequence[Mapping[str, Any]]) -> None:
        for source in self.stage.inputs:
            mine = [n for n, unit in enumerate(units) if unit.source.name == source.name]
            if sum(notes[n]["pages"] for n in mine) == 0:
                paths = [one.path for n in mine for one in units[n].ranges]
                raise DataError(
                    f"source {source.name!r}: no page with text in {len(set(paths))} file(s), "
                    f"{paths[0]} the first; check that they are of type {source.type!r}"
                )

    def _refuse_damage(self, notes: Sequence[Mapping[str, Any]]) -> None:
        faults: Counter[str] = Counter()
        first: dict[str, list[Any]] = {}
        for note in notes:
            faults.update(note["faults"])
            for reason, some in note["first"].items():
                first[reason] = (first.get(reason, []) + some)[:FIRST_FAULTS]
        none = dict.fromkeys(FAULTS if self.stage.strict else (), 0)
        refuse_excess(faults, none | self.stage.limits, first)

    def _repeated(self, folders: Sequence[Path]) -> tuple[Path, ...]:
        kind = cleaner_of(self.stage.clean).repeats
        if kind not in REPEAT_KINDS:
            return ()
        return tuple(repeats.find(self.work, self.scratch / "repeats", folders, REPEAT_KINDS[kind]))

    def _settlings(self, blocks: Sequence[Block], found: tuple[Path, ...]) -> list[Settling]:
        given, grams = self.stage.contamination, None
        if given is not None:
            grams = write_grams(self.scratch / GRAMS, given)
        removes = given is not None and given.action == "remove"
        return [Settling(block, self.stage.clean, found, grams, removes) for block in blocks]

    def _near(
        self, settlings: Sequence[Settling], folders: Sequence[Path]
    ) -> tuple[tuple[Path, ...], float]:
        """(files that name near duplicates, CPU seconds of what was settled to find them)."""
        how = self.stage.near
        if how is None:
            return (), 0.0
        tasks = [(settling, how) for settling in settlings]
        notes = self._each(settle_block, tasks, "blocks settled")
        found = decide(self.work, self.scratch / "near", folders, how, settled_documents)
        files.write_json(self.results / NEAR_REPORT, found.report)
        return tuple(found.found), sum(note["seconds"] for note in notes)

    def _account(self, blocks: Sequence[Block]) -> tuple[dict[str, Any], dict[str, Any], float]:
        weights = {source.name: source.weight for source in self.stage.inputs}
        counts, samples, seconds = assembly.whole_account(blocks, weights)
        dropped = counts["pages"]["dropped"]
        if not counts["pages"]["kept"]:
            raise DataError(
                "no page is left after cleaning and removal of duplicates; pages by reason: "
                + ", ".join(f"{reason} {number}" for reason, number in sorted(dropped.items()))
            )
        refuse_excess(dropped, self.stage.limits, {})
        if self.stage.contamination is not None:
            exposure = Exposure()
            for block in blocks:
                found = files.read_json(block.folder / EXPOSURE)
                exposure.merge(exposure_of(found))
            report = contamination_report(self.scratch / GRAMS, exposure)
            files.write_json(self.results / CONTAMINATION_REPORT, report)
        return counts, samples, seconds


def _amounts(note: Mapping[str, Any]) -> dict[str, float]:
    """What a unit adds to the figures shown while units are read."""
    return {"pages": note["records"], "megabytes": note["megabytes"]}


def _speed(notes: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, float]:
    """Input of all units for each second of a core that read, settled and wrote it."""
    sums = {name: sum(note[name] for note in notes) for name in ("records", "megabytes")}
    return {
        "core_seconds": round(seconds, 3),
        "pages_per_core_second": round(sums["records"] / max(seconds, 1e-9), 3),
        "megabytes_per_core_second": round(sums["megabytes"] / max(seconds, 1e-9), 3),
    }
