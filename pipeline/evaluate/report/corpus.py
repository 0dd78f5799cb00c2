"""The corpus in the report: funnels, what each rule took from which source and language, examples."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluate.report.funnel import funnel_of
from pipeline.evaluate.report.markup import Child, Markup, joined, tag
from pipeline.evaluate.report.outputs import Output, account_of
from pipeline.evaluate.report.sections import headline, panel, table
from pipeline.evaluate.report.wording import number, share, short, words

MOST_COLUMNS = 8  # sources or languages side by side
MOST_FAULTS = 20


def corpus(output: Output) -> Markup:
    """What was kept and dropped, where and why, with examples."""
    counts = output.counts
    return joined(
        tag("h2", headline(output)),
        _speed(counts.get("speed", {})),
        tag(
            "div",
            panel(tag("h3", "Pages"), funnel_of(account_of(counts["pages"]), "pages")),
            panel(
                tag("h3", "Lines of kept and examined pages"),
                funnel_of(account_of(counts["lines"]), "lines"),
            ),
            class_="columns",
        ),
        _groups("Sources", counts.get("sources", {})),
        _groups("Languages", counts.get("languages", {})),
        _masked(counts.get("masked", {})),
        _near(output.facts("near_duplicates.json")),
        _contamination(output.facts("contamination.json")),
        _examples(output),
        _faults(counts.get("faults", ())),
    )


def _speed(speed: Mapping[str, float]) -> Markup | None:
    if not speed:
        return None
    pages, size = speed["pages_per_core_second"], speed["megabytes_per_core_second"]
    words_of_it = f"{short(pages)} pages and {size:.1f} MB of input for each second of a core."
    return tag("p", words_of_it, class_="soft")


def _groups(title: str, groups: Mapping[str, Mapping[str, Any]]) -> Markup | None:
    """A table of the largest sources or languages, and what each rule took from them."""
    if not groups:
        return None
    order = sorted(groups, key=lambda name: (-groups[name]["pages"]["in"], name))
    rows = [_group(name, groups[name]) for name in order]
    head = ("", "weight", "pages in", "kept", "", "lines in", "kept", "characters kept")
    shown = order[:MOST_COLUMNS]
    parts = [
        _rules(f"{unit} dropped by rule", {name: groups[name][unit] for name in shown})
        for unit in ("pages", "lines")
    ]
    return joined(tag("h3", title), panel(table(head, rows), *parts))


def _group(name: str, facts: Mapping[str, Any]) -> tuple[Child, ...]:
    pages, lines = facts["pages"], facts["lines"]
    return (
        name,
        f"{facts['weight']:g}" if "weight" in facts else None,
        number(pages["in"]),
        number(pages["kept"]),
        share(pages["kept"] / max(pages["in"], 1)),
        number(lines["in"]),
        number(lines["kept"]),
        short(facts["characters"]["kept"]),
    )


def _rules(title: str, accounts: Mapping[str, Mapping[str, Any]]) -> Markup:
    """How many each rule took from each group, the rules that took most first."""
    sums: dict[str, int] = {}
    for account in accounts.values():
        for reason, count in account["dropped"].items():
            sums[reason] = sums.get(reason, 0) + count
    rows = [
        (
            words(reason),
            *(number(account["dropped"].get(reason, 0)) for account in accounts.values()),
        )
        for reason in sorted(sums, key=lambda reason: (-sums[reason], reason))
    ]
    return tag("details", tag("summary", title), table(("", *accounts), rows))


def _masked(masked: Mapping[str, int]) -> Markup | None:
    if not masked:
        return None
    told = ", ".join(f"{number(count)} {words(name)}" for name, count in masked.items())
    return tag("p", f"Masked for privacy: {told}.", class_="soft", style="margin-top:14px")


def _near(report: Mapping[str, Any]) -> Markup | None:
    """How many near duplicates went, how sure that is, and the largest clusters."""
    if not report:
        return None
    documents, truth = report["documents"], report["pairs"]["joined_truly"]
    threshold, wrong = report["settings"]["threshold"], truth["share_below_threshold"]
    told = f"{number(documents['removed'])} of {number(documents['in'])} documents were removed."
    if wrong is not None:
        told += (
            f" Of {truth['sampled']} joined pairs that were compared shingle by shingle, "
            f"{share(wrong)} are less alike than {threshold:g}."
        )
    clusters = [
        tag(
            "details",
            tag("summary", f"{number(one['size'])} documents"),
            _quote(one["kept"]["text"], ("kept", one["kept"]["url"])),
            *(
                _quote(other["text"], (f"alike to {other['jaccard']:.2f}", other["url"]))
                for other in one["removed"]
            ),
        )
        for one in report["clusters"]["largest"]
    ]
    return joined(
        tag("h3", "Near duplicates"),
        tag("p", told, class_="soft"),
        panel(*clusters) if clusters else None,
    )


def _contamination(report: Mapping[str, Any]) -> Markup | None:
    """What evaluation sets were found in the documents."""
    if not report:
        return None
    rows = [
        (
            one["name"],
            number(one["texts"]),
            number(one["texts_found"]),
            number(one["documents_with_it"]),
        )
        for one in report["sets"]
    ]
    examples = [
        _quote(example["gram"], (one["name"], example["text"], example["url"]))
        for one in report["sets"]
        for example in one["examples"]
    ]
    head = ("evaluation set", "texts", "texts found", "documents that share words with it")
    return joined(
        tag("h3", f"Contamination: {report['gram_words']} words in a row"),
        panel(
            table(head, rows),
            tag("details", tag("summary", "Examples"), *examples) if examples else None,
        ),
    )


def _quote(text: str, facts: Sequence[str]) -> Markup:
    told = " · ".join(fact for fact in facts if fact)
    return tag("blockquote", tag("p", text), tag("footer", told))


def _examples(output: Output) -> Markup | None:
    """Kept pages, then for each rule, the most frequent first, pages and lines that it took."""
    samples = output.facts("samples.json")
    groups = [("kept", samples.get("kept", ()), output.counts["pages"]["kept"])]
    for unit, kind in (("dropped", "pages"), ("lines", "lines")):
        dropped = dict(account_of(output.counts[kind]).dropped)
        found = samples.get(unit, {})
        groups += [
            (f"{words(reason)}, {kind}", found[reason], dropped.get(reason, 0))
            for reason in sorted(found, key=lambda reason: (-dropped.get(reason, 0), reason))
        ]
    shown = [_quotes(title, items, count) for title, items, count in groups if items]
    return joined(tag("h3", "Examples"), panel(*shown)) if shown else None


def _quotes(title: str, items: Sequence[Mapping[str, Any]], count: int) -> Markup:
    quotes = []
    for item in items:
        facts = [item.get("title", ""), item.get("url", ""), item.get("source", "")]
        if "record" in item:
            facts.append(f"{item['file']} at {item['record']}")
        quotes.append(_quote(item.get("text", ""), facts))
    return tag("details", tag("summary", f"{title} ({len(items)} of {number(count)})"), *quotes)


def _faults(faults: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The first damaged places of the input."""
    if not faults:
        return None
    rows = [
        (words(one["reason"]), tag("code", one["file"]), str(one["record"]), one["excerpt"])
        for one in faults[:MOST_FAULTS]
    ]
    head = ("", "file", "at", "what was found")
    return joined(
        tag("h3", "Damaged input"),
        tag("p", "The first places; all are in faults.jsonl.", class_="soft"),
        panel(table(head, rows, numeric=4)),
    )
