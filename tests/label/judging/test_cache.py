import multiprocessing
from pathlib import Path

import pytest

from flywheel.errors import JudgeError
from flywheel.graders.judge import JudgeReply, JudgeTask
from flywheel.label.judging import ReplyCache
from flywheel.records import Message


def task(
    name: str, *, subject: str | None = None, pair: tuple[str, str] | None = None
) -> JudgeTask:
    answer = Message(role="assistant", content="rest it")
    return JudgeTask(
        task_id=name,
        workload="triage",
        messages=(Message(role="user", content="my knee hurts"),),
        responses=(answer, answer) if pair else (answer,),
        interaction_id=None if pair else name,
        pair_ids=pair,
        subject_key=subject,
    )


def reply(key: str, text: str | None = "{}", *, error: str | None = None) -> JudgeReply:
    return JudgeReply(
        key=key, text=text, error_type=error, input_tokens=100, output_tokens=10, cost_usd=0.5
    )


@pytest.fixture
def cache(tmp_path: Path) -> ReplyCache:
    return ReplyCache(tmp_path / "judge-cache")


def keep(cache: ReplyCache, key: str, about: JudgeTask, text: str = "{}") -> None:
    cache.put(reply(key, text), about, judge="helpful", judge_hash="h")


def test_a_reply_comes_back_as_it_was_with_its_cost_to_the_task_that_paid(
    cache: ReplyCache,
) -> None:
    keep(cache, "k", task("a"))
    assert cache.get("k", task("a")) == reply("k")
    assert cache.get("unknown", task("a")) is None


def test_to_another_task_it_cost_nothing(cache: ReplyCache) -> None:
    keep(cache, "k", task("a"))
    other = cache.get("k", task("b"))
    assert other is not None
    assert (other.text, other.cost_usd, other.input_tokens) == ("{}", 0.0, 0)


@pytest.mark.parametrize("bad", [reply("k", None, error="judge_garbage"), reply("k", None)])
def test_an_error_is_never_kept(cache: ReplyCache, bad: JudgeReply) -> None:
    with pytest.raises(ValueError, match="is not kept"):
        cache.put(bad, task("a"), judge="helpful", judge_hash="h")
    assert cache.size().replies == 0


def test_the_first_reply_to_a_question_stays(cache: ReplyCache) -> None:
    keep(cache, "k", task("a"), "first")
    keep(cache, "k", task("a"), "second")
    found = cache.get("k", task("a"))
    assert found is not None and found.text == "first"


def test_erasing_a_subject_finds_every_reply_made_of_their_data(cache: ReplyCache) -> None:
    keep(cache, "mine", task("a", subject="s1"))
    keep(cache, "shared", task("b", subject="s2"))
    cache.get("shared", task("c", subject="s1"))
    keep(cache, "pair", task("d e", pair=("d", "e")))
    keep(cache, "theirs", task("f", subject="s2"))
    assert cache.erase(subject_keys=["s1"]) == 2
    assert cache.erase(interaction_ids=["e", "nobody"]) == 1
    assert cache.size().replies == 1
    assert cache.get("theirs", task("f")) is not None


def test_of_what_is_erased_no_byte_is_left_on_disk(cache: ReplyCache) -> None:
    for n in range(50):
        keep(cache, f"k{n}", task(f"a{n}", subject=f"s{n}"), f"the patient Zebulon-{n}-said")
    assert b"Zebulon-7-said" in everything(cache)
    cache.erase(subject_keys=["s7"])
    left = everything(cache)
    assert b"Zebulon-7-said" not in left
    assert b"Zebulon-8-said" in left
    cache.clear()
    assert b"Zebulon" not in everything(cache)


def everything(cache: ReplyCache) -> bytes:
    return b"".join(file.read_bytes() for file in cache.path.parent.iterdir())


def test_an_erasure_beside_a_reader_says_that_the_log_still_has_it(cache: ReplyCache) -> None:
    import sqlite3

    keep(cache, "k", task("a", subject="s"))
    reader = sqlite3.connect(cache.path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM replies").fetchone()
    cache._db.execute("PRAGMA busy_timeout = 50")
    with pytest.raises(JudgeError, match="End the judge run, then erase again"):
        cache.erase(subject_keys=["s"])
    reader.close()
    assert cache.erase(subject_keys=["s"]) == 0
    assert cache.size().replies == 0


def test_its_size_is_what_lies_on_disk(cache: ReplyCache) -> None:
    keep(cache, "k", task("d e", pair=("d", "e")))
    size = cache.size()
    assert (size.replies, size.interactions, size.by_judge) == (1, 2, {"helpful": 1})
    assert size.bytes == len(everything(cache))
    assert size.oldest is not None and size.oldest.tzinfo is not None


def fill(folder: Path, first: int) -> None:
    with ReplyCache(folder) as cache:
        for n in range(first, first + 100):
            keep(cache, f"k{n}", task(f"a{n}"))


def test_several_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=fill, args=(tmp_path, first)) for first in (0, 50)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    with ReplyCache(tmp_path) as cache:
        assert cache.size().replies == 150


def test_a_file_that_is_no_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "replies.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(JudgeError, match="is not a reply cache"):
        ReplyCache(tmp_path)
