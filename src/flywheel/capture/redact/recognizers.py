"""Presidio's recognisers where they do, and our own where they do not.

Importing this module imports Presidio and spaCy, which takes seconds: only `analyzer` does, late.
Sources: presidio-analyzer's `predefined_recognizers`; card lengths and prefixes from ISO/IEC 7812
and the issuers; lengths of e-mail parts from RFC 5321.
"""

import regex
from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer
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
    r"\b(?=(?:[0-9][- ]?){11,18}[0-9]\b)"
    r"(?:2131|1800|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720|4\d{3}|50\d\d|5[6-9]\d\d|6\d{3})"
    r"(?:[- ]?\d){8,15}\b",
    0.3,
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
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DATE = (
    r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}"
    r"|\d{1,2}[-/. ]{1,2}\d{1,2}[-/. ]{1,2}(?:\d{4}|\d{2})"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)?[-/. ]{{1,2}}{_MONTH}[-/., ]{{1,3}}(?:\d{{4}}|\d{{2}})"
    rf"|{_MONTH}\.?[-/ ]{{1,2}}\d{{1,2}}(?:st|nd|rd|th)?,?[-/ ]{{1,2}}(?:\d{{4}}|\d{{2}}))(?!\d)"
)
_BIRTH_LABEL = (
    r"\b(?:d\.?\s?o\.?\s?b\.?|date\s+of\s+birth|birth\s?-?dates?|birthdays?|born)"
    r"(?:\W{1,4}(?:is|was|on|the|in|of|her|his|their|patient|given|as|:|=)){0,3}\W{1,4}"
)
_BIRTH_WORD = r"\b(?:dob|born|birthday|birthdate|birth date)\b[^\d\n.;]{1,40}(?<!\d)"
_RECORD_LABEL = (
    r"\b(?:mrn|urn|(?:medical|patient|hospital|health|chart|clinic)\s+(?:record|file|chart)?\s*"
    r"(?:number|no\b\.?|num\b|nr\b\.?|id\b|identifier|\#)|(?:medical|patient)\s+record|"
    r"(?:chart|record)\s+(?:number|no\b\.?|\#))"
    r"(?:\W{1,3}(?:number|no|id|is|was|of|reads|:|=|\#)){0,2}\W{1,3}"
)
_RECORD = r"(?:[A-Z]{1,4}[-\s/]?)?\d[\dA-Z]{2,}(?:[-/.]?[\dA-Z]*\d[\dA-Z]*){0,4}\b"


class OfflineEmailRecognizer(EmailRecognizer):  # type: ignore[misc]
    """E-mail without the public suffix list.

    Presidio's validates the domain with tldextract, which downloads that list, and drops an address
    whose suffix is not in it: the `.local` and `.lan` of a hospital.
    """

    def __init__(self) -> None:
        super().__init__(patterns=[_EMAIL, _EMAIL_LITERAL])

    def validate_result(self, pattern_text: str) -> None:
        """The pattern decides."""


class DateOfBirthRecognizer(PatternRecognizer):  # type: ignore[misc]
    """A whole date after a word that says birth; other dates are left alone."""

    def __init__(self) -> None:
        label = rf"(?<={_BIRTH_LABEL}){_DATE}"
        super().__init__(
            supported_entity="DATE_OF_BIRTH",
            patterns=[
                Pattern("Labelled date of birth", label, 0.95),
                Pattern("Date soon after it", rf"(?<={_BIRTH_WORD}){_DATE}", 0.6),
            ],
        )


class MedicalRecordRecognizer(PatternRecognizer):  # type: ignore[misc]
    """A number after a label that says whose it is; there is no common format to know it by."""

    def __init__(self) -> None:
        super().__init__(
            supported_entity="MEDICAL_RECORD",
            patterns=[
                Pattern("Labelled record number", rf"(?<={_RECORD_LABEL}){_RECORD}", 0.9),
                Pattern("Number near MRN", r"\b(?:[A-Z]{1,4}-?)?\d{5,10}\b", 0.05),
            ],
            context=["mrn", "mrns", "urn"],
        )


def pattern_recognizers() -> list[EntityRecognizer]:
    """One of each. Country-specific ones are those of the United States."""
    cards = CreditCardRecognizer(patterns=[*CreditCardRecognizer.PATTERNS, _MORE_CARDS])
    ibans = IbanRecognizer(regex_flags=regex.DOTALL | regex.MULTILINE | regex.IGNORECASE)
    licences = [*UsLicenseRecognizer.CONTEXT, "licence", "licenses", "licences", "drivers", "dl"]
    return [
        cards,
        ibans,
        OfflineEmailRecognizer(),
        PhoneRecognizer(supported_regions=PHONE_REGIONS),
        IpRecognizer(),
        UsSsnRecognizer(),
        MedicalLicenseRecognizer(),
        UsLicenseRecognizer(context=licences),
        MedicalRecordRecognizer(),
        DateOfBirthRecognizer(),
    ]
