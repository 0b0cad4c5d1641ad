"""Calls and judgements with placeholders: consistent over turns, JSON kept, failing closed."""

import json
from pathlib import Path

import pytest

from flywheel.capture.redact.analyzer import Analyzer, Finding
from flywheel.capture.redact.policy import Policy, resolve_policy
from flywheel.capture.redact.redactor import Redactor, redactor_for
from flywheel.errors import BadRecordError, ConfigError
from flywheel.records import Interaction, JsonObject, Message
from flywheel.settings import Settings
from flywheel.testing import make_assessment, make_interaction
from flywheel.workload import RedactionSection, Workload
from tests.capture.redact.make import redactor, redactor_of


def messages(*said: str) -> tuple[Message, ...]:
    """A conversation in which user and assistant take turns."""
    return tuple(
        Message(role="user" if at % 2 == 0 else "assistant", content=text)
        for at, text in enumerate(said)
    )


def call(*said: str, answer: str, **fields: object) -> Interaction:
    response = Message(role="assistant", content=answer)
    return make_interaction(
        messages=messages(*said), response=response, conversation_id="c1", **fields
    )


def texts(interaction: Interaction) -> list[str]:
    found = [message.text for message in interaction.messages]
    return [*found, interaction.response.text if interaction.response else ""]


def test_a_call_says_what_was_done_to_it() -> None:
    done = redactor().redact_interaction(call("jane@example.org here", answer="Hello"))
    assert (texts(done), done.redactions, done.redaction_policy) == (
        ["<EMAIL_1> here", "Hello"],
        1,
        "standard-1",
    )
    clean = redactor().redact_interaction(call("My knee hurts.", answer="Rest it."))
    assert (clean.redactions, clean.redaction_policy) == (0, "standard-1")


def test_later_turns_keep_the_numbers_of_earlier_ones() -> None:
    """Each turn is redacted by itself, as in drains weeks apart; the request carries the rest."""
    said = [
        "I am jane@example.org",
        "Hello jane@example.org, ask bob@example.org",
        "and zoe@b.org?",
    ]
    first = redactor().redact_interaction(call(said[0], answer=said[1]))
    second = redactor().redact_interaction(call(*said, answer="zoe@b.org, not jane@example.org"))
    assert texts(first) == ["I am <EMAIL_1>", "Hello <EMAIL_1>, ask <EMAIL_2>"]
    assert texts(second) == [*texts(first), "and <EMAIL_3>?", "<EMAIL_3>, not <EMAIL_1>"]


def test_what_no_later_turn_carries_takes_no_number() -> None:
    """Turn 2 gives <EMAIL_2> to zoe: a further choice of turn 1 must not have given it to max."""
    other = Message(role="assistant", content="jane@example.org or max@example.org")
    first = call("I am jane@example.org", answer="Hello", alternatives=(other,))
    [choice] = redactor().redact_interaction(first).alternatives
    assert choice.text.startswith("<EMAIL_1> or <EMAIL_k")
    [bare] = redactor(secret=b"").redact_interaction(first).alternatives
    assert bare.text == "<EMAIL_1> or <EMAIL>"


def test_a_turn_without_its_history_is_keyed() -> None:
    alone = call("zoe@example.org", answer="Yes", turn_index=4)
    [said, _] = texts(redactor().redact_interaction(alone))
    assert said.startswith("<EMAIL_k")


def test_keyed_placeholders_agree_in_a_conversation_and_nowhere_else() -> None:
    keyed = redactor(placeholders="keyed")
    [one, _] = texts(keyed.redact_interaction(call("jane@example.org", answer="a")))
    [_, later] = texts(keyed.redact_interaction(call("b", answer="jane@example.org")))
    other = make_interaction(messages=messages("jane@example.org"), conversation_id="c2")
    judged = make_assessment(rationale="jane@example.org was right", interaction_id="i1")
    assert one == later
    assert texts(keyed.redact_interaction(other))[0] != one
    assert keyed.redact_assessment(judged, conversation_id="c1").rationale == f"{one} was right"
    assert keyed.redact_assessment(judged).rationale != f"{one} was right"
    assert one not in texts(redactor(secret=b"2", placeholders="keyed").redact_interaction(other))


def test_all_the_texts_of_a_call_are_read() -> None:
    secret = "415-555-2671"
    arguments = json.dumps({"phone": secret, "note": "x"})
    function: JsonObject = {"name": "book", "arguments": arguments}
    tool_call: JsonObject = {"id": "call_1", "type": "function", "function": function}
    parts: list[JsonObject] = [
        {"type": "text", "text": f"call {secret}"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    tools = ({"type": "function", "function": {"name": "book", "description": f"as {secret}"}},)
    done = redactor().redact_interaction(
        make_interaction(
            messages=(
                Message(role="user", content=parts, name=f"tel {secret}"),
                Message(role="assistant", content=None, tool_calls=[tool_call]),
                Message(role="tool", content=json.dumps([{"tel": secret}]), tool_call_id="call_1"),
            ),
            response=Message.model_validate(
                {"role": "assistant", "content": None, "reasoning_content": f"dial {secret}"}
            ),
            tools=tools,
            request_params={"metadata": {"callback": f"tel {secret}"}, "temperature": 0.2},
            error_message=f"could not reach {secret}",
            tags={"seen": [f"ring {secret}"]},
        )
    )
    dumped = done.model_dump_json(exclude={"tools"})
    assert secret not in dumped
    assert done.tools == tools, "the application's own definitions stay"
    assert done.messages[1].tool_calls is not None
    assert done.messages[1].tool_calls[0]["function"] == {
        "name": "book",
        "arguments": json.dumps({"phone": "<PHONE_1>", "note": "x"}),
    }
    assert done.messages[1].content is None
    assert (done.messages[2].content, done.messages[2].tool_call_id) == (
        '[{"tel": "<PHONE_1>"}]',
        "call_1",
    )
    assert done.request_params["temperature"] == 0.2
    assert dumped.count("<PHONE_1>") == done.redactions


def test_an_error_message_cut_inside_an_identifier_loses_its_end() -> None:
    cut = ("x " * 1000)[: 2000 - 12] + "jane@example"
    done = redactor().redact_interaction(make_interaction(error_message=cut))
    assert done.error_message is not None
    assert "jane" not in done.error_message


def test_redacting_a_call_twice_changes_nothing() -> None:
    once = redactor().redact_interaction(call("jane@example.org", answer="call 415-555-2671"))
    assert redactor().redact_interaction(once) == once


def test_empty_and_missing_contents_stay() -> None:
    odd = make_interaction(
        messages=(Message(role="user", content=""), Message(role="assistant", content=None)),
        response=None,
        error_message=None,
    )
    done = redactor().redact_interaction(odd)
    assert (done.messages, done.response, done.redactions) == (odd.messages, None, 0)


def test_a_conversation_named_after_a_person_stays_joined() -> None:
    call_, judged = (
        make_interaction(conversation_id="+1 415 555 2671"),
        make_assessment(conversation_id="+1 415 555 2671", interaction_id=None),
    )
    keyed = redactor()
    done, judgement = keyed.redact_interaction(call_), keyed.redact_assessment(judged)
    assert done.conversation_id == judgement.conversation_id
    assert "555" not in done.conversation_id
    bare = redactor(secret=b"").redact_interaction(call_)
    assert bare.conversation_id == call_.interaction_id


def test_a_judgement_is_read_whole() -> None:
    judged = make_assessment(
        kind="correction",
        correction=Message(role="assistant", content="Write to jane@example.org"),
        rationale="she said 415-555-2671",
        label="jane@example.org",
        source_id="dr.lee@example.org",
    )
    done = redactor().redact_assessment(judged)
    assert done.correction is not None
    assert done.correction.text == f"Write to {done.label}"
    assert "example.org" not in done.model_dump_json()
    assert "415" not in str(done.rationale)
    seen = judged.model_copy(update={"correction": messages("<EMAIL_1>, yes")[0]})
    again = redactor().redact_assessment(seen).correction
    assert again is not None
    assert again.text == "<EMAIL_1>, yes", "what a reviewer copied from the lake"


@pytest.mark.parametrize(
    ("payload", "kept"),
    [
        (b"\xff\xfe jane@example.org", None),
        (b"<html>jane@example.org</html>", b"<html><EMAIL_k"),
        (b'{"request": "{\\"to\\": \\"jane@example.org\\"}", "n": 1', b'{"request": "{'),
        (b'data: {"delta": "jane@exam"}\n\ndata: {"delta": "ple.org"}', None),
        (b'{"response": "data: {\\"d\\": \\"jane@exa\\"}\\n\\n"}', b'{"response": "<WITHHELD '),
        (b'{"response": "' + b"amFuZUBleGFtcGxlLm9yZw+/" * 4 + b'"}', b'{"response": "<WITHHELD '),
        (b"", b""),
    ],
)
def test_bytes_are_redacted_or_withheld(payload: bytes, kept: bytes | None) -> None:
    done = redactor().redact_bytes(payload)
    assert (done is None) == (kept is None)
    assert done is None or (done.startswith(kept or b"") and b"jane" not in done)


class Stumbling(Analyzer):
    """Fails as a third party's code does: with the text in its message."""

    def find(self, text: str) -> tuple[Finding, ...]:
        raise ValueError(f"did not find {text!r}")


def test_a_redactor_that_raises_stops_the_record_and_quotes_nothing() -> None:
    policy = some_policy()
    broken = Redactor("triage", policy, secret=b"", analyzer=Stumbling(policy))
    with pytest.raises(BadRecordError) as failed:
        broken.redact_interaction(make_interaction())
    assert (failed.value.reason, failed.value.detail) == (
        "redaction_failed",
        "the redactor raised ValueError",
    )
    assert failed.value.__cause__ is None
    for done in (
        lambda: broken.redact_assessment(make_assessment()),
        lambda: broken.redact_bytes(b"x"),
        lambda: broken.redact_text("x"),
    ):
        with pytest.raises(BadRecordError):
            done()


def some_policy() -> Policy:
    policy = resolve_policy(RedactionSection(policy="standard-1"), source="test")
    assert policy is not None
    return policy


def test_a_policy_s_name_says_what_was_changed() -> None:
    names = {
        redactor_of(section).policy
        for section in (
            {},
            {"ner_model": "none"},
            {"score_threshold": 0.6},
            {"entities": ["US_SSN", "EMAIL_ADDRESS"]},
            {"entities": ["EMAIL_ADDRESS", "US_SSN"]},
            {"placeholders": "keyed"},
        )
    }
    assert len(names) == 4
    assert {name.partition("~")[0] for name in names} == {"standard-1"}


def test_a_model_that_is_installed_finds_names_and_is_named(tmp_path: Path) -> None:
    """A real spaCy pipeline in a folder, with rules in place of weights: nothing is downloaded."""
    import spacy

    nlp = spacy.blank("en")
    rules = nlp.add_pipe("entity_ruler")
    rules.add_patterns(
        [{"label": "PERSON", "pattern": "Jane Doe"}, {"label": "GPE", "pattern": "Leeds"}]
    )
    nlp.to_disk(tmp_path / "rules-1.0")
    found = redactor(ner_model=str(tmp_path / "rules-1.0"))
    assert found.policy == "standard-1+ner:rules-1.0"
    text = "Jane Doe of Leeds (jane@example.org). Jane Doe!"
    assert found.redact_text(text).text == "<PERSON_1> of <LOCATION_1> (<EMAIL_1>). <PERSON_1>!"


def test_a_model_that_cannot_be_loaded_stops_the_drain_and_withholds_nothing(
    tmp_path: Path,
) -> None:
    """Else a day's calls would go to quarantine without their bytes."""
    (tmp_path / "meta.json").write_text("{}", encoding="utf-8")
    broken = redactor(ner_model=str(tmp_path))
    with pytest.raises(ConfigError, match="Presidio cannot be used"):
        broken.redact_interaction(make_interaction())


def test_names_without_a_model_are_a_mistake_and_not_a_silence() -> None:
    with pytest.raises(ConfigError, match="PERSON needs a spaCy model"):
        redactor(entities=["PERSON"], ner_model="none")
    with pytest.raises(ConfigError, match="en_core_web_none"):
        redactor(ner_model="en_core_web_none")


def test_a_workload_without_a_policy_has_no_redactor(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    workload = Workload.load(root / "examples" / "triage" / "flywheel.yaml")
    settings = Settings(home=tmp_path)
    assert redactor_for(workload, settings) is None
    section = RedactionSection(policy="standard-1", placeholders="keyed")
    capture = workload.capture.model_copy(update={"redaction": section})
    with pytest.raises(ConfigError, match="FLYWHEEL_SUBJECT_KEY_SECRET"):
        redactor_for(workload.model_copy(update={"capture": capture}), settings)
