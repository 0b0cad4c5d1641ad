"""Labelled sentences for `redaction`: made up, seeded, the same every time.

Written before the recognisers were tried on them and not changed since; docs/redaction.md says what
the recognisers learnt from them. More than a third of the templates hold only what looks like an
identifier and is none: lab values, dosages, dates of visits, codes. The words around an identifier
are those people use, not those the recognisers look for; several give no hint at all.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

SEED = 20260102
ROUNDS = 5
"""Times each template is filled."""


class Span(NamedTuple):
    """A labelled identifier."""

    start: int
    end: int
    entity: str


class Sentence(NamedTuple):
    """A text and what is in it."""

    text: str
    spans: tuple[Span, ...]


TEMPLATES = (
    # E-mail
    "You can write to {EMAIL_ADDRESS} if the lab calls back.",
    "cc {EMAIL_ADDRESS} and also {EMAIL_ADDRESS} please",
    "My daughter ({EMAIL_ADDRESS}) handles the appointments.",
    "login={EMAIL_ADDRESS};role=patient",
    "Contact:{EMAIL_ADDRESS}",
    # Phone
    "I am at work until five, {PHONE_NUMBER} reaches me there.",
    "Ring my husband: {PHONE_NUMBER}.",
    "Tel {PHONE_NUMBER}, fax {PHONE_NUMBER}",
    "Text me on {PHONE_NUMBER} when the prescription is ready",
    "The pharmacy's line {PHONE_NUMBER} is always engaged.",
    "Emergency contact {PERSON}, {PHONE_NUMBER}",
    # Cards and accounts
    "The copay was charged to {CREDIT_CARD} twice.",
    "Please use my Visa {CREDIT_CARD}, expires 09/27.",
    "Refund to {IBAN_CODE} as agreed with billing.",
    "Account {IBAN_CODE}, the invoice is from March.",
    # SSN
    "Her social is {US_SSN}, the insurer asked for it.",
    "SSN {US_SSN} on the intake form",
    "The form wants a number, I put {US_SSN}.",
    # Medical record numbers
    "MRN {MEDICAL_RECORD} came in with chest pain at 03:40.",
    "Patient ID {MEDICAL_RECORD}: rash since Tuesday.",
    "Please pull the chart for {MEDICAL_RECORD}, she was here in May.",
    "Hospital number is {MEDICAL_RECORD} if you need to look me up.",
    "Medical record no. {MEDICAL_RECORD}, ward 7",
    "pt {MEDICAL_RECORD} c/o dizziness",
    "My file with you: {MEDICAL_RECORD}",
    # Licences
    "Prescriber DEA {MEDICAL_LICENSE}, controlled substance.",
    "Signed by {PERSON}, registration {MEDICAL_LICENSE}.",
    "He showed a driver's license, {US_DRIVER_LICENSE}, at the desk.",
    "ID checked: DL {US_DRIVER_LICENSE}",
    # Birth
    "DOB {DATE_OF_BIRTH}, allergic to penicillin.",
    "She was born on {DATE_OF_BIRTH} and has had asthma since childhood.",
    "Date of birth: {DATE_OF_BIRTH}",
    "my birthday is {DATE_OF_BIRTH} so I am just under the limit for the vaccine",
    "Male, b. {DATE_OF_BIRTH}, smoker",
    # Addresses of machines
    "Portal session from {IP_ADDRESS} was locked after three tries.",
    "The infusion pump at {IP_ADDRESS} does not answer.",
    # Names and places, for a model
    "{PERSON} from {LOCATION} fell off her bike.",
    "Dr {PERSON} told me to stop the tablets.",
    # Nothing to find
    "Hb 13.2 g/dL, WBC {small}.{digit} x10^9/L, platelets 245 000, CRP {small}.",
    "Na 139, K 4.1, creatinine 88, eGFR 74, glucose 5.6 mmol/L at {time}.",
    "Take 500 mg every 8 hours for 7 days, 21 tablets, no refills.",
    "Insulin glargine 24 IU at night, lispro 6-8-6 with meals.",
    "BP 142/88, pulse 76, sats 97 %, temp 37.{digit}, weight 81.4 kg.",
    "Seen on {date}; follow-up on {date} at {time}.",
    "Surgery was {date}, stitches out ten days later.",
    "Last menstrual period {date}, test positive since {date}.",
    "The MRI of {date} showed a 4 x 7 mm lesion at L4/L5.",
    "Code E11.9 with I10, procedure 99213, modifier 25.",
    "Tracking number 1Z{digits10} says delivered, but the sensor is not here.",
    "Lot {digits6} of the vaccine, expiry 2027-03.",
    "Room 4107, bed 2, phone in the corridor is broken.",
    "The rash started 3 days ago, 2 spots, now 15-20 of them.",
    "Version 2.14.0 of the app crashes since update 20260301.",
    "NDC 0002-{digits4}-80, dispense 90.",
    "Dose went 25-50-100-150 over {small} weeks.",
    "Appointment slots: 09:15, 09:45, 10:30; wait is about {small} minutes.",
    "Spirometry FEV1 2.31 L (78 %), FVC 3.05 L, ratio 0.757.",
    "Order {digits8} was for compression stockings, size 3.",
    "The trial enrolled 1204 people in 2019 and 1377 in 2021.",
    "born premature at 31 weeks, 1450 g, now thriving",
    "He walks 10000 steps, sleeps 6.5 h and drinks 2 l a day.",
    "Invoice 2026-{digits4} over 1,250.00 is paid.",
)

LATER = (
    "Kindly forward the scan to {EMAIL_ADDRESS}; she is my sister.",
    "From: {EMAIL_ADDRESS}\nSubject: results",
    "mum can be got hold of via {PHONE_NUMBER} most evenings",
    "My number changed, it used to end in 4, now it's {PHONE_NUMBER}",
    "{PHONE_NUMBER} (neighbour, has a key)",
    "I paid the deposit with {CREDIT_CARD}, was that right?",
    "wire it to {IBAN_CODE}",
    "Tax form: {US_SSN}, spouse {US_SSN}",
    "Her record with the old clinic was {MEDICAL_RECORD}.",
    "{MEDICAL_RECORD} needs her INR checked today",
    "Wristband says {MEDICAL_RECORD}, can you confirm the ward?",
    "Re patient {MEDICAL_RECORD}: CT booked",
    "Prescription signed under {MEDICAL_LICENSE} was refused by the pharmacy.",
    "He drives, licence number {US_DRIVER_LICENSE}, and had a seizure last week.",
    "turned 60, {DATE_OF_BIRTH}, wants a colonoscopy",
    "Baby's dob is {DATE_OF_BIRTH}, formula-fed",
    "Year of birth and all: {DATE_OF_BIRTH}",
    "The telehealth log shows {IP_ADDRESS} twice.",
    "Weighed 81.4 on {date} and 79.9 on {date}, both before breakfast.",
    "Ferritin {small}, TSH 2.{digit}, vitamin D {small} nmol/L; repeat after {date}.",
    "Chemo cycle {digit} of 6 on {date}, 75 mg/m2, next {date}.",
    "Call me crazy, but 3 x 200 mg is 600, not 650, and 2024 was a leap year.",
    "Room 12, bed 4, isolation until {date} {time}.",
    "Batch {digits8}, 25 G needle, 0.5 ml IM, left deltoid.",
    "The study (n = 10 412, 2015-2021) found an OR of 1.27 (1.08-1.49).",
    "Text size is fine, I just need 30 tablets of 2.5 mg, ref {digits6}.",
)
"""Written after the recognisers were changed for what the first ones showed; nothing was since."""

_FIRST = ("Amara", "Bente", "Chidi", "Dolores", "Emre", "Farah", "Gwen", "Hiro", "Ines", "Jakub")
_LAST = ("Okafor", "Lindqvist", "Marsh", "Delgado", "Yilmaz", "Haddad", "Prys", "Tanaka", "Novak")
_PLACES = ("Leeds", "Tucson", "Freiburg", "Porto Alegre", "Halifax", "Gdansk", "Marseille")
_MONTHS = ("January", "Feb", "March", "Apr", "May", "June", "July", "Aug", "Sept", "October")


def sentences(templates: tuple[str, ...] = TEMPLATES, *, seed: int = SEED) -> list[Sentence]:
    """The templates, each filled several times; the order is theirs."""
    random_ = random.Random(seed)
    return [_filled(template, random_) for _ in range(ROUNDS) for template in templates]


def _filled(template: str, random_: random.Random) -> Sentence:
    text, spans = "", []
    rest = template
    while "{" in rest:
        before, _, rest = rest.partition("{")
        slot, _, rest = rest.partition("}")
        value = _MAKERS[slot](random_)
        text += before
        if slot.isupper():
            spans.append(Span(len(text), len(text) + len(value), slot))
        text += value
    return Sentence(text + rest, tuple(spans))


def _digits(random_: random.Random, count: int) -> str:
    return str(random_.randint(1, 9)) + "".join(random_.choices("0123456789", k=count - 1))


def _phone(random_: random.Random) -> str:
    area, last = random_.choice(("212", "415", "617", "713")), _digits(random_, 4)
    middle = str(random_.randint(220, 989))
    shapes = (
        f"({area}) {middle}-{last}",
        f"{area}-{middle}-{last}",
        f"{area}.{middle}.{last}",
        f"+1 {area} {middle} {last}",
        f"{area}{middle}{last}",
        f"020 7946 0{random_.randint(100, 999)}",
        f"07700 900{random_.randint(100, 999)}",
        f"+49 30 901820{random_.randint(10, 99)}",
        f"+33 1 42 68 {random_.randint(10, 99)} {random_.randint(10, 99)}",
    )
    return random_.choice(shapes)


def _email(random_: random.Random) -> str:
    first, last = random_.choice(_FIRST).lower(), random_.choice(_LAST).lower()
    host = random_.choice(("example.org", "mail.example.co.uk", "clinic.local", "klinik.example"))
    return random_.choice((f"{first}.{last}@{host}", f"{first}{random_.randint(1, 99)}@{host}"))


def _luhn(body: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def _card(random_: random.Random) -> str:
    prefix, length = random_.choice((("4", 16), ("52", 16), ("2301", 16), ("37", 15), ("6011", 16)))
    number = _luhn(prefix + _digits(random_, length - 1 - len(prefix)))
    grouped = " ".join(number[at : at + 4] for at in range(0, 16, 4))
    return random_.choice((number, grouped if length == 16 else number))


def _iban(random_: random.Random) -> str:
    country, body = random_.choice(
        (("DE", _digits(random_, 18)), ("GB", "NWBK" + _digits(random_, 14)))
    )
    numeric = "".join(str(int(c, 36)) for c in body + country + "00")
    number = f"{country}{98 - int(numeric) % 97:02}{body}"
    grouped = " ".join(number[at : at + 4] for at in range(0, len(number), 4))
    return random_.choice((number, grouped))


def _ssn(random_: random.Random) -> str:
    parts = (random_.randint(100, 665), random_.randint(10, 99), random_.randint(1000, 9999))
    return random_.choice(("{}-{}-{}", "{} {} {}", "{}{}{}")).format(*parts)


def _record(random_: random.Random) -> str:
    shapes = (
        _digits(random_, 6),
        _digits(random_, 8),
        f"{_digits(random_, 3)}-{_digits(random_, 2)}-{_digits(random_, 2)}",
        f"H{_digits(random_, 7)}",
        f"A-{_digits(random_, 6)}",
    )
    return random_.choice(shapes)


def _dea(random_: random.Random) -> str:
    body = [random_.randint(0, 9) for _ in range(6)]
    check = (sum(body[0::2]) + 2 * sum(body[1::2])) % 10
    return random_.choice("ABM") + random_.choice("OLMDY") + "".join(map(str, [*body, check]))


def _driver(random_: random.Random) -> str:
    letter = random_.choice("ABDFKS")
    return random_.choice((letter + _digits(random_, 7), letter + _digits(random_, 12)))


def _date(random_: random.Random, first: int, last: int) -> str:
    day, month = random_.randint(1, 28), random_.randint(1, 10)
    year, word = random_.randint(first, last), _MONTHS[month - 1]
    shapes = (
        f"{day:02}/{month:02}/{year}",
        f"{year}-{month:02}-{day:02}",
        f"{day}.{month}.{year}",
        f"{day} {word} {year}",
        f"{word} {day}, {year}",
        f"{month}/{day}/{year % 100:02}",
    )
    return random_.choice(shapes)


def _ip(random_: random.Random) -> str:
    four = ".".join(str(random_.randint(11, 250)) for _ in range(4))
    return random_.choice((four, f"2001:db8::{random_.randint(16, 255):x}:{_digits(random_, 3)}"))


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "PHONE_NUMBER": _phone,
    "EMAIL_ADDRESS": _email,
    "CREDIT_CARD": _card,
    "IBAN_CODE": _iban,
    "US_SSN": _ssn,
    "MEDICAL_RECORD": _record,
    "MEDICAL_LICENSE": _dea,
    "US_DRIVER_LICENSE": _driver,
    "DATE_OF_BIRTH": lambda random_: _date(random_, 1931, 2019),
    "IP_ADDRESS": _ip,
    "PERSON": lambda random_: f"{random_.choice(_FIRST)} {random_.choice(_LAST)}",
    "LOCATION": lambda random_: random_.choice(_PLACES),
    "date": lambda random_: _date(random_, 2024, 2026),
    "time": lambda random_: f"{random_.randint(7, 18):02}:{random_.randint(10, 59)}",
    "small": lambda random_: str(random_.randint(2, 48)),
    "digit": lambda random_: str(random_.randint(0, 9)),
    "digits4": lambda random_: _digits(random_, 4),
    "digits6": lambda random_: _digits(random_, 6),
    "digits8": lambda random_: _digits(random_, 8),
    "digits10": lambda random_: _digits(random_, 10),
}
