"""What was read as whole documents: text, hOCR, TSV, ALTO and PDF that can be searched."""
