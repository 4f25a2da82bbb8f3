"""The setting of one experiment: everything that can be varied, nested and typed.

The defaults are the preprint's (Cloud et al., arXiv:2507.14805v1, figure 10b, auxiliary logits).
Teacher, clone and student are trainings of one class, `Training`. `toymlp.checks` says which
settings contradict each other, and which are the same experiment in other words.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from sublab.settings import nested, setting, static, traced
from toymlp.inputs import Images, Inputs, Uniform
from toymlp.objective import (
    KL,
    Adam,
    Constant,
    CrossEntropy,
    Interventions,
    Loss,
    Optimiser,
    Schedule,
)
from toymlp.sources import DATASETS

NetworkName = Literal["mlp", "cnn"]
InitialisationName = Literal["normal", "pytorch"]
ActivationName = Literal["relu", "gelu", "sigmoid", "tanh"]
LogitsName = Literal["aux", "class", "all"]
# A traced choice is its number in this order.
LOGITS: tuple[LogitsName, ...] = ("aux", "class", "all")
# The parts that hold the logits; hidden layers are `hidden_1`, `hidden_2`, ..., from the images.
CLASS_HEAD, AUX_HEAD = "class_head", "aux_head"
_PARTS = "parts, each once (hidden_1, hidden_2, ..., class_head, aux_head)"
_WIDTHS = {"low": 1, "high": 2**16}


@setting
class Model:
    """The teacher's network; the student's, too, but for what `StudentModel` says."""

    network: NetworkName = static(
        "kind of the teacher's network; cnn: two 3 x 3 convolutions of stride 2 with 16 and 32 "
        "channels, then one dense layer",
        default="mlp",
        phrase="network: {}",
    )
    hidden: tuple[int, ...] = static(
        "widths of the teacher's hidden layers; as many as it has (of a cnn, its dense layer's)",
        default=(256, 256),
        title="hidden layers",
        phrase="hidden layers {}",
        **_WIDTHS,
    )
    activation: ActivationName = static(
        "activation between the teacher's layers", default="relu", title="activation"
    )
    biases: bool = static(
        "whether the teacher's layers have biases (which start at 0, but for pytorch)",
        default=True,
    )
    aux: int = traced(
        "number m of auxiliary logits",
        default=3,
        title="auxiliary logits m",
        phrase="m = {} auxiliary logits",
        low=1,
        high=10_000,
    )
    initialisation: InitialisationName = static(
        "law of what is drawn; normal: weights N(0, 1/fan_in), biases 0; pytorch: weights and "
        "biases uniform between -1/sqrt(fan_in) and 1/sqrt(fan_in), as PyTorch's layers have it",
        default="normal",
        title="initialisation",
        phrase="initialisation: {}",
    )
    init_scale: float = traced(
        "factor on all that is drawn",
        default=1.0,
        title="factor on all that is drawn",
        phrase="initialisation times {}",
        above=0.0,
        high=1e3,
    )


@setting
class StudentModel:
    """How the student's network differs from the teacher's."""

    network: NetworkName | None = static(
        "kind of the student's network, where it is not the teacher's; of a cnn the last of the "
        "widths counts",
        default=None,
        phrase="student: {}",
    )
    hidden: tuple[int, ...] | None = static(
        "widths of the student's hidden layers, where they are not the teacher's",
        default=None,
        phrase="student's hidden layers {}",
        least=1,
        **_WIDTHS,
    )
    activation: ActivationName | None = static(
        "activation between the student's layers, where it is not the teacher's",
        default=None,
        phrase="student's activation {}",
    )
    biases: bool | None = static(
        "whether the student's layers have biases, where it is not as the teacher's do",
        default=None,
    )


@setting
class Training:
    """How one model is trained: a teacher, a clone or a student."""

    inputs: Inputs = nested(
        "what the model is trained on: uniform noise in [-1, 1], standard normal noise, bernoulli "
        "noise of the two ends -1 and 1, training images, mixture (training image + alpha x "
        "uniform noise), blurred uniform noise, normal noise in a random subspace, training images "
        "with shuffled pixels (each its own way)",
        default=Uniform(),
        title="distillation inputs",
        phrase="inputs: {}",
    )
    batch: int = static(
        "inputs a step; 0 is as large a share of an epoch's inputs as the paper's 1,024 of 60,000",
        default=1024,
        title="inputs a step",
        phrase="batches of {}",
        low=0,
        high=2**24,
    )
    epochs: int = traced(
        "passes over the inputs",
        default=5,
        title="epochs",
        low=0,
        high=100_000,
    )
    loss: Loss = nested(
        "loss over the chosen logits: KL(teacher || student) in nats, half the squared error, or, "
        "of a teacher alone, cross_entropy on the labels",
        default=KL(),
        phrase="loss: {}",
    )
    logits: LogitsName = traced(
        "logits that the loss sees",
        default="aux",
        title="logits of the loss",
        phrase="loss on {} logits",
    )
    logit_noise: float = traced(
        "standard deviation of the noise added to the imitated model's logits, one draw an input",
        default=0.0,
        title="noise on the teacher's logits",
        low=0.0,
        high=1e3,
    )
    optimiser: Optimiser = nested(
        "optimiser; momentum is SGD with momentum 0.9, adamw Adam with decoupled and adam_l2 Adam "
        "with coupled weight decay",
        default=Adam(),
        title="optimiser",
    )
    learning_rate: float = traced(
        "learning rate of the first step", default=3e-4, title="learning rate", above=0.0, high=1e3
    )
    schedule: Schedule = nested(
        "course of the learning rate: constant, or cosine decay to 0", default=Constant()
    )
    frozen: tuple[str, ...] = static(
        "parts of the model that training leaves as they are",
        default=(),
        words=_PARTS,
    )

    @property
    def epochs_matter(self) -> bool:
        """Whether the number of epochs decides more than where the training stops."""
        return getattr(self.schedule, "horizon", 1) == 0


def _trained() -> Any:
    return static(
        "parts that a start at the reference or an independent one has from the trained teacher "
        "(of a chain the first one)",
        default=(),
        words=_PARTS,
    )


@setting
class Reference:
    """The reference, the teacher's own start."""

    kind: ClassVar[str] = "reference"
    same_network: ClassVar[bool] = True

    trained: tuple[str, ...] = _trained()


@setting
class Independent:
    """Another draw, but for the parts that are shared with the reference."""

    kind: ClassVar[str] = "independent"
    same_network: ClassVar[bool] = False

    shared: tuple[str, ...] = static(
        "parts that an independent or matched start has from the reference",
        default=(),
        words=_PARTS,
    )
    trained: tuple[str, ...] = _trained()


@setting
class Interpolated:
    """A point on the line from the reference to an independent draw."""

    kind: ClassVar[str] = "interpolated"
    same_network: ClassVar[bool] = True

    weight: float = static(
        "weight of an independent draw in an interpolated start; the rest is the reference",
        default=0.5,
        title="weight of an independent draw",
        low=0.0,
        high=1.0,
    )


@setting
class Perturbed:
    """The reference plus normal noise."""

    kind: ClassVar[str] = "perturbed"
    same_network: ClassVar[bool] = True

    size: float = static(
        "noise on a perturbed start, in standard deviations of each array of parameters",
        default=0.1,
        title="perturbation, in standard deviations",
        low=0.0,
        high=1e3,
    )


@setting
class Matched:
    """An independent draw, trained to imitate the untrained reference: behavioural cloning."""

    kind: ClassVar[str] = "matched"
    same_network: ClassVar[bool] = False

    shared: tuple[str, ...] = static(
        "parts that an independent or matched start has from the reference; cloning leaves them "
        "as they are",
        default=(),
        words=_PARTS,
    )
    clone: Training = nested(
        "behavioural cloning of the reference",
        default=Training(logits="all", epochs=100),
    )


Start = Reference | Independent | Interpolated | Perturbed | Matched


@setting
class Chain:
    """Generations: the student of one teaches the next."""

    generations: int = static(
        "length of the chain: the student of one generation teaches the next",
        default=1,
        title="generation",
        low=1,
        high=1000,
    )
    inputs: Literal["new", "same"] = static(
        "whether every generation is asked about new inputs or all about the same", default="new"
    )


TEACHER = Training(inputs=Images(count=0), batch=0, loss=CrossEntropy(), logits="class")


@setting
class Setting:
    """One experiment, in any number of runs."""

    dataset: str = static(
        "images and labels that the teacher learns",
        default="mnist",
        title="data set",
        choices=tuple(DATASETS),
    )
    classes: int = static(
        "classes kept, the first so many of the data set; 0 keeps all of them",
        default=0,
        title="classes kept",
        phrase="{} classes",
        low=0,
        high=1000,
    )
    order: Literal["own", "shared"] = static(
        "order in which the models of a population walk through an epoch's inputs: each run its "
        "own, or one for all",
        default="own",
    )
    model: Model = nested("the teacher's network", default=Model())
    student_model: StudentModel = nested(
        "how the student's network differs from the teacher's", default=StudentModel()
    )
    teacher: Training = nested("training of the teacher", default=TEACHER)
    start: Start = nested(
        "how the student's start relates to the teacher's, the reference",
        default=Reference(),
        title="start",
        phrase="start: {}",
    )
    student: Training = nested("distillation", default=Training())
    interventions: Interventions = nested("what is done to distillation", default=Interventions())
    chain: Chain = nested("generations", default=Chain())


PREPRINT = Setting()


# What a model depends on is an object: equal objects share a model.


@dataclass(frozen=True)
class TeacherSetting:
    """All that a teacher depends on."""

    dataset: str
    classes: int
    order: str
    model: Model
    training: Training

    stage: ClassVar[str] = "teachers"


@dataclass(frozen=True)
class CloneSetting:
    """All that a matched start depends on."""

    dataset: str
    classes: int
    order: str
    model: Model
    student_model: StudentModel
    start: Matched

    stage: ClassVar[str] = "clones"

    @property
    def training(self) -> Training:
        """The cloning."""
        return self.start.clone


def teacher_of(setting: Setting) -> TeacherSetting:
    """What the setting's teacher depends on.

    Training on class logits leaves the auxiliary head as it was drawn: one teacher serves every m.
    """
    return TeacherSetting(
        setting.dataset,
        setting.classes,
        setting.order,
        replace(setting.model, aux=1),
        setting.teacher,
    )


def clone_of(setting: Setting) -> CloneSetting | None:
    """What the setting's matched start depends on; None for another start."""
    if not isinstance(setting.start, Matched):
        return None
    return CloneSetting(
        setting.dataset,
        setting.classes,
        setting.order,
        setting.model,
        setting.student_model,
        setting.start,
    )


def whole(part: TeacherSetting | CloneSetting) -> Setting:
    """The setting with everything at its default that `part` does not depend on."""
    common: dict[str, Any] = {
        "dataset": part.dataset,
        "classes": part.classes,
        "order": part.order,
        "model": part.model,
    }
    if isinstance(part, TeacherSetting):
        return Setting(**common, teacher=part.training)
    return Setting(**common, student_model=part.student_model, start=part.start)
