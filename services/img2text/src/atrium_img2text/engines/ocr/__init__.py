"""What the engines that read text stand on; the engines themselves are a folder above.

Both of them:
    engine.py      models, workers and limits, of every engine that reads
    workers.py     threads that hold a page until they have let go of it
    upright.py     a page as it is read: grey, scaled, turned; and boxes back to the page
    lean.py        whether lines of text lie or stand, and by how much they lean
    scripts.py     scripts by their letters, and which words stand without spaces
    identify.py    which language a text is in
    lines.py       words to lines, and lines to a page
    options.py     what a catalogue entry may say

Tesseract:
    strategy.py    which way round and in which languages a page is read
    tessdata.py    which languages are installed
    recognizer.py  the port: words out of a grey picture
    recognizers.py which of its adapters there is here
    library.py     Tesseract in this process (tesserocr)
    letters.py     which way up letters are, by Tesseract in this process
    program.py     Tesseract as a process per page (pytesseract)

RapidOCR:
    rapid.py       networks that find lines and read them
"""
