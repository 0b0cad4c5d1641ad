"""`standard-2` against wordings written for it; none is in the benchmark's labelled text."""

import pytest

from flywheel.capture.redact.analyzer import Analyzer
from flywheel.capture.redact.policy import resolve_policy
from flywheel.workload import RedactionSection

RECORDS = [
    "The armband reads 77140325, can you look her up?",
    "Her folder in the archive is 4410987.",
    "Registered at our clinic under 90125567 since spring.",
    "He was admitted as 5530218 last night.",
    "Epic lists this patient as E-2290174.",
    "Put the sticker with 660412 on the tube.",
    "Our inpatient in bed 4, 8812765, needs a CT.",
    "Encounter 20114987 was closed too early.",
    "The resident's dossier, 7002913, is missing a page.",
]
BIRTHS = [
    "Her birth, 14 March 1961, is wrong in the system.",
    "Geburtsdatum: 03.11.1958, bitte prüfen.",
    "bday 7/19/84, allergic to nuts",
    "fecha de nacimiento 12/05/1990",
    "née le 22.08.1971 à Lyon",
    "He turned 45, 2.6.1979, and never smoked.",
    "A 67-year-old woman (04/12/1957) fell at home.",
    "female, 1949-10-30, diabetic",
    "Mr. Alan Turner, 23/06/1952, came back.",
    "Patient aged 33 (1991-02-17) wants a refill.",
]
SSNS = [
    "her husband's is 219837465",
    "the insured: 401 22 9876",
    "Soc. Sec. 318-44-2907 on the form",
    "taxpayer id 527349018 for the guarantor",
    "payroll has the employee under 433.19.8821",
    "dependent child 612340987",
]
CLEAN = [
    "The patient took 12500 steps and 10000 IU of vitamin D.",
    "Order number 88123456 for the ward was delivered.",
    "The clinic had 15000 patients in 2023.",
    "Platelets of the patient were 250000/µl on 3/4/2024.",
    "Files: error 1048576 at line 20480.",
    "The hospital bill came to $12500.",
    "Birth control was started on 3/4/2023.",
    "Birth weight 3450 g, seen 12/02/2024.",
    "A 45-year-old man was seen on 3/4/2024.",
    "My daughter has 123 456 followers.",
    "Social media id 123456789 belongs to a bot.",
    "Turn 90 degrees, 3.4 cm from the edge.",
    "Her husband ran 42195 m.",
    "Lot 4455667 of the vaccine was given to the patient.",
    "CPT code 99213 was billed for the patient.",
    "female, seen 2024-10-30, diabetic",
]


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    policy = resolve_policy(RedactionSection(policy="standard-2", ner_model="none"), source="test")
    assert policy is not None and policy.name == "standard-2"
    return Analyzer(policy)


@pytest.mark.parametrize(
    ("entity", "text"),
    [
        *(("MEDICAL_RECORD", text) for text in RECORDS),
        *(("DATE_OF_BIRTH", text) for text in BIRTHS),
        *(("US_SSN", text) for text in SSNS),
    ],
)
def test_an_identifier_is_known_by_a_noun_of_its_clause(
    analyzer: Analyzer, entity: str, text: str
) -> None:
    assert [one.entity for one in analyzer.find(text)] == [entity]


@pytest.mark.parametrize("text", CLEAN)
def test_numbers_and_dates_that_are_nobodys_are_left(analyzer: Analyzer, text: str) -> None:
    assert [text[one.start : one.end] for one in analyzer.find(text)] == []


def test_what_an_earlier_policy_finds_has_not_changed(analyzer: Analyzer) -> None:
    policy = resolve_policy(RedactionSection(policy="standard-1", ner_model="none"), source="test")
    assert policy is not None
    before = Analyzer(policy)
    assert not any(before.find(text) for text in RECORDS[:3])
    born = ("born on 3 May 1960", "born March 3rd, 1960", "DOB: 3rd of March 1960", "b. 3.5.60")
    for text in (*born, "MRN 483920", "SSN 219-09-9999"):
        assert before.find(text) == analyzer.find(text) != ()
