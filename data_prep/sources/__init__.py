"""Sources of raw pages: one file a format and one union; a new one is a file and a line here."""

from typing import Annotated

import pydantic

from data_prep.sources.html import HtmlSource
from data_prep.sources.hugging_face import DatasetsSource
from data_prep.sources.jsonl import JsonlSource
from data_prep.sources.page import FAULT_REASONS as FAULT_REASONS
from data_prep.sources.page import SKIP_REASONS as SKIP_REASONS
from data_prep.sources.page import Fault as Fault
from data_prep.sources.page import FileRange as FileRange
from data_prep.sources.page import Page as Page
from data_prep.sources.parquet import ParquetSource
from data_prep.sources.places import all_files as all_files
from data_prep.sources.places import all_ranges as all_ranges
from data_prep.sources.text import TextSource
from data_prep.sources.warc import WarcSource
from data_prep.sources.warc import read_archive as read_archive

InputSource = Annotated[
    WarcSource | HtmlSource | TextSource | JsonlSource | ParquetSource | DatasetsSource,
    pydantic.Field(discriminator="type"),
]
