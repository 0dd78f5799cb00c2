"""The export stage: a trained network as a Hugging Face folder, loaded back and compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pipeline import files
from pipeline.config import DataError, config
from pipeline.flow.stage import Artifact, Claim, Reads, Work
from pipeline.models.artifact import TOKENIZER_FOLDER, load_model
from pipeline.models.hub.family import FamilyName
from pipeline.tokenizer import load_vocabulary

LARGEST_DIFFERENCE = 1e-4  # of float32 logits; rounding alone stays below 1e-5
SENTENCES = (
    "The harbour was quiet before dawn.",
    "She counted 1,204 boats in 1998, and 37 of them were new.",
    "“Naïve?” he asked — it wasn't a question.",
    "A unit of length equal to one thousandth of a metre.",
    "  Two   spaces,\ttabs and\nnew lines are all white space.  ",
    "https://example.org/a?b=c&d=e",
    "Straße, garçon, señor, smörgåsbord; ﬁve ﬂat ½ cups.",
    "東京 и Москва are capitals.",
    "",
)


@config
class Export:
    """Writes `huggingface/` and `verification.json` for the model of another stage.

    `family` says whose classes of transformers it becomes: bert, electra, modernbert, roberta or t5;
    without it the one whose shape it has.

    `plan` reads this class, so transformers is imported only when the stage runs.
    """

    makes: ClassVar[Artifact] = "export"
    claims: ClassVar[Claim] = "cpu"
    version: ClassVar[int] = 2

    kind: Literal["export"] = "export"
    model: Annotated[str, Reads("language_model", "classifier")]
    family: FamilyName | None = None

    def sources(self) -> Sequence[Path]:
        """Nothing from outside the store."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Export and verify; DataError when transformers computes something else than Theseum."""
        from pipeline.models.hub.folder import export_folder
        from pipeline.models.hub.verify import verify_folder

        folder = work.inputs[self.model] / "model"
        network, facts = load_model(folder)
        vocabulary = load_vocabulary(folder / TOKENIZER_FOLDER)
        hub = files.fresh_folder(work.out / "huggingface")
        export_folder(network, vocabulary, hub, facts.get("labels", ()), self.family)
        found = verify_folder(network, vocabulary, hub, facts.get("texts", SENTENCES))
        files.write_json(work.out / "verification.json", found)
        difference = found["max_abs_difference"]
        if not difference <= LARGEST_DIFFERENCE:
            raise DataError(
                f"{hub}: its logits differ from the network's by {difference:.2g}, more than "
                f"{LARGEST_DIFFERENCE:.0e}; do not use this export, report it"
            )
        return found
