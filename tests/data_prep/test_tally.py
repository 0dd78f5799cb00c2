"""Accounts add up in any order, and samples do not depend on who offered them first."""

import random

from data_prep.tally import SAMPLES_PER_REASON, Samples, Tally, sum_of, tally_of


def made(seed):
    chance = random.Random(seed)
    tally = Tally()
    for counter, names in (
        (tally.pages, ("", "too_long", "duplicate_url")),
        (tally.lines, ("", "no_end_mark", "page_dropped")),
        (tally.characters, ("in", "kept", "replaced")),
        (tally.documents, ("train", "validation")),
        (tally.masked, ("emails", "phones")),
    ):
        counter.update({name: chance.randrange(1, 100) for name in names})
    return tally


def test_what_is_written_is_what_was_counted():
    tally = made(1)
    account = tally.as_json()
    assert tally_of(account) == tally
    assert account["pages"]["in"] == account["pages"]["kept"] + sum(
        account["pages"]["dropped"].values()
    )
    assert list(account["pages"]["dropped"]) == ["duplicate_url", "too_long"]


def test_sums_do_not_depend_on_order():
    tallies = {str(seed): made(seed) for seed in range(6)}
    whole = sum_of(tallies)
    assert sum_of(dict(reversed(tallies.items()))) == whole
    assert whole.pages[""] == sum(tally.pages[""] for tally in tallies.values())


def test_the_same_samples_are_chosen_in_any_order_and_from_any_parts():
    offers = [
        (f"r{number % 3}", {"key": f"{number * 7919 % 61:03d}", "text": str(number)})
        for number in range(90)
    ]
    expected = Samples()
    for reason, sample in offers:
        expected.offer(reason, sample)
    assert {len(items) for items in expected.chosen.values()} == {SAMPLES_PER_REASON}
    for seed in range(5):
        random.Random(seed).shuffle(offers)
        parts = [Samples() for _ in range(4)]
        for number, (reason, sample) in enumerate(offers):
            parts[number % 4].offer(reason, sample)
        whole = Samples()
        for part in parts:
            whole.add(part)
        assert whole.as_json() == expected.as_json()
