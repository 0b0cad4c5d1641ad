"""Large content leaves the row before it is written, and comes back to the letter."""

import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.capture import Spool, drain
from flywheel.capture.blobs import INLINE_BYTES, without_large_content
from flywheel.errors import BadRecordError
from flywheel.lake import BlobReference, Lake
from flywheel.records import Interaction, Message
from flywheel.testing import make_interaction
from tests.capture.records import completion, exchange
from tests.lake.test_object_store import options

PICTURE, SOUND = os.urandom(20_000), os.urandom(30_000)
TEXT = {"type": "text", "text": "What is this? data:image/png;base64,AAAA"}


def image(data: bytes, media_type: str = "image/png") -> dict[str, Any]:
    url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def audio(data: bytes) -> dict[str, Any]:
    text = base64.b64encode(data).decode()
    return {"type": "input_audio", "input_audio": {"data": text, "format": "wav"}}


def call(*parts: dict[str, Any]) -> Interaction:
    return make_interaction(messages=(Message(role="user", content=list(parts)),))


def test_a_picture_and_a_sound_are_drained_into_blobs_and_restored(
    spool_dir: Path, lake: Lake
) -> None:
    messages = [{"role": "user", "content": [TEXT, image(PICTURE), audio(SOUND)]}]
    spoken = completion("Rest it.")
    voice = {"id": "audio_1", "data": base64.b64encode(SOUND).decode(), "transcript": "Rest it."}
    spoken["choices"][0]["message"]["audio"] = voice  # type: ignore[index, call-overload, assignment]
    asked = exchange(
        request=json.dumps({"model": "triage", "messages": messages}), response=json.dumps(spoken)
    )
    with Spool(spool_dir) as spool:
        spool.append("exchange", asked)
    assert drain(spool_dir, lake).interactions == 1
    [row] = lake.fetch(Interaction, "SELECT * FROM interactions")
    digests = [sha256(data).hexdigest() for data in (PICTURE, SOUND)]
    assert row.messages[0].content == [
        TEXT,
        {
            "type": "image_url",
            "image_url": {
                "url": f"blob:sha256:{digests[0]};type=image/png;size=20000",
                "detail": "low",
            },
        },
        {
            "type": "input_audio",
            "input_audio": {
                "data": f"blob:sha256:{digests[1]};type=audio/wav;size=30000;base64",
                "format": "wav",
            },
        },
    ]
    assert row.tags["blobs"] == sorted(digests)
    for digest, data in zip(digests, (PICTURE, SOUND), strict=True):
        assert Path(lake.root, "blobs", digest[:2], digest).read_bytes() == data
    whole = lake.with_content(row)
    assert [message.model_dump() for message in whole.messages] == messages
    assert whole.response is not None
    assert whole.response.model_dump()["audio"] == voice
    assert "blobs" not in whole.tags


def test_blobs_are_there_before_the_row_that_refers_to_them(
    spool_dir: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Lake.append_rows

    def looked(self: Lake, parts: Any) -> Any:
        assert lake.get_blob(sha256(PICTURE).hexdigest()) == PICTURE
        return append(self, parts)

    monkeypatch.setattr(Lake, "append_rows", looked)
    body = {"model": "triage", "messages": [{"role": "user", "content": [image(PICTURE)]}]}
    with Spool(spool_dir) as spool:
        spool.append("exchange", exchange(request=json.dumps(body)))
    assert drain(spool_dir, lake).interactions == 1


def test_the_same_picture_in_every_turn_is_stored_once(lake: Lake) -> None:
    first, again = without_large_content(call(image(PICTURE), image(PICTURE)))[1], lake
    assert [again.put_blob(data) for data in first.values()] == [sha256(PICTURE).hexdigest()]
    path = Path(lake.root, "blobs", sha256(PICTURE).hexdigest()[:2], sha256(PICTURE).hexdigest())
    written = path.stat().st_mtime_ns
    lake.put_blob(PICTURE)
    assert path.stat().st_mtime_ns == written
    assert len(list(path.parent.iterdir())) == 1


def test_small_content_stays_in_the_row() -> None:
    small = call(image(b"x" * 1000), TEXT)
    assert without_large_content(small) == (small, {})


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64," + "A" * (INLINE_BYTES + 1),
        "data:image/png;base64," + "A" * INLINE_BYTES + "\n",
        "data:image/png;base64," + "!" * INLINE_BYTES,
        "data:image/png;charset=utf-8;base64," + "A" * INLINE_BYTES,
        "https://example.org/" + "A" * INLINE_BYTES,
        "data:image/png;base64," + "A" * INLINE_BYTES + "AB==",
    ],
)
def test_what_could_not_be_put_back_to_the_letter_stays(url: str) -> None:
    odd = call({"type": "image_url", "image_url": {"url": url}})
    assert without_large_content(odd) == (odd, {})


def test_a_reference_a_client_sent_brings_it_nothing(lake: Lake) -> None:
    secret = lake.put_blob(SOUND)
    forged = str(BlobReference(secret, "audio/wav", len(SOUND), False))
    sent = call({"type": "image_url", "image_url": {"url": forged}}, image(PICTURE))
    stored, taken = without_large_content(sent)
    for data in taken.values():
        lake.put_blob(data)
    assert lake.with_content(stored).messages == sent.messages


def test_a_missing_or_damaged_blob_is_said(lake: Lake) -> None:
    stored, taken = without_large_content(call(image(PICTURE)))
    with pytest.raises(BadRecordError, match="has no blob"):
        lake.with_content(stored)
    [digest] = [lake.put_blob(data) for data in taken.values()]
    Path(lake.root, "blobs", digest[:2], digest).write_bytes(b"other")
    with pytest.raises(BadRecordError, match="other content"):
        lake.with_content(stored)


@pytest.fixture
def bucket() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.lake.object_store"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


def test_in_a_bucket_they_lie_beside_the_tables_too(bucket: str) -> None:
    lake = Lake("s3://bucket/lake", storage_options=options(bucket))
    stored, taken = without_large_content(call(image(PICTURE)))
    [digest] = [lake.put_blob(data) for data in taken.values()]
    assert lake.put_blob(PICTURE) == digest
    with urllib.request.urlopen(f"{bucket}/-/keys", timeout=10) as reply:
        assert json.loads(reply.read()) == [f"lake/blobs/{digest[:2]}/{digest}"]
    assert lake.with_content(stored).messages == call(image(PICTURE)).messages
    with pytest.raises(BadRecordError, match="has no blob"):
        lake.get_blob("0" * 64)


@given(
    data=st.binary(min_size=0, max_size=200),
    media_type=st.sampled_from(["image/png", "audio/mpeg", "application/pdf"]),
    is_bare=st.booleans(),
)
def test_a_reference_read_back_gives_the_string_that_stood_there(
    data: bytes, media_type: str, is_bare: bool
) -> None:
    text = base64.b64encode(data).decode()
    part: dict[str, Any] = {"type": "file", "file": {"file_data": text, "filename": "a"}}
    if not is_bare:
        part["file"]["file_data"] = f"data:{media_type};base64,{text}"
    stored, taken = without_large_content(call(part), inline_bytes=1)
    if not data:
        assert taken == {} or not is_bare
        return
    content = stored.messages[0].content
    assert isinstance(content, list)
    reference = BlobReference.parse(content[0]["file"]["file_data"])  # type: ignore[index, call-overload, arg-type]
    assert reference is not None
    assert reference.size == len(data)
    assert reference.content(taken[reference.digest]) == part["file"]["file_data"]
