"""The files and batches of an OpenAI-compatible server, as its reference describes them.

A batch is `validating`, then `in_progress`, then `finalizing`, then done, one state each time it is
looked at. Output lines come in another order than the input's. What fails is in the error file.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

STATES = ("validating", "in_progress", "finalizing")
LIMIT = 50_000


@dataclass
class BatchDesk:
    """Files and batches in memory."""

    answer: Callable[[dict[str, Any]], dict[str, Any]]
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    expires_after: int | None = None
    """Requests of each batch answered before it expires; None for all."""
    expiries: int = 1
    """How many batches expire; later ones do not."""

    def routes(self) -> list[web.RouteDef]:
        """Of the files and batches API."""
        return [
            web.post("/v1/files", self.upload),
            web.get("/v1/files/{id}/content", self.content),
            web.delete("/v1/files/{id}", self.delete),
            web.post("/v1/batches", self.create),
            web.get("/v1/batches", self.list_all),
            web.get("/v1/batches/{id}", self.look),
            web.post("/v1/batches/{id}/cancel", self.cancel),
        ]

    async def upload(self, request: web.Request) -> web.Response:
        """Multipart, purpose and file."""
        form = await request.post()
        upload = form["file"]
        if form.get("purpose") != "batch" or not isinstance(upload, web.FileField):
            return _refuse(400, "purpose must be batch, and file a file")
        name = self._keep(upload.file.read())
        return web.json_response(self._file(name, upload.filename, "batch"))

    def _keep(self, data: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = data
        return name

    def _file(self, name: str, filename: str, purpose: str) -> dict[str, Any]:
        size = len(self.files[name])
        head = {"id": name, "object": "file", "bytes": size, "created_at": 0}
        return {**head, "filename": filename, "purpose": purpose, "status": "processed"}

    async def content(self, request: web.Request) -> web.Response:
        """A file's bytes."""
        data = self.files.get(request.match_info["id"])
        return web.Response(body=data) if data is not None else _refuse(404, "no such file")

    async def delete(self, request: web.Request) -> web.Response:
        """Forgets a file."""
        name = request.match_info["id"]
        if self.files.pop(name, None) is None:
            return _refuse(404, "no such file")
        return web.json_response({"id": name, "object": "file", "deleted": True})

    async def create(self, request: web.Request) -> web.Response:
        """Takes a batch; what is in its file is looked at later."""
        body = await request.json()
        if body["input_file_id"] not in self.files or body["completion_window"] != "24h":
            return _refuse(400, "no such file, or another window than 24h")
        name = f"batch_{len(self.batches) + 1}"
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": "24h",
            "status": STATES[0],
            "created_at": len(self.batches),
            "metadata": body.get("metadata"),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        return web.json_response(self.batches[name])

    async def list_all(self, request: web.Request) -> web.Response:
        """Newest first."""
        data = list(reversed(self.batches.values()))
        return web.json_response({"object": "list", "data": data, "has_more": False})

    async def look(self, request: web.Request) -> web.Response:
        """One step further."""
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _refuse(404, "no such batch")
        if batch["status"] in STATES:
            self._step(batch)
        return web.json_response(batch)

    async def cancel(self, request: web.Request) -> web.Response:
        """Stops a batch."""
        batch = self.batches[request.match_info["id"]]
        batch["status"] = "cancelled"
        return web.json_response(batch)

    def _step(self, batch: dict[str, Any]) -> None:
        position = STATES.index(batch["status"])
        lines = self.files[batch["input_file_id"]].decode().splitlines()
        if position == 0:
            problems = _problems(lines, batch["endpoint"])
            if problems:
                batch["status"] = "failed"
                batch["errors"] = {"object": "list", "data": problems}
                return
            batch["request_counts"]["total"] = len(lines)
        if position + 1 < len(STATES):
            batch["status"] = STATES[position + 1]
            return
        self._finish(batch, [json.loads(line) for line in lines])

    def _finish(self, batch: dict[str, Any], asked: list[dict[str, Any]]) -> None:
        done, failed = [], []
        expires = self.expires_after is not None and self.expiries > 0
        if expires:
            self.expiries -= 1
        for number, line in enumerate(reversed(asked)):
            if expires and number >= (self.expires_after or 0):
                error = {"code": "batch_expired", "message": "not executed before it expired"}
                failed.append(_line(line, None, error))
            elif "POISON" in json.dumps(line["body"]):
                failed.append(_line(line, (500, {"error": {"message": "it chokes"}}), None))
            elif "FORBIDDEN" in json.dumps(line["body"]):
                refusal = {"error": {"message": "content policy", "code": "content_filter"}}
                failed.append(_line(line, (400, refusal), None))
            else:
                done.append(_line(line, (200, self.answer(line["body"])), None))
        batch["status"] = "expired" if expires else "completed"
        for name, lines in (("output_file_id", done), ("error_file_id", failed)):
            if lines:
                batch[name] = self._keep("".join(json.dumps(x) + "\n" for x in lines).encode())
        counts = {"total": len(asked), "completed": len(done), "failed": len(failed)}
        batch["request_counts"] = counts


def _problems(lines: list[str], endpoint: str) -> list[dict[str, Any]]:
    problems: list[dict[str, Any]] = []
    seen = set()
    models = set()
    for number, text in enumerate(lines, start=1):
        line = json.loads(text)
        models.add(line["body"]["model"])
        found = None
        if line["custom_id"] in seen:
            found = ("duplicate_custom_id", f"custom_id {line['custom_id']} is there twice")
        elif line["url"] != endpoint or line["method"] != "POST":
            found = ("invalid_url", "another endpoint than the batch's")
        elif line["body"]["model"] == "no-such-model":
            found = ("model_not_found", "The provided model 'no-such-model' is not supported")
        elif len(models) > 1:
            found = ("mismatched_model", "all requests of a batch must name one model")
        seen.add(line["custom_id"])
        if found:
            problems.append({"code": found[0], "message": found[1], "line": number, "param": None})
    if len(lines) > LIMIT:
        problems.append({"code": "too_many_requests", "message": "over 50000", "line": None})
    return problems


def _line(
    asked: dict[str, Any], reply: tuple[int, dict[str, Any]] | None, error: dict[str, Any] | None
) -> dict[str, Any]:
    response = None
    if reply is not None:
        response = {"status_code": reply[0], "request_id": "r", "body": reply[1]}
    head = {"id": f"batch_req_{asked['custom_id'][:8]}", "custom_id": asked["custom_id"]}
    return {**head, "response": response, "error": error}


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "invalid"}}, status=status)
