"""Sets docs/sample/contract.txt as the PDF that `casemill demo` reviews: `python docs/sample/make_pdf.py`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF

SOURCE = Path(__file__).with_name("contract.txt")
TARGET = Path(__file__).parents[2] / "gateway" / "cli" / "sample_contract.pdf"


def main() -> None:
    """Write the PDF; the same text gives the same bytes."""
    pdf = FPDF(format="A4")
    pdf.set_creation_date(datetime(2025, 2, 3, tzinfo=UTC))
    pdf.set_title("Master Services Agreement (invented sample)")
    pdf.set_margins(25, 22, 25)
    pdf.set_auto_page_break(True, 20)
    pdf.add_page()
    for paragraph in SOURCE.read_text(encoding="utf-8").strip().split("\n\n"):
        heading = paragraph.upper() == paragraph
        pdf.set_font("Times", "B" if heading else "", 12 if heading else 11)
        pdf.multi_cell(0, 5.5, paragraph, align="L", new_x="LMARGIN", new_y="NEXT")
        pdf.ln(2.5)
    pdf.output(str(TARGET))


if __name__ == "__main__":
    main()
