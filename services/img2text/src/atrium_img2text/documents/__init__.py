"""Uploads into pages: pictures, multi-page TIFF and PDF, bounded before they are opened."""
