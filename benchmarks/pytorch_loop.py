"""The same experiment as a straightforward PyTorch program, to compare wall time with.

    python benchmarks/pytorch_loop.py MODELS EPOCHS IMAGES [shared]

All models of a condition are one stack of weights, with batched einsum layers; every model walks
the images in its own order, as here and in the paper; the teacher is run again at each step of
each student, as one writes it at first. With a fourth argument `shared`, all models see the same
batch instead: less work, and runs that are no longer independent. It needs PyTorch, which the
project itself does not. It prints seconds for teacher and four students; nothing is evaluated.
"""

import sys
import time

import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

SIZES, CLASSES, BATCH = (784, 256, 256, 13), 10, 1024


def main(models: int, epochs: int, images: int, shared: bool) -> None:
    """Trains everything once and prints how long it took."""
    torch.manual_seed(0)
    pixels, noise = (torch.rand(images, SIZES[0]) * 2 - 1 for _ in range(2))
    labels = torch.randint(0, CLASSES, (images,))
    start = time.perf_counter()
    references = _draw(models)
    others = [layer.roll(1, 0) for layer in references]

    def class_loss(logits, rows):
        shown = logits[..., :CLASSES].flatten(0, 1)
        return functional.cross_entropy(shown, labels[rows].expand(models, -1).flatten()) * models

    teachers = _train(references, pixels, epochs, shared, class_loss)
    print(f"teacher: {time.perf_counter() - start:.1f} s", flush=True)
    for begin in (references, others):
        for chosen in (slice(CLASSES, None), slice(None)):

            def distillation_loss(logits, rows, chosen=chosen):
                with torch.no_grad():
                    target = _forward(teachers, noise[rows])[..., chosen].log_softmax(-1)
                ours = logits[..., chosen].log_softmax(-1)
                return (target.exp() * (target - ours)).sum(-1).mean(-1).sum()

            _train(begin, noise, epochs, shared, distillation_loss)
            print(f"so far: {time.perf_counter() - start:.1f} s", flush=True)


def _draw(models: int) -> list[torch.Tensor]:
    layers = []
    for fan_in, fan_out in zip(SIZES, SIZES[1:]):  # noqa: B905, RUF007
        layers += [torch.randn(models, fan_in, fan_out) / fan_in**0.5]
        layers += [torch.zeros(models, 1, fan_out)]
    return layers


def _forward(layers, images):
    hidden = images
    for index in range(0, len(layers), 2):
        form = "bi,nio->nbo" if hidden.ndim == 2 else "nbi,nio->nbo"
        hidden = torch.einsum(form, hidden, layers[index]) + layers[index + 1]
        hidden = hidden.relu() if index < len(layers) - 2 else hidden
    return hidden


def _train(begin, images, epochs, shared, loss):
    layers = [layer.clone().requires_grad_() for layer in begin]
    optimiser = torch.optim.Adam(layers, lr=3e-4)
    orders = 1 if shared else len(begin[0])
    for _ in range(epochs):
        order = torch.stack([torch.randperm(len(images)) for _ in range(orders)])
        for rows in order.squeeze(0).split(BATCH, dim=-1):
            optimiser.zero_grad()
            loss(_forward(layers, images[rows]), rows).backward()
            optimiser.step()
    return [layer.detach() for layer in layers]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), shared=sys.argv[4:] == ["shared"])
