"""The `import` stage: the model in a Hugging Face folder as a language model to start from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipeline import files
from pipeline.config import DataError, config
from pipeline.flow.stage import Artifact, Claim, Work
from pipeline.models.artifact import save_model
from pipeline.models.heads import SequenceClassifier
from pipeline.stages.export import LARGEST_DIFFERENCE, SENTENCES


@config
class Import:
    """Imports BERT, ELECTRA, RoBERTa, ModernBERT or T5 from the folder `path`, weights and vocabulary.

    All ids keep their meaning. `num_sentinels` is how many marks of hidden spans the vocabulary has
    (T5's <extra_id_0>, ...), those it lacks above its ids; without it as many as the tokenizer
    knows. `plan` reads this class, so transformers is imported only when the stage runs, or when
    another stage asks for the shape of the network.
    """

    makes: ClassVar[Artifact] = "language_model"
    claims: ClassVar[Claim] = "cpu"
    version: ClassVar[int] = 1

    kind: Literal["import"] = "import"
    path: Path
    num_sentinels: Annotated[int, Field(ge=0, le=1000)] | None = None

    def sources(self) -> Sequence[Path]:
        """The folder."""
        return (self.path,)

    def run(self, work: Work) -> Mapping[str, Any]:
        """Import and verify; DataError when transformers computes something else than Theseum."""
        from pipeline.models.hub.folder import import_folder
        from pipeline.models.hub.verify import verify_folder

        imported = import_folder(self.path, self.num_sentinels)
        if isinstance(imported.network, SequenceClassifier):
            raise DataError(
                f"{self.path}: holds a classifier; only language models can be imported"
            )
        found = verify_folder(imported.network, imported.vocabulary, self.path, SENTENCES)
        difference = found["max_abs_difference"]
        if not difference <= LARGEST_DIFFERENCE:
            raise DataError(
                f"{self.path}: transformers and Theseum differ by {difference:.2g} in what they "
                f"compute, more than {LARGEST_DIFFERENCE:.0e}; do not use this import, report it"
            )
        found |= {"new_head": imported.new_head, "vocabulary": imported.vocabulary.size}
        facts = {"imported": {"folder": self.path.name, **found}}
        save_model(work.out / "model", imported.network, imported.vocabulary, facts)
        files.write_json(work.out / "verification.json", found)
        return found

    def shape(self, _stages: Mapping[str, Any]) -> Any:
        """The config of the network that comes out."""
        from pipeline.models.hub.catalogue import shape_of

        return shape_of(self.path)
