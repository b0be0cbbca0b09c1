"""What was read, written as one whole document: text, hOCR, TSV, ALTO or a searchable PDF.

The service opens a form when the caller asks for one, adds each page as it is read, and
sends the file that comes out.

    form.py        what every form offers, and the file under it
    plain.py       text and TSV
    hocr.py        hOCR 1.2
    alto.py        ALTO 4
    pdf.py         PDF: pictures with invisible text over them
    pdf_file.py    objects of a PDF, written one after the other
    pdf_font.py    the font of the invisible text
    pdf_text.py    where each word of a page is put
    words.py       lines in groups, spaces, characters that no document may hold
    xml.py         escaping
"""

from atrium_img2text.forms.form import Form, WrittenForm, open_form

__all__ = ["Form", "WrittenForm", "open_form"]
