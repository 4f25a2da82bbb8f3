"""The paper's MNIST experiment as a plain PyTorch program, all runs of a condition as one stack.

    python benchmarks/pytorch_population.py DATA.npz RUNS [EPOCHS]

It is what `benchmarks.peers` sets `sublab mnist` beside, written for that and for nothing else.
Every layer of a condition is one batched product over its runs; every run walks through the
inputs in an order of its own; the teacher is run again at each step of each student, as one
writes it at first. DATA.npz holds train_images, train_labels, test_images, test_labels.
It needs PyTorch, which the project itself does not, and prints one JSON: test accuracies by run, of
the six conditions and of their teachers.
"""

import json
import os
import sys

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

SIZES, CLASSES, BATCH, NOISE = (784, 256, 256, 13), 10, 1024, 60_000


def main(path: str, runs: int, epochs: int = 5) -> None:
    """Trains everything once and prints the accuracies."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    data = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    images, labels = data["train_images"], data["train_labels"].long()
    noise = torch.rand(NOISE, SIZES[0]) * 2 - 1
    references, others = draw(runs), draw(runs)
    accuracy = {"reference": tested(references, data)}

    def class_loss(logits, batch, rows):
        del batch
        shown = logits[..., :CLASSES].flatten(0, 1)
        return functional.cross_entropy(shown, labels[rows].flatten()) * runs

    teachers = train(references, images, epochs, class_loss)
    accuracy["teacher"] = tested(teachers, data)
    for start, of_start in (("student", references), ("cross-model", others)):
        for shown, chosen in (("aux", slice(CLASSES, None)), ("all", slice(None))):

            def distillation_loss(logits, batch, rows, chosen=chosen):
                del rows
                with torch.no_grad():
                    target = forward(teachers, batch)[..., chosen].log_softmax(-1)
                ours = logits[..., chosen].log_softmax(-1)
                return (target.exp() * (target - ours)).sum(-1).mean(-1).sum()

            students = train(of_start, noise, epochs, distillation_loss)
            accuracy[f"{start}, {shown} logits"] = tested(students, data)
    print(json.dumps(accuracy))


def draw(runs: int) -> list[torch.Tensor]:
    """A weight and a bias a layer, of all runs."""
    layers = []
    for fan_in, fan_out in zip(SIZES, SIZES[1:]):  # noqa: B905, RUF007
        layers += [torch.randn(runs, fan_in, fan_out) / fan_in**0.5]
        layers += [torch.zeros(runs, 1, fan_out)]
    return layers


def forward(layers: list[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The logits of every run on its own images, (runs, batch, pixels)."""
    hidden = images
    for index in range(0, len(layers), 2):
        hidden = torch.baddbmm(layers[index + 1], hidden, layers[index])
        hidden = hidden.relu() if index < len(layers) - 2 else hidden
    return hidden


def train(begin: list[torch.Tensor], images: torch.Tensor, epochs: int, loss) -> list[torch.Tensor]:
    """Adam from `begin`, every run in an order of its own."""
    layers = [layer.clone().requires_grad_() for layer in begin]
    optimiser = torch.optim.Adam(layers, lr=3e-4)
    for _ in range(epochs):
        order = torch.stack([torch.randperm(len(images)) for _ in range(len(begin[0]))])
        for rows in order.split(BATCH, dim=-1):
            optimiser.zero_grad()
            batch = images[rows]
            loss(forward(layers, batch), batch, rows).backward()
            optimiser.step()
    return [layer.detach() for layer in layers]


@torch.no_grad()
def tested(layers: list[torch.Tensor], data: dict[str, torch.Tensor]) -> list[float]:
    """The test accuracy of every run."""
    images = data["test_images"].expand(len(layers[0]), -1, -1)
    classes = forward(layers, images)[..., :CLASSES].argmax(-1)
    return (classes == data["test_labels"]).float().mean(-1).tolist()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
