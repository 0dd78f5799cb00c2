"""What a run file says of cleaning: presets, rules off, added and changed, and what is refused."""

import dataclasses
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.clean import PRESETS, Cleaning, cleaner_of
from data_prep.clean.presets import PresetName, RuleName
from data_prep.clean.rules import Rules
from pipeline.config import ConfigError, as_dict, build_from

TEXT = "The first sentence stands here. The second one does too. And a third."


def cleaning(**values):
    return build_from(Cleaning, values)


def test_the_names_are_those_there_are():
    assert typing.get_args(PresetName) == tuple(PRESETS)
    assert typing.get_args(RuleName) == tuple(field.name for field in dataclasses.fields(Rules))


def test_rules_are_switched_off_added_and_changed():
    on = dict(Cleaning().rules_on.on())
    changed = cleaning(
        without=["javascript"], rules={"few_words": {"min_words": 3}, "stop_words": {}}
    )
    now = dict(changed.rules_on.on())
    assert set(on) ^ set(now) == {"javascript", "stop_words"}
    assert (on["few_words"].min_words, now["few_words"].min_words) == (5, 3)
    assert now["few_words"] == PRESETS["c4-paper"].rules.few_words
    assert as_dict(Cleaning())["rules"] == {}
    assert as_dict(changed)["rules"]["few_words"] == {"min_words": 3}
    cleaner = cleaner_of(changed)
    assert cleaner is cleaner_of(build_from(Cleaning, as_dict(changed)))
    assert cleaner.clean(f"{TEXT}\nNow to be of use, JavaScript then.").text.endswith("then.")
    assert cleaner.clean("There are no such words. " * 4).reason == "stop_words"


def test_phrases_and_marks_can_be_those_of_another_language():
    rules = {
        "no_end_mark": {"marks": ["。"], "never": []},
        "few_words": {"min_words": 1},
        "policy_notice": {"phrases": ["隐私政策"]},
        "too_few_sentences": {"min_sentences": 1},
    }
    cleaned = cleaner_of(cleaning(rules=rules)).clean("这是一句话。\n请阅读隐私政策。\n没有句号")
    assert cleaned.text == "这是一句话。"
    assert dict(cleaned.dropped) == {"policy_notice": 1, "no_end_mark": 1}


@given(st.sets(st.sampled_from(sorted(dict(PRESETS["c4-code"].rules.on())))))
def test_a_rule_that_is_off_gives_no_reason(off):
    text = "\n".join(
        [
            *("WARC/1.0 said so in the end.", "x" * 1001 + " is a very long word.", "no mark"),
            *(
                "Too short.",
                "Here JavaScript is needed by us.",
                "Our privacy policy is this one.",
                TEXT,
            ),
        ]
    )
    cleaned = cleaner_of(Cleaning(without=tuple(sorted(off)))).clean(text)
    drops = {"header_line", "long_word", "no_end_mark", "few_words", "javascript", "policy_notice"}
    assert not set(cleaned.dropped) & off
    assert {"header_line", "javascript", "policy_notice"} - off <= set(cleaned.dropped) <= drops
    assert cleaned.lines == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preset": "c4_code"}, "did you mean 'c4-code'?"),
        ({"without": ["java_script"]}, "did you mean 'javascript'?"),
        ({"without": ["stop_words"]}, "not on in preset 'c4-code'"),
        ({"without": ["few_words"], "rules": {"few_words": {}}}, "it needs one of them"),
        ({"rules": {"fewwords": {}}}, "unknown key; did you mean 'few_words'?"),
        ({"rules": {"few_words": {"words": 3}}}, "unknown key"),
        ({"rules": {"few_words": {"min_words": 0}}}, "at least 1"),
        ({"rules": {"javascript": {"phrases": ["JavaScript"]}}}, "lower case"),
        ({"rules": {"bad_words": {}}, "language": {"type": "none"}}, "tells none"),
        ({"language": {"type": "fast", "keep": ["english"]}}, "no code of a language"),
        ({"language": {"type": "slow"}}, "allowed: fast, c4, mc4, none"),
        ({"mask": ["emails", "ips"]}, "emails, ip_addresses, phones"),
    ],
)
def test_what_cannot_work_is_refused_in_words(values, words):
    with pytest.raises(ConfigError) as refused:
        cleaning(**values)
    [line] = refused.value.problems
    assert words in line
