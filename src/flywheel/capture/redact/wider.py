"""What the policy `standard-2` looks for beyond `standard-1`: more ways to introduce an identifier.

`standard-1` knows an identifier of no form of its own by one of a few words right before it. Here
a noun that says whose it is may stand anywhere before it in the same clause, and what follows tells
a number that measures something. Importing this module imports Presidio, as `recognizers` does.
"""

from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer

from flywheel.capture.redact.recognizers import DATE, MONTH, NOT_A_DATE

_GAP = r"(?:[^\d\n.;?!]|(?<!\d)\d{1,2}(?!\d)){1,40}(?<![\w.,/$€£-])"
"""The rest of the clause, small numbers in it, ending before one that is no part of another."""
_NO_MEASURE = (
    r"(?![\d,.]*\s?(?:%|mg|mcg|µg|g|kg|lbs?|ml|l|dl|iu|units?|mmol|cells?|steps|beats|bpm|mm|cm|km|"
    r"m|miles|hz|times|x|usd|eur|dollars|euros|rpm|days?|weeks?|months?|years?|hours?|minutes?|"
    r"people|patients|per|copies)\b|[\d,.]*\s?[/%$€£°])"
)
_OF_A_PATIENT = (
    r"\b(?:mrn|urn|charts?|records?|folders?|dossiers?|encounters?|admissions?|admitted|episodes?|"
    r"wrist-?bands?|bracelets?|arm-?bands?|stickers?|barcodes?|registered|registration|"
    r"hospital|clinic|wards?|patients?|pts?|inpatients?|outpatients?|clients?|residents?|emr|ehr|"
    r"epic|cerner|medical|notes|files?|filed)\b"
)
_CODE = r"(?:[A-Z]{1,4}[-/]?)?\d{5,12}\b(?![.,]\d)"
_NOT_OTHERS = (
    r"(?<!\b(?:order|ticket|invoice|tracking|lot|batch|po|phone|tel|fax|call|text|ring|zip|code|"
    r"procedure|cpt|room|ext|version|build|isbn|pmid|doi|nct|serial|model|part|sku|job|task|error)"
    r"\W{1,3}(?:(?:number|no|id|is|at|on)\W{1,3})?)"
)
_BIRTH_NOUN = (
    r"(?:\b(?:birth(?!\s?(?:control|weight|plan|defects?|rate|canal|partner|certificate))|birthdate|"
    r"b'?-?day|birthday|n[ée]e?|nacid[oa]|nascid[oa]|nat[oa]|naissance|nacimiento|nascita|geb|"
    r"geboren|geburtsdatum|geburtstag|geboortedatum|fødselsdato|data\s+de\s+nasc\w*)\b"
    r"|(?<!\w)[*](?=\s?\d))"
)
_BORN_LONG_AGO = (
    r"(?:(?:19\d\d|200\d)[-/.]\d{1,2}[-/.]\d{1,2}"
    r"|\d{1,2}[-/. ]{1,2}\d{1,2}[-/. ]{1,2}(?:19\d\d|200\d)"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)?[-/. ]{{1,2}}{MONTH}[-/., ]{{1,3}}(?:19\d\d|200\d)"
    rf"|{MONTH}\.?[-/ ]{{1,2}}\d{{1,2}}(?:st|nd|rd|th)?,?[-/ ]{{1,2}}(?:19\d\d|200\d))(?!\d)"
)
_AGE = (
    r"\b(?:(?:turn(?:s|ed|ing)?|aged?)\W{1,3}\d{1,3}"
    r"|\d{1,3}\W{0,3}(?:y/?o|yrs?|years?)(?:\W{0,3}old)?(?:\s(?:man|woman|male|female|boy|girl))?)"
)
_SEX = r"\b(?:male|female|man|woman|boy|girl|gentleman|lady|(?-i:M|F))"
_NAMED = r"\b(?-i:(?:Mr|Mrs|Ms|Miss|Mx)\.?(?:\s[A-Z][\w'’-]+){1,3})"
_NINE = r"(?!000|666|9)\d{3}[- .]?(?!00)\d\d[- .]?(?!0000)\d{4}(?![\d-])"
_OF_A_PERSON = (
    r"\b(?:ssns?|ss\s?(?:\#|no|number|num|nr)|social(?!\s(?:media|work|club))|soc\.?\s?sec|itin|"
    r"tin|tax(?:payer)?\s?(?:id|number|no|\#)|spouse|wife|husband|partner|father|mother|son|daughter|"
    r"child|dependents?|dependants?|guarantor|insured|subscriber|policy\s?holder|beneficiary|"
    r"claimant|applicant|employee|taxpayer|w-?2|w-?4|1099|payroll)\b"
)


class WiderMedicalRecordRecognizer(PatternRecognizer):  # type: ignore[misc]
    """A long number in a clause that names a chart, a wristband, an admission, a patient."""

    def __init__(self) -> None:
        before = rf"(?<={_OF_A_PATIENT}{_GAP}){_NOT_OTHERS}{NOT_A_DATE}"
        super().__init__(
            supported_entity="MEDICAL_RECORD",
            patterns=[Pattern("Long number after a noun", before + _NO_MEASURE + _CODE, 0.45)],
        )


class WiderDateOfBirthRecognizer(PatternRecognizer):  # type: ignore[misc]
    """A date after a noun of birth in several languages, an age, a sex or a name with its title."""

    def __init__(self) -> None:
        near = r"[\s,(:;–-]{1,4}"
        super().__init__(
            supported_entity="DATE_OF_BIRTH",
            patterns=[
                Pattern("After a noun of birth", rf"(?<={_BIRTH_NOUN}(?:{_GAP}|\W?)){DATE}", 0.6),
                Pattern("After an age", rf"(?<={_AGE}{near}){DATE}", 0.5),
                Pattern("After a sex", rf"(?<={_SEX}{near}){_BORN_LONG_AGO}", 0.5),
                Pattern("After a name with a title", rf"(?<={_NAMED}{near}){_BORN_LONG_AGO}", 0.5),
            ],
        )


class WiderSsnRecognizer(PatternRecognizer):  # type: ignore[misc]
    """Nine digits that can be a social security number, in a clause that names whose."""

    def __init__(self) -> None:
        before = rf"(?<={_OF_A_PERSON}{_GAP}){_NOT_OTHERS}"
        super().__init__(
            supported_entity="US_SSN",
            patterns=[Pattern("Nine digits after a noun", before + _NINE, 0.45)],
        )


def wider_recognizers() -> list[EntityRecognizer]:
    """One of each."""
    return [WiderMedicalRecordRecognizer(), WiderDateOfBirthRecognizer(), WiderSsnRecognizer()]
