"""Languages are told as the libraries tell them, the same on every call, and kept as was asked for."""

import pytest
from c4_reference import detect_english, detect_language

from data_prep.clean import Cleaning, cleaner_of
from data_prep.clean.language import language_teller
from data_prep.clean.presets import C4Language, FastLanguage, Mc4Language, NoLanguage

TEXTS = {
    "en": "The weather was fine this morning, and so we walked along the river to the old mill. We sat there "
    "for a long time and talked about what is still to be done next week.",
    "de": "Das Wetter war heute Morgen schön, und so gingen wir am Fluss entlang zur alten Mühle. Dort haben "
    "wir lange gesessen und über das gesprochen, was noch zu erledigen ist.",
    "fr": "Il faisait beau ce matin, et nous avons donc marché le long de la rivière jusqu'au vieux moulin. "
    "Nous y sommes restés longtemps, et nous avons parlé de ce qui reste à faire.",
    "ja": "今朝は天気が良かったので、私たちは川沿いを歩いて古い水車小屋まで行きました。とても楽しかったです。",
}
LONG = {language: "\n".join([text] * 3) for language, text in TEXTS.items()}


@pytest.mark.parametrize("config", [FastLanguage(), C4Language(), Mc4Language()])
@pytest.mark.parametrize("language", TEXTS)
def test_each_way_tells_languages(config, language):
    told = language_teller(config)(LONG[language])
    assert told.language == language
    assert told.reason == ("" if not config.keep or language in config.keep else "other_language")


@pytest.mark.parametrize("text", ["", "\n", "12 34", "ok", "\ud800 and \udfff", "\x00", "a" * 9000])
def test_what_is_not_sure_is_und(text):
    # langdetect, for one, is sure of some of these; it must not fail, and must say the same again.
    for config in (FastLanguage(keep=("xx",)), C4Language(), Mc4Language(keep=("xx",))):
        tell = language_teller(config)
        told = tell(text)
        assert told == tell(text)
        assert (told.reason == "unsure_language") == (told.language == "und")
    assert language_teller(Mc4Language())(text).language == "und"


@pytest.mark.parametrize(
    "text", [*LONG.values(), TEXTS["en"] + TEXTS["fr"], "A b c d.", "Oui, non."]
)
def test_the_ways_of_c4_are_those_of_c4(text):
    told = language_teller(C4Language())(text)
    assert (told.language, told.reason) == detect_english(text)
    assert language_teller(Mc4Language())(text).language == detect_language(text)


def test_one_run_keeps_several_languages():
    cleaning = Cleaning(language=FastLanguage(keep=("en", "de")), without=("too_few_sentences",))
    settled = {name: cleaner_of(cleaning).settle(text, "") for name, text in LONG.items()}
    assert [name for name in settled if not settled[name].reason] == ["en", "de"]
    assert settled["fr"].reason == "other_language"
    assert [page.language for page in settled.values()] == list(LONG)
    untold = cleaner_of(Cleaning(language=NoLanguage())).settle(LONG["en"], "")
    assert (untold.reason, untold.language) == ("", "")
