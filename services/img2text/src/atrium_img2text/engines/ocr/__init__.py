"""What the engines that read text share, and Tesseract itself; no engine is here.

upright.py     a page as it is read: grey, scaled, turned; and boxes back to the page
lean.py        by how much lines of text lean, and whether they stand
recognizer.py  the port: words out of a grey picture
library.py     Tesseract in this process (tesserocr)
program.py     Tesseract as a process per page (pytesseract)
tessdata.py    which languages are installed
scripts.py     scripts by their letters, and which words stand without spaces
identify.py    which language a text is in
strategy.py    which way round and in which languages a page is read
lines.py       words to lines, and lines to a page
workers.py     threads that hold a page until they have let go of it
options.py     what a catalogue entry may say
"""
