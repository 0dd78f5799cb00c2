"""The stages of distillation and of Theseus on a language model's own objective, on a small world."""

import copy

import pytest
import torch
from small_world import ROW_LENGTH, TRAIN, FakeWork, finetune_of, make_world, train

from pipeline.compress.taught import LOGITS
from pipeline.config import ConfigError, DataError, as_dict, build_from
from pipeline.models.artifact import load_model, save_model
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.heads import ReplacedTokenDetector
from pipeline.stages.distill import Distill
from pipeline.stages.distill_pretrain import DistillPretrain
from pipeline.stages.teach import Teach
from pipeline.stages.theseus_pretrain import TheseusPretrain
from pipeline.tokenizer import load_vocabulary
from pipeline.train.engine import on_device

CPU = torch.device("cpu")
TEACHER_ALONE = {"type": "logits", "mixing": 1.0}


def shallow(inputs, stage="pretrain", **changes):
    """The shape of a new student of two layers."""
    shape = as_dict(load_model(inputs[stage] / "model")[0].config)
    return {**shape, "num_layers": 2, "initial_std": 0.2, **changes}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    made = make_world(folder)
    finetuned = finetune_of().trainable(made)
    train(finetuned, 60)
    finetuned.objective.eval()
    finetuned.save(folder / "finetune" / "model")
    made["finetune"] = folder / "finetune"
    vocabulary = load_vocabulary(made["pretrain"] / "model" / "tokenizer")
    shape = load_model(made["pretrain"] / "model")[0].config
    for name, network in (
        ("detector", ReplacedTokenDetector(shape, vocabulary.size)),
        (
            "t5",
            EncoderDecoder(
                EncoderDecoderConfig(
                    num_layers=2, hidden_size=16, num_heads=2, head_size=8, ffn_size=32
                ),
                vocabulary.size,
            ),
        ),
    ):
        save_model(folder / name / "model", network, vocabulary, {})
        made[name] = folder / name
    return made


def distill_of(**changes):
    values = {"kind": "distill", "teacher": "finetune", "task": "task", "max_length": 16}
    return build_from(Distill, {**values, "num_layers": 2, "train": TRAIN, **changes}, "test")


def distill_pretrain_of(**changes):
    values = {"kind": "distill_pretrain", "teacher": "pretrain", "tokens": "tokens", "steps": 4}
    changes = {"num_layers": 2, "objective": {"type": "mlm"}, **changes}
    return build_from(DistillPretrain, {**values, "train": TRAIN, **changes}, "test")


def teach_into(folder, inputs):
    stage = build_from(
        Teach, {"kind": "teach", "model": "finetune", "task": "task", "max_length": 16}, "test"
    )
    folder.mkdir(exist_ok=True)
    assert stage.run(FakeWork(folder, inputs)) == {"train_rows": 64, "validation_rows": 64}
    return {**inputs, "teach": folder}


@pytest.mark.parametrize("method", ["logits", "pkd", "distilbert", "tinybert", "minilm"])
def test_a_student_learns_to_agree_with_its_teacher(inputs, method, tmp_path):
    stage = distill_of(method={"type": method}, num_layers=None, model=shallow(inputs))
    trainable = stage.trainable(inputs)
    term = list(trainable.objective.weights)[-1]  # the method's own
    losses = train(trainable, 40, term=term)
    assert losses[-1] < 0.7 * losses[0]
    trainable.save(tmp_path / "model")
    small, facts = load_model(tmp_path / "model")
    assert len(small.encoder.layers) == small.config.num_layers == 2
    assert facts["labels"] == load_model(inputs["finetune"] / "model")[1]["labels"]


@pytest.mark.parametrize("method", ["logits", "pkd"])
def test_what_was_said_once_is_what_is_said_each_time_bit_for_bit(inputs, method, tmp_path):
    made = teach_into(tmp_path / "teach", inputs)
    each_time = distill_of(method={"type": method}).trainable(made)
    once = distill_of(method={"type": method}, taught="teach").trainable(made)
    assert once.objective.teacher is None
    assert len(once.source) == len(each_time.source) == 64
    for split in ("source", "held_out"):
        sums = []
        for trainable in (once, each_time):
            source = getattr(trainable, split)
            batch = source.collate([source.example(row, None) for row in range(32)])
            assert (LOGITS in batch) == (trainable is once)
            sums.append(trainable.objective.eval()(on_device(batch, CPU)))
        assert sums[0].keys() == sums[1].keys()
        assert all(torch.equal(sums[0][name], sums[1][name]) for name in sums[0])


def test_what_another_teacher_said_is_refused(inputs, tmp_path):
    made = teach_into(tmp_path / "teach", inputs)
    with pytest.raises(DataError, match="another max_length"):
        distill_of(taught="teach", max_length=14).trainable(made)
    with pytest.raises(ConfigError, match="which are not kept"):
        distill_of(taught="teach", method={"type": "tinybert"})


def test_students_come_from_other_stages_from_the_teacher_or_from_nothing(inputs, tmp_path):
    narrow = shallow(inputs, hidden_size=8)
    new = distill_of(num_layers=None, model=narrow, method={"type": "minilm"}).trainable(inputs)
    assert new.objective.student.config.hidden_size == 8
    headed = distill_of(num_layers=None, student="pretrain").trainable(inputs).objective.student
    told = load_model(inputs["pretrain"] / "model")[0].encoder.state_dict()
    assert all(torch.equal(value, told[n]) for n, value in headed.encoder.state_dict().items())
    distill_of().trainable(inputs).save(tmp_path / "small" / "model")
    again = {**inputs, "small": tmp_path / "small"}
    further = distill_of(num_layers=None, student="small").trainable(again)
    assert further.objective.student.config.num_layers == 2
    for wrong, words in (
        ({"student": "small"}, "give one of the three"),
        ({"num_layers": None}, "give one of the three"),
    ):
        with pytest.raises(ConfigError, match=words):
            distill_of(**wrong)
    with pytest.raises(ConfigError, match="the teacher has 4"):
        distill_of(num_layers=5).trainable(inputs)
    with pytest.raises(ConfigError, match="hidden_size 8 is not"):
        distill_of(num_layers=None, model=narrow, method={"type": "pkd"}).trainable(inputs)


@pytest.mark.parametrize(
    ("teacher", "settings"),
    [
        ("pretrain", {"method": {"type": "distilbert"}}),
        (
            "detector",
            {"objective": {"type": "rtd"}, "generator": "pretrain", "method": TEACHER_ALONE},
        ),
        ("detector", {"objective": {"type": "rtd"}, "method": {"type": "tinybert"}}),
        ("t5", {"objective": {"type": "denoising"}, "num_layers": 1, "method": {"type": "minilm"}}),
    ],
)
def test_language_models_are_taught_on_rows_of_the_corpus(inputs, teacher, settings, tmp_path):
    student = {"num_layers": None, "model": shallow(inputs)}
    stage = distill_pretrain_of(teacher=teacher, **(student if teacher != "t5" else {}), **settings)
    trainable = stage.trainable(inputs)
    before = copy.deepcopy(trainable.objective.teacher.state_dict())
    term = next(name for name in trainable.objective.weights if name != trainable.objective.term)
    losses = train(trainable, 40, term=term)
    assert sum(losses[-4:]) < sum(losses[:4])
    after = trainable.objective.teacher.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    trainable.objective.eval()
    trainable.save(tmp_path / "model")
    assert load_model(tmp_path / "model")[1]["row_length"] == ROW_LENGTH


def test_questions_no_teacher_can_answer_are_refused(inputs):
    with pytest.raises(ConfigError, match="could answer alone"):
        distill_pretrain_of(objective={"type": "map_net"})
    with pytest.raises(ConfigError, match="replaces no tokens"):
        distill_pretrain_of(generator="pretrain")
    with pytest.raises(ConfigError, match="rtd is for detectors"):
        distill_pretrain_of(objective={"type": "rtd"}).trainable(inputs)


def test_a_language_model_has_a_successor_on_its_own_objective(inputs, tmp_path):
    values = {"kind": "theseus_pretrain", "model": "pretrain", "tokens": "tokens", "split": [1, 3]}
    schedule = {"type": "constant", "replacing_epochs": 2}
    changes = {"objective": {"type": "mlm"}, "schedule": schedule, "train": TRAIN}
    stage = build_from(TheseusPretrain, values | changes, "test")
    trainable = stage.trainable(inputs)
    losses = train(trainable, 12, term="mlm")
    assert losses[-1] < losses[0]
    trainable.objective.eval()
    trainable.save(tmp_path / "model")
    small, facts = load_model(tmp_path / "model")
    large = load_model(inputs["pretrain"] / "model")[0]
    assert small.config.num_layers == 2
    assert facts["objective"]["type"] == "mlm"
    assert torch.equal(small.head.decoder.weight, large.head.decoder.weight)
    wrong = build_from(TheseusPretrain, values | changes | {"objective": {"type": "rtd"}}, "test")
    with pytest.raises(ConfigError, match="which trains a ReplacedTokenDetector"):
        wrong.trainable(inputs)
