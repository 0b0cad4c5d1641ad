"""An S3 bucket in memory on loopback: the few calls a Delta table needs, with S3's own answers.

It does not check signatures, and knows no versions or regions. It runs in a
process of its own (`python -m tests.lake.object_store`, which prints its port): delta-rs keeps
Python's lock while it waits for some answers, and a server in the same process could not give them.
"""

import asyncio
import hashlib
import sys
from email.utils import formatdate
from xml.sax.saxutils import escape

from aiohttp import web


class Bucket:
    """A bucket that refuses to overwrite an object when asked not to (`If-None-Match: *`)."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        """Parts of multipart uploads under way."""

    def app(self) -> web.Application:
        """The server; `/-/keys` is the tests' own."""
        app = web.Application(client_max_size=2**28)
        app.router.add_get("/-/keys", self._tell_keys)
        app.router.add_get("/{bucket}", self._list)
        app.router.add_post("/{bucket}", self._delete_many)
        app.router.add_get("/{bucket}/{key:.+}", self._get)
        app.router.add_put("/{bucket}/{key:.+}", self._put)
        app.router.add_post("/{bucket}/{key:.+}", self._multipart)
        app.router.add_delete("/{bucket}/{key:.+}", self._delete)
        return app

    async def _tell_keys(self, _: web.Request) -> web.Response:
        return web.json_response(sorted(self.objects))

    async def _put(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if upload := request.query.get("uploadId"):
            part = await request.read()
            self.uploads[upload][int(request.query["partNumber"])] = part
            return web.Response(headers={"ETag": _etag(part)})
        if request.headers.get("If-None-Match") == "*" and key in self.objects:
            return web.Response(status=412, text="<Error><Code>PreconditionFailed</Code></Error>")
        self.objects[key] = await request.read()
        return web.Response(headers={"ETag": _etag(self.objects[key])})

    async def _get(self, request: web.Request) -> web.Response:
        content = self.objects.get(request.match_info["key"])
        if content is None:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": _etag(content), "Last-Modified": formatdate(usegmt=True)}
        wanted = request.http_range
        if wanted.start is None and wanted.stop is None:
            return web.Response(body=content, headers=headers)
        start, stop, _ = slice(wanted.start, wanted.stop).indices(len(content))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return web.Response(status=206, body=content[start:stop], headers=headers)

    async def _multipart(self, request: web.Request) -> web.Response:
        """Begins an upload, or makes an object of its parts."""
        key = request.match_info["key"]
        if "uploads" in request.query:
            upload = f"upload-{len(self.uploads)}"
            self.uploads[upload] = {}
            answer = f"<UploadId>{upload}</UploadId>"
            return _xml(f"<InitiateMultipartUploadResult>{answer}</InitiateMultipartUploadResult>")
        parts = self.uploads.pop(request.query["uploadId"])
        self.objects[key] = b"".join(parts[number] for number in sorted(parts))
        answer = f"<ETag>{escape(_etag(self.objects[key]))}</ETag>"
        return _xml(f"<CompleteMultipartUploadResult>{answer}</CompleteMultipartUploadResult>")

    async def _delete(self, request: web.Request) -> web.Response:
        self.objects.pop(request.match_info["key"], None)
        return web.Response(status=204)

    async def _delete_many(self, request: web.Request) -> web.Response:
        from xml.etree import ElementTree

        tree = ElementTree.fromstring(await request.read())
        keys = [element.text or "" for element in tree.iter() if element.tag.endswith("Key")]
        for key in keys:
            self.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return web.Response(
            text=f"<DeleteResult>{deleted}</DeleteResult>", content_type="application/xml"
        )

    async def _list(self, request: web.Request) -> web.Response:
        prefix = request.query.get("prefix", "")
        after = request.query.get("start-after", "")
        delimiter = request.query.get("delimiter")
        found, folders = [], set()
        for key in sorted(self.objects):
            if not key.startswith(prefix) or key <= after:
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                found.append(key)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            f"<LastModified>2026-01-02T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(_etag(self.objects[key]))}</ETag></Contents>"
            for key in found
        )
        prefixes = "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        return web.Response(
            text=f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{prefixes}"
            "</ListBucketResult>",
            content_type="application/xml",
        )


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


async def serve() -> None:
    """Serves until the process is ended."""
    runner = web.AppRunner(Bucket().app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
