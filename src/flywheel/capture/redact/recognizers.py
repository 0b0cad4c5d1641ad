"""Presidio's recognisers where they do, and our own where they do not.

Importing this module imports Presidio and spaCy, which takes seconds: only `analyzer` does, late.
Sources: presidio-analyzer's `predefined_recognizers`; card lengths and prefixes from ISO/IEC 7812
and the issuers; lengths of e-mail parts from RFC 5321.
"""

import regex
from presidio_analyzer import (
    EntityRecognizer,
    Pattern,
    PatternRecognizer,
    RecognizerResult,
)
from presidio_analyzer.nlp_engine import NlpArtifacts
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    MedicalLicenseRecognizer,
    PhoneRecognizer,
    UsLicenseRecognizer,
    UsSsnRecognizer,
)

PHONE_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")

_MORE_CARDS = Pattern(
    "Issuers Presidio leaves out, 12 to 19 digits",
    r"(?<![\d+])(?:(?:2131|1800|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720|50\d\d|5[6-9]\d\d|6\d{3})"
    r"(?:[- ]?\d){8,15}|4\d{3}(?:[- ]?\d){15})\b",
    0.3,
)
_DL = Pattern(
    "Labelled DL, which in lower case is a decilitre",
    r"(?<=(?<![/\w])(?-i:DL)[:#\s]{1,3})[A-Z]?\d{5,13}\b",
    0.6,
)
_EMAIL = Pattern(
    "E-mail with the lengths RFC 5321 allows",
    r"(?<![\w.%+-])[\w!#$%&'*+/=?^`{|}~-][\w!#$%&'*+/=?^`{|}~.-]{0,63}@"
    r"(?:[\w](?:[\w-]{0,61}[\w])?\.){1,8}[^\W\d_](?:[\w-]{0,61}[\w])?\b",
    0.9,
)
_EMAIL_LITERAL = Pattern(
    "E-mail at an address literal", r"[\w.+-]{1,64}@\[?\d{1,3}(?:\.\d{1,3}){3}\]?", 0.9
)
MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
DATE = (
    r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}"
    r"|\d{1,2}[-/. ]{1,2}\d{1,2}[-/. ]{1,2}(?:\d{4}|\d{2})"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)?[-/. ]{{1,2}}{MONTH}[-/., ]{{1,3}}(?:\d{{4}}|\d{{2}})"
    rf"|{MONTH}\.?[-/ ]{{1,2}}\d{{1,2}}(?:st|nd|rd|th)?,?[-/ ]{{1,2}}(?:\d{{4}}|\d{{2}}))(?!\d)"
)
_BIRTH_LABEL = (
    r"\b(?:d\.?\s?o\.?\s?b\.?|b\.|geb\.|date\s+of\s+birth|birth\s?-?dates?|birthdays?|born)"
    r"(?:\W{1,4}(?:is|was|on|the|in|of|her|his|their|patient|given|as|:|=)){0,3}\W{1,4}"
)
_PHONE_CONTEXT = [
    *PhoneRecognizer.CONTEXT,
    "tel",
    "fax",
    "ring",
    "text",
    "whatsapp",
    "dial",
    "line",
]
_PHONE_LABEL = (
    r"\b(?:phone|tele?phone|tel|mobile|cell|fax|whatsapp|desk|office|home|work|ring|dial|call|text|"
    r"reach(?:ed|es)?|answering|messages?|sms)"
    r"(?:\W{1,3}(?:number|no|nr|is|on|at|to|me|us|him|her|them|phone|line)){0,3}\W{1,3}"
)
_PHONE = r"\(?\d(?:[\s().-]{0,3}\d){6,14}(?:\s?(?:x|ext\.?)\s?\d{1,6})?\b"
_DIGIT_RUN = regex.compile(r"\d(?:\W{0,4}\d)*")
_NO_PHONE = regex.compile(
    r"\d{1,2}[-./ ]\d{1,2}[-./ ](?:\d{4}|\d{2})$|\d{4}-\d{1,2}-\d{1,2}$|\d+\.\d+$"
)
"""A date, a decimal number."""
_LONG = r"(?:[A-Z]{1,4}-?)?(?:\d{5}|\d{3}-\d\d-\d\d)"
_BIRTH_WORD = r"\b(?:dob|born|birthday|birthdate|birth date)\b[^\d\n.;]{1,40}(?<!\d)"
_RECORD_LABEL = (
    r"\b(?:mrn|urn|(?:medical|patient|hospital|health|chart|clinic)\s+(?:record|file|chart)?\s*"
    r"(?:number|no\b\.?|num\b|nr\b\.?|id\b|identifier|\#)|(?:medical|patient)\s+record|"
    r"(?:chart|record)\s+(?:number|no\b\.?|\#))"
    r"(?:\W{1,3}(?:number|no|id|is|was|of|reads|:|=|\#)){0,2}\W{1,3}"
)
NOT_A_DATE = r"(?!\d{4}-\d\d-\d\d\b|\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d{2})\b)"
_CHART_LABEL = (
    r"\b(?:pt|patient|chart|file|notes|record)"
    r"(?:\W{1,3}(?:for|with you|with us|number|no|is|id)){0,3}\W{1,3}"
)
_RECORD = NOT_A_DATE + r"(?:[A-Z]{1,4}[-/]?)?\d[\dA-Z]{2,}(?:[-/.]?[\dA-Z]*\d[\dA-Z]*){0,4}\b"


class OfflineEmailRecognizer(EmailRecognizer):  # type: ignore[misc]
    """E-mail without the public suffix list.

    Presidio's validates the domain with tldextract, which downloads that list, and drops an address
    whose suffix is not in it: the `.local` and `.lan` of a hospital.
    """

    def __init__(self) -> None:
        super().__init__(patterns=[_EMAIL, _EMAIL_LITERAL])

    def validate_result(self, pattern_text: str) -> None:
        """The pattern decides."""


class LongIpRecognizer(IpRecognizer):  # type: ignore[misc]
    """Without `a::b` of C++ and `::1`, which name no machine."""

    def invalidate_result(self, pattern_text: str) -> bool:
        """Whether it is no address, or too short to be anybody's."""
        is_short = ":" in pattern_text and sum(map(str.isalnum, pattern_text)) < 4
        return is_short or bool(super().invalidate_result(pattern_text))


class KnownPhoneRecognizer(PhoneRecognizer):  # type: ignore[misc]
    """Numbers valid in some regions, less what is a date or has fewer than seven digits."""

    def __init__(self) -> None:
        super().__init__(supported_regions=PHONE_REGIONS, context=_PHONE_CONTEXT)

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """As phonenumbers finds them, where there are digits enough: it reads slowly."""
        found: list[RecognizerResult] = []
        for run in _DIGIT_RUN.finditer(text):
            if sum(map(str.isdigit, run[0])) < 7:
                continue
            start = max(run.start() - 3, 0)
            for one in super().analyze(text[start : run.end() + 16], entities, nlp_artifacts):
                one.start, one.end = one.start + start, one.end + start
                if _is_phone(text[one.start : one.end]):
                    found.append(one)
        return found


class LabelledPhoneRecognizer(PatternRecognizer):  # type: ignore[misc]
    """Numbers of any country, after a plus or a word that says telephone."""

    def __init__(self) -> None:
        super().__init__(
            supported_entity="PHONE_NUMBER",
            patterns=[
                Pattern("After a word", rf"(?<={_PHONE_LABEL}){_PHONE}", 0.6),
                Pattern("After a plus", rf"(?<![\w+])\+{_PHONE}", 0.6),
            ],
        )

    def invalidate_result(self, pattern_text: str) -> bool:
        """Whether it is a date."""
        return not _is_phone(pattern_text)


def _is_phone(text: str) -> bool:
    """Long enough, and not another number written alike."""
    digits = sum(map(str.isdigit, text))
    return 7 <= digits <= 20 and not _NO_PHONE.match(text)


class DateOfBirthRecognizer(PatternRecognizer):  # type: ignore[misc]
    """A whole date after a word that says birth; other dates are left alone."""

    def __init__(self) -> None:
        label = rf"(?<={_BIRTH_LABEL}){DATE}"
        super().__init__(
            supported_entity="DATE_OF_BIRTH",
            patterns=[
                Pattern("Labelled date of birth", label, 0.95),
                Pattern("Date soon after it", rf"(?<={_BIRTH_WORD}){DATE}", 0.6),
            ],
        )


class MedicalRecordRecognizer(PatternRecognizer):  # type: ignore[misc]
    """A number after a label that says whose it is; there is no common format to know it by."""

    def __init__(self) -> None:
        super().__init__(
            supported_entity="MEDICAL_RECORD",
            patterns=[
                Pattern("Labelled record number", rf"(?<={_RECORD_LABEL}){_RECORD}", 0.9),
                Pattern("Long number of a chart", rf"(?<={_CHART_LABEL})(?={_LONG}){_RECORD}", 0.5),
                Pattern("Number near MRN", r"\b(?:[A-Z]{1,4}-?)?\d{5,10}\b", 0.05),
            ],
            context=["mrn", "mrns", "urn"],
        )


def pattern_recognizers() -> list[EntityRecognizer]:
    """One of each. Country-specific ones are those of the United States."""
    cards = CreditCardRecognizer(patterns=[*CreditCardRecognizer.PATTERNS, _MORE_CARDS])
    ibans = IbanRecognizer(regex_flags=regex.DOTALL | regex.MULTILINE | regex.IGNORECASE)
    licences = [*UsLicenseRecognizer.CONTEXT, "licence", "licenses", "licences", "drivers"]
    return [
        cards,
        ibans,
        OfflineEmailRecognizer(),
        KnownPhoneRecognizer(),
        LabelledPhoneRecognizer(),
        LongIpRecognizer(),
        UsSsnRecognizer(),
        MedicalLicenseRecognizer(),
        UsLicenseRecognizer(patterns=[*UsLicenseRecognizer.PATTERNS, _DL], context=licences),
        MedicalRecordRecognizer(),
        DateOfBirthRecognizer(),
    ]
