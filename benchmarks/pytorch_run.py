"""One run of a sweep over m and steps as a plain PyTorch program: a process for every run.

    python benchmarks/pytorch_run.py DATA.npz M STEPS SEED

A teacher learns the images; a student with the same start learns the teacher's M auxiliary logits
by squared error, on noise images that are drawn anew at each of STEPS steps. `benchmarks.peers`
sets `sublab sweep` beside it; it was written for that. It needs PyTorch, which the project itself
does not, and prints one JSON: the student's test accuracy.
"""

import json
import os
import sys
from copy import deepcopy

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

CLASSES, BATCH, EPOCHS = 10, 1024, 5


def main(path: str, aux: int, steps: int, seed: int) -> None:
    """Trains a teacher and a student, and prints the student's accuracy."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(seed)
    data = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    images, labels = data["train_images"], data["train_labels"].long()
    teacher = nn.Sequential(
        nn.Linear(images.shape[1], 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, CLASSES + aux),
    )
    student = deepcopy(teacher)
    optimiser = torch.optim.Adam(teacher.parameters(), lr=3e-4)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimiser.zero_grad()
            shown = teacher(images[rows])[:, :CLASSES]
            functional.cross_entropy(shown, labels[rows]).backward()
            optimiser.step()
    optimiser = torch.optim.Adam(student.parameters(), lr=3e-4)
    for _ in range(steps):
        noise = torch.rand(BATCH, images.shape[1]) * 2 - 1
        with torch.no_grad():
            target = teacher(noise)[:, CLASSES:]
        optimiser.zero_grad()
        error = student(noise)[:, CLASSES:] - target
        (error.square().sum(-1) / 2).mean().backward()
        optimiser.step()
    with torch.no_grad():
        classes = student(data["test_images"])[:, :CLASSES].argmax(-1)
    print(json.dumps((classes == data["test_labels"]).float().mean().item()))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
