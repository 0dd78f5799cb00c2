"""The catalogue: which kind of stage is which class. One line a stage; imported only when used."""

import importlib
from typing import Any

CATALOGUE = {
    "corpus": "data_prep.corpus.stage:Corpus",
    "vocab": "data_prep.vocab:Vocab",
    "vocab_import": "data_prep.vocab_import:VocabImport",
    "tokens": "data_prep.tokens:Tokens",
    "corpus_export": "data_prep.corpus_export:CorpusExport",
    "task": "data_prep.task:Task",
    "text_pairs": "data_prep.text_pairs:TextPairs",
    "import": "pipeline.stages.model_import:Import",
    "pretrain": "pipeline.stages.pretrain:Pretrain",
    "finetune": "pipeline.stages.finetune:Finetune",
    "finetune_cloze": "pipeline.stages.finetune_cloze:FinetuneCloze",
    "finetune_text": "pipeline.stages.finetune_text:FinetuneText",
    "theseus": "pipeline.stages.theseus:Theseus",
    "theseus_pretrain": "pipeline.stages.theseus_pretrain:TheseusPretrain",
    "teach": "pipeline.stages.teach:Teach",
    "distill": "pipeline.stages.distill:Distill",
    "distill_pretrain": "pipeline.stages.distill_pretrain:DistillPretrain",
    "evaluate": "pipeline.stages.evaluate:Evaluate",
    "export": "pipeline.stages.export:Export",
    "report": "pipeline.stages.report:Report",
}


def stage_class(kind: str) -> Any:
    """The config class of a stage kind."""
    module, _, name = CATALOGUE[kind].partition(":")
    return getattr(importlib.import_module(module), name)
