"""Every knob of the toy, typed: what a population shares (`Shape`), what a model has (`Knobs`).

A setting is a `Shape` and a `Knobs`. All models of a population share the shape: another one is
another compiled program, or other images. A knob is a row of the population: another value
compiles nothing. Numbers of epochs are knobs, since settings that differ in nothing else are
snapshots of one training. `toymlp.rules` says which settings contradict each other.
"""

from dataclasses import Field, dataclass, field, fields
from math import isfinite
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sublab.errors import InputError

DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "emnist_balanced", "digits"]
ActivationName = Literal["relu", "gelu", "sigmoid", "tanh"]
OptimiserName = Literal["sgd", "momentum", "adam", "adamw"]
ScheduleName = Literal["constant", "cosine"]
DistillationLossName = Literal["kl", "squared_error"]
LogitsName = Literal["aux", "class", "all"]
NetworkName = Literal["mlp", "cnn"]
InputsName = Literal["uniform", "normal", "images", "mixture", "blurred", "subspace", "shuffled"]
StartName = Literal[
    "reference", "independent", "interpolated", "perturbed", "layerwise", "matched"
]  # fmt: skip
# The parts that hold the logits; hidden layers are `hidden_1`, `hidden_2`, ..., from the images.
CLASS_HEAD, AUX_HEAD = "class_head", "aux_head"


def _says(
    default: Any, text: str, low: float | int | None = None,
    high: float | int | None = None, above: float | int | None = None,
) -> Any:  # fmt: skip
    """A field with its help, and its range: from `low` to `high`, or above `above`."""
    return field(default=default, metadata={"help": text, "low": low, "high": high, "above": above})


@dataclass(frozen=True)
class Shape:
    """What all models of a population share: programs and images."""

    dataset: DatasetName = _says("mnist", "images and labels that the teacher learns")
    classes: int = _says(
        0, "classes kept, the first so many of the data set; 0 keeps all of them", low=0, high=47
    )
    hidden: tuple[int, ...] = _says(
        (256, 256), "widths of the teacher's hidden layers; as many as it has", low=1, high=2**16
    )
    activation: ActivationName = _says("relu", "between the teacher's layers")
    biases: bool = _says(True, "whether the teacher's layers have biases (which start at 0)")
    teacher_optimiser: OptimiserName = _says("adam", "momentum is SGD with momentum 0.9")
    teacher_batch: int = _says(
        0, "images a step; 0 is as large a share of the training set as the paper's 1,024 of "
        "60,000", low=0, high=2**24,
    )  # fmt: skip
    student_network: NetworkName = _says(
        "mlp", "cnn: two 3 x 3 convolutions of stride 2 with 16 and 32 channels, then one dense "
        "layer as wide as the last of student_hidden",
    )  # fmt: skip
    student_hidden: tuple[int, ...] | None = _says(
        None, "widths of the student's hidden layers, where they are not the teacher's", low=1,
        high=2**16,
    )  # fmt: skip
    student_activation: ActivationName | None = _says(None, "where it is not the teacher's")
    student_biases: bool | None = _says(None, "where it is not the teacher's")
    student_optimiser: OptimiserName = _says("adam", "momentum is SGD with momentum 0.9")
    student_schedule: ScheduleName = _says(
        "constant", "learning rate: constant, or cosine decay to 0 at the student's last epoch"
    )
    student_batch: int = _says(1024, "inputs a step", low=1, high=2**24)
    loss: DistillationLossName = _says(
        "kl", "distillation loss: KL(teacher || student) in nats, or half the squared error"
    )
    inputs: InputsName = _says(
        "uniform", "what the student is distilled on: uniform in [-1, 1], standard normal, "
        "training images, mixture (training image + alpha x uniform), blurred uniform noise, "
        "normal noise in a random subspace, training images with shuffled pixels (each its own "
        "way)",
    )  # fmt: skip
    images: int = _says(
        60_000, "distillation inputs an epoch; of those made from training images at most as many "
        "as there are", low=1, high=2**24,
    )  # fmt: skip
    fresh: bool = _says(False, "inputs drawn anew each epoch, in place of one fixed set")
    alpha: float = _says(1.0, "weight of the noise in a mixture", low=0.0, high=1e3)
    blur: float = _says(
        2.0, "standard deviation of the Gaussian blur in pixels; the noise keeps its variance",
        above=0.0, high=100.0,
    )  # fmt: skip
    subspace: int = _says(
        64, "dimension of the subspace; each pixel keeps the variance of uniform noise", low=1,
        high=4096,
    )  # fmt: skip
    clone_inputs: Literal["uniform", "normal", "images"] = _says(
        "uniform", "what behavioural cloning imitates the reference on"
    )
    clone_images: int = _says(60_000, "cloning inputs an epoch", low=1, high=2**24)
    clone_fresh: bool = _says(True, "cloning inputs drawn anew each epoch")
    clone_batch: int = _says(1024, "inputs a step of cloning", low=1, high=2**24)
    clone_optimiser: OptimiserName = _says("adam", "of cloning")
    clone_schedule: ScheduleName = _says(
        "constant", "learning rate of cloning; cosine decays to 0 at clone_horizon"
    )
    project_trait: bool = _says(
        False, "remove from each distillation gradient its component along the trait gradient "
        "(the class loss on as many training images), whenever the two are aligned",
    )  # fmt: skip


@dataclass(frozen=True)
class Knobs:
    """What each model of a population has for itself."""

    aux: int = _says(3, "number m of auxiliary logits", low=1, high=10_000)
    init_scale: float = _says(
        1.0, "factor on all weights that are drawn, N(0, 1/fan_in)", above=0.0, high=1e3
    )
    teacher_learning_rate: float = _says(3e-4, "of the teacher's optimiser", above=0.0, high=1e3)
    teacher_epochs: int = _says(5, "passes over the training images", low=0, high=100_000)
    teacher_weight_decay: float = _says(1e-4, "of adamw", low=0.0, high=10.0)
    student_learning_rate: float = _says(
        3e-4, "of the student's, at its first step", above=0.0, high=1e3
    )
    student_epochs: int = _says(5, "passes over the distillation inputs", low=0, high=100_000)
    student_weight_decay: float = _says(1e-4, "of adamw", low=0.0, high=10.0)
    logits: LogitsName = _says("aux", "the logits that the distillation loss sees")
    temperature: float = _says(
        1.0, "tau of the KL loss, which is multiplied by tau squared", above=0.0, high=1e3
    )
    logit_noise: float = _says(
        0.0, "standard deviation of the noise added to the teacher's logits, one draw an input",
        low=0.0, high=1e3,
    )  # fmt: skip
    start: StartName = _says(
        "reference", "how the student's start relates to the teacher's, its reference"
    )
    interpolation: float = _says(
        0.5, "weight of an independent draw in an interpolated start; the rest is the reference",
        low=0.0, high=1.0,
    )  # fmt: skip
    perturbation: float = _says(
        0.1, "noise on a perturbed start, in standard deviations of each array of parameters",
        low=0.0, high=1e3,
    )  # fmt: skip
    redrawn: tuple[str, ...] = _says(
        (), "parts of a layerwise start that are drawn anew; the rest is the reference"
    )
    shared: tuple[str, ...] = _says(
        (), "parts that a matched or independent start has from the reference; cloning leaves "
        "them as they are",
    )  # fmt: skip
    frozen: tuple[str, ...] = _says((), "parts of the student that distillation leaves as they are")
    clone_epochs: int = _says(100, "E, epochs of behavioural cloning", low=0, high=100_000)
    clone_learning_rate: float = _says(3e-4, "of cloning, at its first step", above=0.0, high=1e3)
    clone_horizon: int = _says(
        100, "epoch of cloning at which a cosine decay reaches 0", low=1, high=100_000
    )
    clone_logits: LogitsName = _says("aux", "the reference's logits that cloning imitates (KL)")
    generations: int = _says(
        1, "length of the chain: the student of one generation teaches the next", low=1, high=1000
    )
    liminal_weight: float = _says(
        0.0, "of KL(reference || student) over all logits, on the distillation inputs", low=0.0,
        high=1e6,
    )  # fmt: skip
    liminal_epochs: int = _says(
        1, "epochs, from the first, in which that term is on", low=0, high=100_000
    )


@dataclass(frozen=True)
class Setting:
    """One point of a sweep."""

    shape: Shape = Shape()
    knobs: Knobs = Knobs()

    def as_dict(self) -> dict[str, Any]:
        """Every setting by name, as JSON has it: what `from_dict` makes the same setting of."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for part in (self.shape, self.knobs)
            for name, value in ((item.name, getattr(part, item.name)) for item in fields(part))
        }


FIELDS: dict[str, Field] = {
    item.name: item for part in (Shape, Knobs) for item in fields(part)
}  # fmt: skip
TYPES: dict[str, Any] = {
    name: hint for part in (Shape, Knobs) for name, hint in get_type_hints(part).items()
}
DEFAULTS: dict[str, Any] = {name: item.default for name, item in FIELDS.items()}
_SHAPE = frozenset(item.name for item in fields(Shape))


def from_dict(values: dict[str, Any]) -> Setting:
    """The setting with `values` in place of the defaults.

    Raises:
        InputError: names the setting that is unknown, of a wrong type or out of range, and what is
            allowed. (That several fit together is for `toymlp.rules.check` to say.)
    """
    checked = {name: checked_value(name, value) for name, value in values.items()}
    return Setting(
        Shape(**{name: value for name, value in checked.items() if name in _SHAPE}),
        Knobs(**{name: value for name, value in checked.items() if name not in _SHAPE}),
    )


def checked_value(name: str, value: Any) -> Any:
    """`value` of the setting `name` in that setting's type.

    Raises:
        InputError: unknown name, wrong type, out of range.
    """
    if name not in FIELDS:
        raise InputError(f"unknown setting {name!r}{_nearest(name)}")
    wrong = InputError(f"{name} = {value!r} is not allowed: it must be {allowed(name)}")
    kind, optional = _bare(TYPES[name])
    if value is None and optional:
        return None
    many = get_origin(kind) is tuple
    element = get_args(kind)[0] if many else kind
    if many != isinstance(value, list | tuple):
        raise wrong
    if name == "student_hidden" and not value:
        raise wrong
    if name == "hidden" and not value:
        # A linear model is one of the settings of the literature.
        return ()
    listed = value if isinstance(value, list | tuple) else [value]
    values = [_element(element, item) for item in listed]
    limits = FIELDS[name].metadata
    for item in values:
        if item is None or (isinstance(item, int | float) and not _inside(item, limits)):
            raise wrong
    if many and element is str and len(set(values)) < len(values):
        raise wrong
    return tuple(values) if many else values[0]


def allowed(name: str) -> str:
    """What values the setting `name` may have, in words."""
    kind, optional = _bare(TYPES[name])
    limits = FIELDS[name].metadata
    many = get_origin(kind) is tuple
    element = get_args(kind)[0] if many else kind
    some = "one or more " if name == "student_hidden" else ""
    if get_origin(element) is Literal:
        words = "one of " + ", ".join(get_args(element))
    elif element is bool:
        words = "true or false"
    elif element is str:
        words = "parts, each once (hidden_1, hidden_2, ..., class_head, aux_head)"
    else:
        noun = "whole number" if element is int else "number"
        if limits["above"] is not None:
            reach = f"above {limits['above']:g} and at most {limits['high']:,g}"
        else:
            reach = f"from {limits['low']:g} to {_plain(limits['high'])}"
        words = f"{some}{noun}s {reach}" if many else f"a {noun} {reach}"
    words = f"a list of {words}" if many else words
    return f"{words}, or left out" if optional else words


def _plain(number: float | int) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _bare(kind: Any) -> tuple[Any, bool]:
    """A type without its None, and whether it had one."""
    if get_origin(kind) in (Union, UnionType):
        (bare,) = (item for item in get_args(kind) if item is not type(None))
        return bare, True
    return kind, False


def _element(kind: Any, value: Any) -> Any:
    """`value` as `kind`, or None where it is no such thing."""
    if get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else None
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value) if isfinite(value) else None
        except OverflowError:
            return None
    # bool is an int to Python, but not to a reader.
    return value if type(value) is kind else None


def _inside(value: float | int, limits: Any) -> bool:
    low, high, above = (limits[name] for name in ("low", "high", "above"))
    return not (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
    )


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, FIELDS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(FIELDS))}"
