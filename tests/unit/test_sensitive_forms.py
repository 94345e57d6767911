"""Personal data that a rule recognises by its form: each check digit, each type, and what only looks like one."""

from __future__ import annotations

import pytest

from workers.analysis.sensitive.datum import DataType
from workers.analysis.sensitive.folding import fold
from workers.analysis.sensitive.identifiers import iban_is_valid, luhn
from workers.analysis.sensitive.structured import structured

FORMS = [
    ("my card 4111 1111 1111 1111 expires", DataType.CREDIT_CARD, "4111 1111 1111 1111"),
    ("amex 3782-822463-10005.", DataType.CREDIT_CARD, "3782-822463-10005"),
    ("pay to DE89 3704 0044 0532 0130 00 by Friday", DataType.IBAN_CODE, "DE89 3704 0044 0532 0130 00"),
    ("iban gb82west12345698765432", DataType.IBAN_CODE, "gb82west12345698765432"),
    ("SSN: 219-09-9999", DataType.US_SSN, "219-09-9999"),
    ("social security no. 219099999", DataType.US_SSN, "219099999"),
    ("Driver's license number is D123-4567-8901", DataType.US_DRIVER_LICENSE, "D123-4567-8901"),
    ("call +44 20 7946 0018 today", DataType.PHONE_NUMBER, "+44 20 7946 0018"),
    ("Phone: (212) 736-5000 ext. 12", DataType.PHONE_NUMBER, "(212) 736-5000 ext. 12"),
    ("fax 450 0840", DataType.PHONE_NUMBER, "450 0840"),
    ("write to jürgen.o'neil+x@müller-büro.de.", DataType.EMAIL_ADDRESS, "jürgen.o'neil+x@müller-büro.de"),
    ("see https://example.org/a_(b)?c=1, please", DataType.DOMAIN_NAME, "https://example.org/a_(b)?c=1"),
    ("at www.example.com.", DataType.DOMAIN_NAME, "www.example.com"),
    ("on example.co.uk only", DataType.DOMAIN_NAME, "example.co.uk"),
    ("from 192.168.10.77:80", DataType.IP_ADDRESS, "192.168.10.77"),
    ("host 10.0.0.1 is down", DataType.IP_ADDRESS, "10.0.0.1"),
    ("peer 2001:db8::8a2e:370:7334 left", DataType.IP_ADDRESS, "2001:db8::8a2e:370:7334"),
    ("made on March 3rd, 2021 by", DataType.DATE_TIME, "March 3rd, 2021"),
    ("at 2018-01-14 03:07:43 sharp", DataType.DATE_TIME, "2018-01-14 03:07:43"),
    ("am 24.12.1999 um", DataType.DATE_TIME, "24.12.1999"),
    ("born in 1964, she", DataType.DATE_TIME, "1964"),
    ("a 47-year-old man", DataType.AGE, "47"),
    ("ZIP: 53-320", DataType.ZIP_CODE, "53-320"),
]

ONLY_ALIKE = [
    "4111 1111 1111 1112 fails Luhn's check",
    "9111111111111111 is nobody's range, 41111111111111111111111 too long",
    "DE88 3704 0044 0532 0130 00 and DE89 3704 0044 0532 0130 0 and ZZ89370400440532013000",
    "000-12-3456, 666-12-3456, 912-12-3456, 219-00-9999, 219-09-0000, 219099999",
    "Section 4.7.11 and 10.2.3.1 and 4.3.10 of Exhibit 12",
    "$1,234,567.89 and 1,250,000 shares at 12.345.678",
    "pages 1234-5678, order 123456789012345, 2019-2024",
    "256.300.1.1 and 12:30:45 and ::",
    "the end.It is so; No.in sum",
    "30 years, 45 days, turned 50%, at the age of wonder",
]


@pytest.mark.parametrize(("text", "kind", "words"), FORMS)
def test_each_form_is_found_at_its_place(text: str, kind: DataType, words: str) -> None:
    found = [(datum.type, text[datum.start : datum.end]) for datum in structured(fold(text))]
    assert (kind, words) in found
    assert all(datum.why and 0 < datum.score <= 1 for datum in structured(fold(text)))


@pytest.mark.parametrize("text", ONLY_ALIKE)
def test_what_only_looks_like_a_number_of_somebody_is_left(text: str) -> None:
    kinds = {datum.type for datum in structured(fold(text))} - {DataType.DATE_TIME}
    assert kinds == set()


@pytest.mark.parametrize("number", ["4111111111111111", "378282246310005", "6011000990139424", "30569309025904"])
def test_each_wrong_digit_of_a_card_is_noticed(number: str) -> None:
    assert luhn(number)
    for place, digit in enumerate(number):
        assert not luhn(f"{number[:place]}{(int(digit) + 1) % 10}{number[place + 1 :]}")


@pytest.mark.parametrize("iban", ["GB82WEST12345698765432", "DE89370400440532013000", "NO9386011117947"])
def test_each_wrong_character_of_an_iban_is_noticed(iban: str) -> None:
    assert iban_is_valid(iban)
    for place in range(2, len(iban)):
        other = "7" if iban[place] != "7" else "8"
        assert not iban_is_valid(f"{iban[:place]}{other}{iban[place + 1 :]}")


@pytest.mark.parametrize(
    "variant",
    [
        "card 4111\u00a01111\u00a01111\u00a01111",
        "card 4111‑1111‑1111‑1111",
        "card 4111–1111–1111–1111",
        "ｃａｒｄ ４１１１ １１１１ １１１１ １１１１",
        "\U0001f600\U0001f600 card \U0001d7d2111 1111 1111 1111",
    ],
)
def test_typographic_variants_are_found_at_their_own_offsets(variant: str) -> None:
    [datum] = structured(fold(variant))
    assert datum.type is DataType.CREDIT_CARD
    assert (datum.start, datum.end) == (len(variant) - 19, len(variant))
