"""Uploads opened as documents: pictures, TIFFs of several pages and PDFs become page images.

The service opens every upload with a `DocumentOpener`; nothing of a file but the pixels of
its pages goes on from here.

    document.py    what a document offers, and what is opened at most
    opener.py      which kind of document a file is, in its turn
    pictures.py    pictures and TIFFs, decoded in threads
    pdf.py         PDFs, each drawn by a process of its own
    pdf_process.py talks to that process
    pdf_worker.py  that process: pdfium, and limits that the system holds it to
"""

from atrium_img2text.documents.document import Document, DocumentLimits
from atrium_img2text.documents.opener import DocumentOpener

__all__ = ["Document", "DocumentLimits", "DocumentOpener"]
