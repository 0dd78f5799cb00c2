"""The libraries that the corpus benchmarks compare with, each doing one job on the same files and timing itself.

Runs in the environment of `requirements-corpus.txt`, as a child of a benchmark: one JSON line a job on its input, one
a result on its output. Files are read, models loaded and every job warmed up before its clock starts. Extraction by
datatrove runs without the second process it guards itself with, which favours it.
"""

import functools
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasketch import MinHash, MinHashLSH
from datasketch.hashfunc import sha1_hash32
from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import C4QualityFilter, LanguageFilter
from datatrove.pipeline.readers.warc import process_record
from datatrove.utils.lid import FT176LID
from fasttext.FastText import _FastText
from resiliparse.extract.html2text import extract_plain_text
from warcio.archiveiterator import ArchiveIterator
from xxhash import xxh32_intdigest

LIBRARIES = ("datatrove", "datasketch", "trafilatura", "warcio", "spacy", "resiliparse")
HASHES = {"sha1": sha1_hash32, "xxh32": xxh32_intdigest}
WARM = 3


@functools.cache
def texts_of(path: str) -> tuple[str, ...]:
    """The texts of a JSON-lines file."""
    with Path(path).open(encoding="utf-8") as file:
        return tuple(json.loads(line)["text"] for line in file)


def timed(work: Callable[[Any], Any], items: Sequence[Any]) -> dict[str, Any]:
    """CPU seconds of `work` on all items, and how many of its results are true."""
    for item in items[:WARM]:
        work(item)
    began = time.process_time()
    kept = sum(bool(work(item)) for item in items)
    return {"cpu_seconds": time.process_time() - began, "items": len(items), "kept": kept}


def versions() -> dict[str, str]:
    """Versions of what is compared with."""
    return {library: importlib.metadata.version(library) for library in LIBRARIES}


def c4_rules(texts: str, words: int, sentences: int) -> dict[str, Any]:
    """datatrove's C4 filter with these limits."""
    rules = C4QualityFilter(min_words_per_line=words, min_num_sentences=sentences)
    return timed(lambda text: _passes(rules, text), texts_of(texts))


def _passes(rules: C4QualityFilter, text: str) -> bool:
    return rules.filter(Document(text=text, id="")) is True


class LocalLanguages(FT176LID):
    """datatrove's language model read from a file instead of a download."""

    def __init__(self, languages: list[str], file: str) -> None:
        super().__init__(languages)
        self._file = file

    @functools.cached_property
    def model(self) -> _FastText:
        """The model."""
        return _FastText(self._file)


def chain(archive: str, extractor: str, language_model: str) -> dict[str, Any]:
    """From an archive to clean English text: datatrove's reader, an extractor, language, C4 filter."""
    language = LanguageFilter(languages=["en"])
    language.model = LocalLanguages(["en"], language_model)
    rules = C4QualityFilter(min_words_per_line=5, min_num_sentences=3)
    extract = {"trafilatura": Trafilatura().extract, "resiliparse": main_content}[extractor]

    def is_kept(html: str) -> bool:
        document = Document(text=extract(html) or "", id="")
        return bool(document.text and language.filter(document)) and rules.filter(document) is True

    for html in _pages(archive, WARM):
        is_kept(html)
    began = time.process_time()
    kept = [is_kept(html) for html in _pages(archive)]
    seconds = time.process_time() - began
    return {"cpu_seconds": seconds, "items": len(kept), "kept": sum(kept)}


def main_content(html: str) -> str:
    """Main content by resiliparse, as in NeMo Curator's fastest extractor."""
    return str(extract_plain_text(html, main_content=True, alt_texts=False))


def _pages(archive: str, most: int | None = None) -> Iterator[str]:
    with Path(archive).open("rb") as file:
        for number, record in enumerate(ArchiveIterator(file)):
            if number == most:
                return
            data = process_record(record)
            if data:
                yield data["text"]


def minhash(texts: str, hash_name: str, words: int, permutations: int) -> dict[str, Any]:
    """datasketch's signatures of shingles of `words` words."""
    return timed(lambda text: _signature(text, hash_name, words, permutations), texts_of(texts))


def _signature(text: str, hash_name: str, words: int, permutations: int) -> MinHash:
    signature = MinHash(num_perm=permutations, hashfunc=HASHES[hash_name])
    signature.update_batch(shingles(text, words))
    return signature


def shingles(text: str, words: int) -> list[bytes]:
    """Distinct runs of `words` words, case and punctuation as they are; a short text is one."""
    split = text.split()
    runs = range(max(1, len(split) - words + 1))
    return list({" ".join(split[start : start + words]).encode() for start in runs})


def near_duplicates(
    texts: str, words: int, permutations: int, bands: int, rows: int, threshold: float
) -> dict[str, Any]:
    """Pairs that datasketch's LSH answers with, each with the Jaccard its signatures estimate."""
    documents = texts_of(texts)
    began = time.process_time()
    signatures = [_signature(text, "xxh32", words, permutations) for text in documents]
    index = MinHashLSH(threshold=threshold, num_perm=permutations, params=(bands, rows))
    pairs: list[tuple[int, int, float]] = []
    for number, signature in enumerate(signatures):
        others = [int(name) for name in index.query(signature)]
        pairs += [(one, number, float(signature.jaccard(signatures[one]))) for one in others]
        index.insert(str(number), signature)
    return {"cpu_seconds": time.process_time() - began, "pairs": sorted(pairs)}


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job for job in (versions, c4_rules, chain, minhash, near_duplicates)
}


def main() -> None:
    """Answer jobs until the input ends."""
    for line in sys.stdin:
        arguments = json.loads(line)
        answer = JOBS[arguments.pop("job")](**arguments)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
