"""A server that speaks the chat protocol of OpenAI's services, on the loopback interface."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from zlib import crc32

from llm_harness.model import Chat, Completion, LanguageModel, Message, Sampling

# What a server answers to a request's JSON.
Answer = Callable[[dict[str, Any]], Completion]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Gives the server's address, and the requests that it has had."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(request)
            status, body = 200, {}
            try:
                body = _body(request["model"], answer(request))
            except ConnectionRefusedError as error:
                status, body = 401, {"error": {"message": str(error), "type": "refused"}}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chat_of(request: dict[str, Any]) -> Chat:
    """The messages of a request."""
    return tuple(Message(one["role"], one["content"]) for one in request["messages"])


def of_model(model: LanguageModel) -> Answer:
    """A model as what a server answers with; requests are answered one after the other.

    An answer depends on the chat and on how often it came, and not on the order in which others do.
    """
    lock, times = Lock(), Counter[Chat]()

    def answer(request: dict[str, Any]) -> Completion:
        with lock:
            chat = chat_of(request)
            tokens = request.get("max_tokens") or request["max_completion_tokens"]
            seed = crc32(f"{chat} {times[chat]}".encode())
            times[chat] += 1
            sampling = Sampling(1, request.get("temperature", 1.0), tokens, seed)
            return model.sample([chat], sampling)[0][0]

    return answer


def _body(model: str, said: Completion) -> dict[str, Any]:
    reasons = {"end": "stop", "length": "length", "refused": "content_filter"}
    message = {"role": "assistant", "content": said.text}
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reasons[said.stop]}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }
