"""What is found in a text, and that nothing in a text can break it."""

import json
import logging
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.capture.redact.analyzer import (
    PIECE,
    Analyzer,
    SkippedPatternError,
    _told_what_was_skipped,
)
from flywheel.capture.redact.fold import PLACEHOLDER, fold
from flywheel.capture.redact.policy import resolve_policy
from flywheel.workload import RedactionSection
from tests.capture.redact.make import redactor_of


def said(text: str, **section: object) -> str:
    return redactor_of(section).redact_text(text).text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Call me on (415) 555-2671.", "Call me on <PHONE_1>."),
        ("jane.doe@clinic.local, please", "<EMAIL_1>, please"),
        ("MRN: 483920, dob 12/03/1961", "MRN: <MEDICAL_RECORD_1>, dob <DATE_OF_BIRTH_1>"),
        ("paid with 4454794511390933", "paid with <CARD_1>"),
        ("GB42NAWI04454264788619", "<IBAN_1>"),
        ("SSN 460-89-9847", "SSN <SSN_1>"),
        ("from 203.0.113.77", "from <IP_1>"),
        ("DEA AB1234563", "DEA <MEDICAL_LICENSE_1>"),
        ("driver license F1234567", "driver license <DRIVER_LICENSE_1>"),
    ],
)
def test_each_kind_is_found(text: str, redacted: str) -> None:
    assert said(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "Hb 13.2 g/dL, WBC 9.1 x10^9/L, platelets 245 000",
        "500 mg every 8 hours for 7 days, BP 142/88",
        "Seen on 03/04/2024, again on 3.4.2025; the MRI of 2024-05-06 was clear.",
        "started_at 2026-01-02T03:04:05.678901Z, 1700000000000",
        "id 01912345-6789-7abc-8def-0123456789ab",
        "std::vector a::b",
        "",
        " \n\t",
    ],
)
def test_numbers_that_name_nobody_stay(text: str) -> None:
    assert said(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "phone ４１５-555-2671",
        "phone 415\u2011555\u20112671",
        "phone 415\u00a0555\u00a02671",
        "phone 415-\u200b555-2671",
        "phone\\n415-555-2671\\n",
        "jane%40example.org",
        "jane\\u0040example.org",
        "Jané.Dœ@exämple.org",
    ],
)
def test_other_ways_to_write_it_are_read(text: str) -> None:
    assert PLACEHOLDER.search(said(text))
    assert not any(part in said(text) for part in ("2671", "example", "exämple"))


def test_a_value_is_the_same_placeholder_however_it_is_written() -> None:
    text = "jane@example.org, JANE@example.org; 415-555-2671 or (415) 555 2671; bob@example.org"
    assert said(text) == "<EMAIL_1>, <EMAIL_1>; <PHONE_1> or <PHONE_1>; <EMAIL_2>"


def test_a_number_given_away_once_is_replaced_where_nothing_gives_it_away() -> None:
    text = "My MRN is 483920. Later: 483920 again, not 4839201."
    assert said(text) == (
        "My MRN is <MEDICAL_RECORD_1>. Later: <MEDICAL_RECORD_1> again, not 4839201."
    )


def test_of_overlapping_findings_nothing_stays() -> None:
    changed = said("write to 415-555-2671@example.org or 4454794511390933@example.org")
    assert changed == "write to <EMAIL_1> or <EMAIL_2>"


def test_what_looks_like_a_placeholder_keeps_its_number() -> None:
    assert said("<EMAIL_1> asked bob@example.org") == "<EMAIL_1> asked <EMAIL_2>"
    assert said("<MEDICAL_RECORD_2>, MRN <PHONE>") == "<MEDICAL_RECORD_2>, MRN <PHONE>"


def test_lone_surrogates_are_kept_and_do_not_hide_anything() -> None:
    assert said("\ud800 jane@example.org \udfff") == "\ud800 <EMAIL_1> \udfff"


def test_a_long_text_is_read_to_its_end_and_across_its_pieces() -> None:
    for at in (PIECE - 8, 3 * PIECE + 5, 60_000):
        filler = "word " * (at // 5)
        assert said(f"{filler}jane@example.org tail") == f"{filler}<EMAIL_1> tail"


def test_a_text_made_to_be_slow_is_read() -> None:
    """Presidio's own e-mail pattern takes quadratic time here, and then gives up silently."""
    assert said("a-" * 20_000 + " jane@example.org").endswith(" <EMAIL_1>")


def test_json_stays_json_and_keeps_its_writing() -> None:
    text = '{"mrn": 483920,  "n": [1, 2.50, "x"], "patientPhone":"415-555-2671", "ok": true}'
    changed = said(text)
    assert changed == (
        '{"mrn": "<MEDICAL_RECORD_1>",  "n": [1, 2.50, "x"], "patientPhone":"<PHONE_1>", '
        '"ok": true}'
    )
    assert json.loads(changed)["mrn"] == "<MEDICAL_RECORD_1>"


def test_json_inside_json_stays_json() -> None:
    inner = json.dumps({"to": "jane@example.org", "say": 'a "quoted" word'})
    changed = said(json.dumps({"arguments": inner, "jane@example.org": [None, {"a": []}]}))
    assert json.loads(changed) == {
        "arguments": json.dumps({"to": "<EMAIL_1>", "say": 'a "quoted" word'}),
        "<EMAIL_1>": [None, {"a": []}],
    }


def test_broken_json_is_read_as_text() -> None:
    assert said('{"to": "jane@example.org') == '{"to": "<EMAIL_1>'


def test_a_long_integer_is_a_phone_number_only_where_its_key_says_so() -> None:
    assert said('{"seed": 4155552671}') == '{"seed": 4155552671}'
    assert said('{"phone": 4155552671}') == '{"phone": "<PHONE_1>"}'


def test_encoded_images_are_left_alone() -> None:
    image = "data:image/png;base64," + "AB1234563/4155552671" * 40
    assert said(json.dumps({"url": image})) == json.dumps({"url": image})


def test_only_the_entities_asked_for_are_taken() -> None:
    assert said("a@example.org, 415-555-2671", entities=["EMAIL_ADDRESS"]) == (
        "<EMAIL_1>, 415-555-2671"
    )
    assert said("call 415-555-2671 or 020 7946 0123", score_threshold=0.9) == (
        "call 415-555-2671 or 020 7946 0123"
    )


def test_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself Presidio downloads a spaCy model, and tldextract the public suffix list."""
    opened: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: opened.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: opened.append(address))
    policy = resolve_policy(RedactionSection(policy="standard-1"), source="test")
    assert policy is not None
    assert Analyzer(policy).find("jane@unheard-of-suffix.zzz on 415-555-2671")
    assert opened == []


def test_a_pattern_presidio_skips_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from presidio_analyzer import pattern_recognizer

    monkeypatch.setattr(pattern_recognizer, "REGEX_TIMEOUT_SECONDS", 1e-9)
    policy = resolve_policy(RedactionSection(policy="standard-1"), source="test")
    assert policy is not None
    with pytest.raises(SkippedPatternError):
        Analyzer(policy).find("born " * 1500 + "415-555-2671")


def test_what_presidio_would_log_reaches_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    """It logs text that failed a checksum, at error."""
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    with _told_what_was_skipped():
        logging.getLogger("presidio-analyzer").error("Failed to validate text %s", "GB42NAWI")
    logging.getLogger().removeHandler(handler)
    assert "GB42NAWI" not in "".join(capsys.readouterr())


@given(st.text(max_size=80))
def test_folding_keeps_the_way_back(text: str) -> None:
    folded = fold(text)
    for at in range(len(folded.text)):
        start, end = folded.original(at, at + 1)
        assert 0 <= start < end <= len(text)


WORDS = st.sampled_from(
    [
        "jane@example.org",
        "415-555-2671",
        "MRN 483920",
        "<EMAIL_1>",
        "{",
        '"',
        "born 1/2/1961",
        "\\n",
    ]
)


@given(st.lists(st.one_of(WORDS, st.text(max_size=5)), max_size=8).map(" ".join))
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = said(text)
    assert said(once) == once
    assert "jane@example.org" not in once


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: {"value": value})
)
def test_any_json_stays_json(value: object) -> None:
    changed = said(json.dumps(value))
    assert json.loads(changed)["value"] is not NotImplemented
    assert "jane@example.org" not in changed


def test_presidio_is_imported_when_the_first_text_is_analysed() -> None:
    """It takes seconds; `flywheel capture status` must not wait for it."""
    script = "import sys, flywheel.capture; sys.exit('presidio_analyzer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
