"""A second implementation of `LanguageModel`: one that is reached over HTTP.

Each request has a key that stands for all that is asked; an attempt that failed is repeated with
the same key, and an answer that arrived is written into a journal before the next is asked for. The
same call, in another process too, asks for what is missing.
"""

import hashlib
import http.client
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llm_harness.errors import HarnessError
from llm_harness.model import (
    Chat,
    Example,
    Lineage,
    Progress,
    Sampling,
    TrainingRecord,
    Tuning,
    sha256_of,
)


@dataclass(frozen=True)
class Patience:
    """How long a request is tried.

    Attributes:
        attempts: of one request.
        first_wait: seconds before the second attempt; each wait after it is twice as long.
        longest_wait: seconds.
        timeout: seconds that an answer may take.
    """

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 30.0
    timeout: float = 60.0


class _FailedError(Exception):
    """An attempt that may succeed when it is repeated, and how long the server asked to wait."""

    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class HttpModel:
    """A model on a server. Implements `LanguageModel`.

    Attributes:
        address: host and port.
        name: of the model there.
        lineage: as the server tells it.
        folder: of the journal.
        patience: with the server.
        sleep: waits for so many seconds.
    """

    address: tuple[str, int]
    name: str
    lineage: Lineage
    folder: Path
    patience: Patience = Patience()
    sleep: Callable[[float], None] = time.sleep

    def sample(
        self, prompts: Sequence[Chat], sampling: Sampling, progress: Progress | None = None
    ) -> list[list[str]]:
        bodies = [
            {
                "messages": [asdict(message) for message in chat],
                "n": sampling.n,
                "temperature": sampling.temperature,
                "max_tokens": sampling.max_tokens,
                # Equal prompts are answered independently.
                "seed": int(sha256_of([sampling.seed, index])[:7], 16),
            }
            for index, chat in enumerate(prompts)
        ]
        return self._ask("completions", bodies, lambda a: _completions(a, sampling.n), progress)

    def log_probabilities(self, examples: Sequence[Example]) -> np.ndarray:
        def read(answer: Any) -> list[float | None]:
            found = answer["log_probabilities"]
            if not isinstance(found, list) or len(found) != len(examples):
                raise ValueError("a log-probability is missing")
            return [None if p is None else float(p) for p in found]

        (found,) = self._ask("log_probabilities", [_written(examples)], read)
        return np.array([-np.inf if p is None else p for p in found])

    def fine_tune(
        self, examples: Sequence[Example], tuning: Tuning, progress: Progress | None = None
    ) -> "HttpModel":
        def read(answer: Any) -> tuple[str, dict[str, Any]]:
            if not isinstance(answer["model"], str):
                raise ValueError("the model has no name")
            return answer["model"], asdict(_lineage(answer["lineage"]))

        body = _written(examples) | {"tuning": asdict(tuning)}
        ((name, lineage),) = self._ask("fine_tunes", [body], read, progress)
        return replace(self, name=name, lineage=_lineage(lineage))

    def save(self, folder: Path) -> None:
        """Writes where the model is to be found."""
        about = {
            "address": self.address,
            "name": self.name,
            "lineage": asdict(self.lineage),
            "journal": str(self.folder),
        }
        (folder / "model.json").write_text(json.dumps(about))

    def _ask(
        self,
        path: str,
        bodies: Sequence[dict[str, Any]],
        read: Callable[[Any], Any],
        progress: Progress | None = None,
    ) -> list[Any]:
        """The answers, in the order of the bodies; what the journal has is not asked for."""
        # Keys name the model by its lineage: a server may give a name to another model.
        keys = [sha256_of([path, self.lineage.identity, i, body]) for i, body in enumerate(bodies)]
        answers = self._journal()
        done = sum(key in answers for key in keys)
        for key, body in zip(keys, bodies, strict=True):
            if key not in answers:
                where = f"{path}, {done} of {len(keys)} answers kept in {self.folder}"
                answers[key] = self._persist(path, key, {"model": self.name} | body, read, where)
                self._keep(key, answers[key])
                done += 1
            if progress is not None:
                progress(done / len(keys))
        return [answers[key] for key in keys]

    def _persist(
        self, path: str, key: str, body: dict[str, Any], read: Callable[[Any], Any], where: str
    ) -> Any:
        wait, patience = self.patience.first_wait, self.patience
        for attempt in range(1, patience.attempts + 1):
            try:
                return self._attempt(path, key, body, read)
            except _FailedError as error:
                if attempt == patience.attempts:
                    raise HarnessError(
                        f"{self.address[0]}:{self.address[1]} failed {attempt} times, last with "
                        f"{error}: {where}"
                    ) from None
                self.sleep(max(wait, error.wait))
                wait = min(2 * wait, patience.longest_wait)
        raise ValueError("patience.attempts: at least 1")

    def _attempt(
        self, path: str, key: str, body: dict[str, Any], read: Callable[[Any], Any]
    ) -> Any:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        text = json.dumps(body)
        status, told, given = _exchange(
            self.address, self.patience.timeout, "POST", f"/v1/{path}", text, headers
        )
        if status == 429:
            asked = told.get("Retry-After", "")
            raise _FailedError("a rate limit (429)", float(asked) if asked.isdigit() else 0.0)
        if status >= 500:
            raise _FailedError(f"an error of the server ({status})")
        if status != 200:
            raise HarnessError(f"{path}: {_error_in(given)}")
        try:
            return read(json.loads(given))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _FailedError(f"a malformed answer ({error})") from None

    def _journal(self) -> dict[str, Any]:
        file, found = self.folder / "journal.jsonl", {}
        for line in file.read_text().splitlines() if file.exists() else ():
            try:
                entry = json.loads(line)
                key, answer = entry["key"], entry["answer"]
                if entry["sha256"] == _sum(key, answer):
                    found[key] = answer
            except (ValueError, KeyError, TypeError):
                continue  # Cut off by a crash.
        return found

    def _keep(self, key: str, answer: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        entry = {"key": key, "answer": answer, "sha256": _sum(key, answer)}
        with (self.folder / "journal.jsonl").open("a") as file:
            # A newline first, so that a line that was cut off spoils none but itself.
            file.write("\n" + json.dumps(entry))


def connect(address: tuple[str, int], name: str, folder: Path, **settings: Any) -> HttpModel:
    """A model of a server; `settings` are those of `HttpModel`.

    Raises:
        HarnessError: the server does not answer, or has no such model.
    """
    try:
        status, _, text = _exchange(address, 60.0, "GET", f"/v1/models/{name}")
        if status != 200:
            raise HarnessError(f"{address[0]}:{address[1]}: {_error_in(text)}")
        return HttpModel(address, name, _lineage(json.loads(text)["lineage"]), folder, **settings)
    except _FailedError as error:
        raise HarnessError(f"{address[0]}:{address[1]}: {error}") from None


def load(folder: Path) -> HttpModel:
    """A model that `HttpModel.save` wrote."""
    about = json.loads((folder / "model.json").read_text())
    host, port = about["address"]
    return HttpModel(
        (host, port), about["name"], _lineage(about["lineage"]), Path(about["journal"])
    )


def _exchange(
    address: tuple[str, int], timeout: float, method: str, path: str, *request: Any
) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request(method, path, *request)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except TimeoutError:
        raise _FailedError(f"no answer within {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise _FailedError(f"a cut connection ({type(error).__name__})") from None
    finally:
        connection.close()


def _completions(answer: Any, n: int) -> list[str]:
    texts = {choice["index"]: choice["message"]["content"] for choice in answer["choices"]}
    if len(answer["choices"]) != n or sorted(texts) != list(range(n)):
        raise ValueError(f"{len(answer['choices'])} completions where {n} were asked for")
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("a completion that is no text")
    return [texts[index] for index in range(n)]


def _written(examples: Sequence[Example]) -> dict[str, Any]:
    return {
        "examples": [
            {"messages": [asdict(m) for m in one.prompt], "completion": one.completion}
            for one in examples
        ]
    }


def _lineage(value: Any) -> Lineage:
    trainings = tuple(TrainingRecord(**one) for one in value["trainings"])
    return Lineage(value["initialisation"], trainings)


def _error_in(text: bytes) -> str:
    try:
        return " ".join(str(json.loads(text)["error"]).split())
    except (ValueError, KeyError, TypeError):
        return "an answer that says nothing"


def _sum(key: str, answer: Any) -> str:
    return hashlib.sha256(json.dumps([key, answer]).encode()).hexdigest()
