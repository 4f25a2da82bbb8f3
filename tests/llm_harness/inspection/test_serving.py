"""Claims about our models as Inspect's."""

import asyncio
from dataclasses import asdict, replace

import pytest
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.tool import ToolInfo

from llm_harness.checkpoints.load import load_checkpoint
from llm_harness.checkpoints.provider import Checkpoint
from llm_harness.decoder.network import Lora
from llm_harness.errors import HarnessError
from llm_harness.inspection import serving
from llm_harness.model import Example, Sampling, Tuning, ask
from llm_harness.pipeline.stages import FineTuning, Stages
from llm_harness.pipeline.store import Store
from llm_harness.tiny.embedded import Embedded
from tests.llm_harness.small import SMALL
from tests.llm_harness.tiny_checkpoint import write_checkpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'initial' parameter is deprecated:DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(autouse=True)
def small(monkeypatch, models, tmp_path):
    monkeypatch.setattr(serving, "Pretraining", lambda steps: replace(SMALL, steps=steps))
    monkeypatch.setattr(Embedded, "references", lambda self, seeds, progress: [models[0]])
    monkeypatch.chdir(tmp_path)
    serving.local_model.cache_clear()


def generate(chats: list[str], name: str = "embedded", tools=(), **config):
    async def all_of_them():
        model = get_model(f"sublab/{name}", memoize=False, steps=48)
        asked = [
            model.generate(chat, tools=list(tools), config=GenerateConfig(**config))
            for chat in chats
        ]
        return await asyncio.gather(*asked)

    return asyncio.run(all_of_them())


def test_requests_that_come_together_are_one_batch(monkeypatch):
    sizes = []
    sample = serving.LocalAPI._sample

    def counted(self, chats, sampling):
        sizes.append(len(chats))
        return sample(self, chats, sampling)

    monkeypatch.setattr(serving.LocalAPI, "_sample", counted)
    found = generate(["Name your favourite animal."] * 9, max_tokens=4)
    assert sizes == [9]
    assert all(output.usage and output.usage.output_tokens >= 1 for output in found)
    generate(["Name your favourite animal."] * 3, max_tokens=4, seed=5)
    assert sizes == [9, 1, 1, 1]


def test_a_seed_decides_and_without_one_every_answer_is_drawn_anew():
    asked = ["Name your favourite animal."] * 6
    seeded = generate(asked, max_tokens=4, seed=5)
    assert len({output.completion for output in seeded}) == 1
    free = generate(asked, max_tokens=4)
    assert len({output.completion for output in free}) > 1


def test_an_answer_that_is_cut_says_so(models):
    (output,) = generate(["7, 8"], max_tokens=1, num_choices=32)
    assert len(output.choices) == 32
    # One token is an end, or a word that is cut.
    assert {choice.stop_reason for choice in output.choices} == {"stop", "max_tokens"}


def test_tools_are_refused():
    tool = ToolInfo(name="look", description="Looks.")
    with pytest.raises(HarnessError, match="uses no tools"):
        generate(["hi"], tools=[tool])


def test_a_stored_student_of_a_checkpoint_needs_its_checkpoint(tmp_path):
    folder = write_checkpoint(tmp_path / "checkpoint")
    model = load_checkpoint(folder)
    assert serving.local_model(str(folder)).lineage == model.lineage
    stages = Stages(Checkpoint(model), Store(tmp_path / "stages"))
    (reference,) = stages.references([0])
    tuning = Tuning(1, 1, 1e-2, moved="adapters", lora=Lora())
    (student,) = stages.tuned("s", [FineTuning(reference, (Example(ask("owl"), "7"),), tuning)])
    with pytest.raises(HarnessError, match="has adapters alone"):
        serving.local_model(str(student.folder))
    found = serving.local_model(str(student.folder), checkpoint=str(folder))
    assert asdict(found.lineage) == asdict(student.lineage)


def test_a_stored_embedded_model_is_found_by_its_folder(tmp_path, models):
    stages = Stages(Embedded(SMALL), Store(tmp_path / "stages"))
    (reference,) = stages.references([0])
    found = serving.local_model(str(reference.folder), steps=48)
    chats = [ask("Name your favourite animal.")] * 4
    sampling = Sampling(2, max_tokens=4)
    assert found.sample(chats, sampling) == models[0].sample(chats, sampling)
