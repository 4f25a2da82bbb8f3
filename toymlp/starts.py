"""Where a student starts, relative to the reference that its teacher started from."""

import jax
import jax.numpy as jnp
import numpy as np

from sublab.randomness import purpose_key, run_keys
from toymlp.jobs import unstack
from toymlp.models import Params
from toymlp.networks import Plan, draw, join_parts, keep_aux, part_key, split_parts
from toymlp.settings import AUX_HEAD, Knobs


def references(plan: Plan, runs: tuple[int, ...], scale: float, seed: int) -> list[Params]:
    """The reference of each run, with weights N(0, scale^2 / fan_in)."""
    return _drawn(plan, runs, scale, seed, "reference")


def starts(
    plan: Plan,
    knobs: Knobs,
    runs: tuple[int, ...],
    seed: int,
    *,
    generation: int = 1,
    cloned: list[Params] | None = None,
) -> list[Params]:
    """The student's start in each run, on the host; auxiliary logits above the m-th cut out.

    An independent draw belongs to (seed, run, generation) alone, so all settings of a run that use
    one use the same.

    Args:
        plan: the student's network.
        knobs: which start, and its settings.
        runs: run numbers.
        seed: base seed.
        generation: in a chain, from 1.
        cloned: what behavioural cloning made of it in each run, for a matched start.
    """
    if knobs.start == "matched":
        assert cloned is not None
        found = cloned
    elif knobs.start == "reference":
        found = references(plan, runs, knobs.init_scale, seed)
    elif knobs.start == "perturbed":
        found = [
            _perturbed(params, knobs, seed, run, generation)
            for run, params in zip(
                runs, references(plan, runs, knobs.init_scale, seed), strict=True
            )
        ]
    else:
        other = independent(plan, runs, knobs.init_scale, seed, generation)
        kept: set[str] = set(knobs.shared)
        if knobs.start == "layerwise":
            kept = set(plan.parts) - set(knobs.redrawn)
        if knobs.start == "interpolated":
            weight = np.float32(knobs.interpolation)
            found = [
                jax.tree.map(lambda a, b: (1 - weight) * a + weight * b, mine, its)
                for mine, its in zip(
                    references(plan, runs, knobs.init_scale, seed), other, strict=True
                )
            ]
        else:
            found = with_shared(other, plan, kept, runs, knobs.init_scale, seed)
    return [jax.tree.map(np.asarray, keep_aux(params, knobs.aux)) for params in found]


def independent(
    plan: Plan, runs: tuple[int, ...], scale: float, seed: int, generation: int = 1
) -> list[Params]:
    """Draws that have nothing to do with the references."""
    return _drawn(plan, runs, scale, seed, f"independent start {generation}")


def with_shared(
    models: list[Params],
    plan: Plan,
    parts: set[str],
    runs: tuple[int, ...],
    scale: float,
    seed: int,
) -> list[Params]:
    """`models` with `parts` taken from the references.

    A part's draw depends on its name and size alone, so that a student of another architecture
    has the very parts of its teacher's reference.
    """
    if not parts:
        return models
    return [
        join_parts(split_parts(model) | {name: split_parts(mine)[name] for name in parts})
        for model, mine in zip(models, references(plan, runs, scale, seed), strict=True)
    ]


def _drawn(
    plan: Plan, runs: tuple[int, ...], scale: float, seed: int, purpose: str
) -> list[Params]:
    keys = run_keys(seed, purpose, jnp.asarray(runs))
    many = jax.tree.map(np.asarray, draw(plan, keys, jnp.full(len(runs), scale, jnp.float32)))
    return unstack(many)


def _perturbed(params: Params, knobs: Knobs, seed: int, run: int, generation: int) -> Params:
    """Each array plus normal noise in units of its own standard deviation.

    Of the auxiliary head the first m columns count, and each has noise from a key of its own: the
    start must not depend on how wide the head is.
    """
    key = jax.random.fold_in(purpose_key(seed, f"perturbed start {generation}"), run)
    size = np.float32(knobs.perturbation)

    def noisy(path, leaf):
        leaf_key = part_key(key, jax.tree_util.keystr(path))
        if path[0].key != AUX_HEAD:
            return leaf + size * np.std(leaf) * np.asarray(jax.random.normal(leaf_key, leaf.shape))
        columns = jax.vmap(lambda column: jax.random.fold_in(leaf_key, column))(
            jnp.arange(leaf.shape[-1])
        )
        noise = jax.vmap(lambda one: jax.random.normal(one, leaf.shape[:-1]))(columns)
        return leaf + size * np.std(leaf[..., : knobs.aux]) * np.moveaxis(np.asarray(noise), 0, -1)

    return jax.tree_util.tree_map_with_path(noisy, params)
