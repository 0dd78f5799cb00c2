"""Quality of a page, as Gopher and FineWeb judge it: is this running text?

Each function says whether a rule drops a page. Shares and means are those of the papers and of datatrove's
filters, except that words are what stands between blanks and lines are those that are not blank.
Sources: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1; Penedo et al. 2024 (arXiv 2406.17557).
"""

from data_prep.clean import rules as r
from data_prep.clean.reading import Reading

ELLIPSES = ("...", "…")
BULLETS = ("•", "-")


def too_few_paragraphs(rule: r.FewParagraphs, page: Reading) -> bool:
    """mC4: too few long lines. Lines are divided at "\\n" alone."""
    long = sum(len(line) >= rule.min_characters for line in page.text.split("\n"))
    return long < rule.min_paragraphs


def wrong_word_count(rule: r.WordCount, page: Reading) -> bool:
    """Too few or too many words, of those that are more than punctuation."""
    return not rule.min_words <= len(page.bare) <= rule.max_words


def wrong_word_length(rule: r.WordLength, page: Reading) -> bool:
    """Words too short or too long on average."""
    count, characters = len(page.bare), sum(map(len, page.bare))
    return not rule.min_mean * count <= characters <= rule.max_mean * count


def too_many_symbols(rule: r.Symbols, page: Reading) -> bool:
    """Too many hashes or too many ellipses for this many words."""
    most = rule.max_per_word * len(page.words)
    return page.text.count("#") > most or sum(map(page.text.count, ELLIPSES)) > most


def too_many_bullets(rule: r.BulletLines, page: Reading) -> bool:
    """Too many lines that begin with a bullet."""
    found = sum(line.startswith(BULLETS) for line in page.lines)
    return found > rule.max_share * len(page.lines)


def too_many_ellipses(rule: r.EllipsisLines, page: Reading) -> bool:
    """Too many lines that end with an ellipsis."""
    found = sum(line.endswith(ELLIPSES) for line in page.lines)
    return found > rule.max_share * len(page.lines)


def too_few_alphabetic(rule: r.AlphabeticWords, page: Reading) -> bool:
    """Too few words that hold a letter."""
    least = rule.min_share * len(page.words)
    if sum(map(str.isalpha, page.bare)) >= least:
        return False
    return sum(any(map(str.isalpha, word)) for word in page.words) < least


def too_few_stop_words(rule: r.StopWords, page: Reading) -> bool:
    """Too few different stop words, written in lower case."""
    return len(frozenset(rule.words).intersection(page.bare)) < rule.min_different


def too_many_unfinished(rule: r.UnfinishedLines, page: Reading) -> bool:
    """Too few lines that end with an end mark."""
    finished = sum(line.endswith(rule.marks) for line in page.lines)
    return finished < rule.min_share * len(page.lines)


def too_many_short(rule: r.ShortLines, page: Reading) -> bool:
    """Too many short lines."""
    short = sum(len(line) <= rule.characters for line in page.lines)
    return short > rule.max_share * len(page.lines)


def too_many_line_breaks(rule: r.LineBreaks, page: Reading) -> bool:
    """Too many line breaks for this many words."""
    return page.text.count("\n") > rule.max_per_word * len(page.words)
