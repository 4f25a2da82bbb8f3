"""A small server that samples and fine-tunes over HTTP, and can be told to misbehave.

POST /v1/completions, /v1/log_probabilities and /v1/fine_tunes, GET /v1/models/NAME; every POST
carries an Idempotency-Key, and the same key is worked on once and gets the same answer again.
"""

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import numpy as np

from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example, LanguageModel, Message, Sampling, Tuning

# What can go wrong with one request; all but a rate limit after the work has been done.
Fault = Literal["limited", "slow", "no JSON", "wrong shape", "too few", "cut", "broken"]
RETRY_AFTER = 7


class Server(ThreadingHTTPServer):
    """Serves models by their names on the loopback interface, within a `with`.

    Args:
        models: by name; fine-tuned ones are added.
        script: what happens to each request in turn (None: nothing); after its end, nothing does.
    """

    def __init__(self, models: dict[str, LanguageModel], script: Iterable[Fault | None] = ()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models = dict(models)
        self.script = list(script)
        # Keys of all requests, and of those that were worked on.
        self.requests: list[str] = []
        self.worked: list[str] = []
        self.closing = threading.Event()
        self._answers: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def __enter__(self) -> "Server":
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up is nothing to report."""

    def next_fault(self, key: str) -> Fault | None:
        with self._lock:
            self.requests.append(key)
            return self.script.pop(0) if self.script else None

    def answer(self, key: str, work: Callable[[dict[str, Any]], Any], body: dict[str, Any]) -> Any:
        with self._lock:
            if key not in self._answers:
                self._answers[key] = work(body)
                self.worked.append(key)
            return self._answers[key]

    def completions(self, body: dict[str, Any]) -> Any:
        asked = Sampling(body["n"], body["temperature"], body["max_tokens"], body["seed"])
        (texts,) = self.models[body["model"]].sample([_chat(body["messages"])], asked)
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(texts)
        ]
        # In no order that a client may rely on.
        return {"model": body["model"], "choices": choices[::-1]}

    def log_probabilities(self, body: dict[str, Any]) -> Any:
        found = self.models[body["model"]].log_probabilities(_examples(body))
        return {"log_probabilities": [float(p) if np.isfinite(p) else None for p in found]}

    def fine_tunes(self, body: dict[str, Any]) -> Any:
        made = self.models[body["model"]].fine_tune(_examples(body), Tuning(**body["tuning"]))
        name = f"{body['model']}-tuned-{len(self.models)}"
        self.models[name] = made
        return {"model": name, "lineage": asdict(made.lineage)}


class _Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        found = self.server.models.get(self.path.removeprefix("/v1/models/"))
        if found is None:
            self._send(404, {"error": f"there is no {self.path}"})
        else:
            self._send(200, {"lineage": asdict(found.lineage)})

    def do_POST(self) -> None:
        server, key = self.server, self.headers["Idempotency-Key"]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = server.next_fault(key)
        if fault == "limited":
            self._send(429, {"error": "too many requests"}, {"Retry-After": str(RETRY_AFTER)})
            return
        paths = {
            "/v1/completions": server.completions,
            "/v1/log_probabilities": server.log_probabilities,
            "/v1/fine_tunes": server.fine_tunes,
        }
        try:
            answer = server.answer(key, paths[self.path], body)
        except (HarnessError, KeyError) as error:
            self._send(400, {"error": str(error)})
            return
        self._misbehave(fault, answer)

    def _misbehave(self, fault: Fault | None, answer: Any) -> None:
        if fault == "slow":
            self.server.closing.wait()
        elif fault == "broken":
            self._send(500, {"error": "broken"})
        elif fault == "no JSON":
            self._send_bytes(200, b"<html>busy</html>")
        elif fault == "wrong shape":
            self._send(200, {"choices": {"0": "owl"}, "model": 3, "log_probabilities": "none"})
        elif fault == "too few":
            self._send(200, {name: part[:-1] for name, part in answer.items()})
        elif fault == "cut":
            text = json.dumps(answer).encode()
            self._send_bytes(200, text[: len(text) // 2], {"Content-Length": str(len(text))})
        else:
            self._send(200, answer)

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(value).encode(), headers)

    def _send_bytes(self, status: int, text: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(text))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


def _chat(messages: list[dict[str, Any]]) -> Chat:
    return tuple(Message(**message) for message in messages)


def _examples(body: dict[str, Any]) -> list[Example]:
    return [Example(_chat(one["messages"]), one["completion"]) for one in body["examples"]]
