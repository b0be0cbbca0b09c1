"""Refusals of documents that several files of this package make."""

from atrium_common.errors import MediaError


def too_many_pages(most: int, field: str) -> MediaError:
    """The document has more pages than are taken."""
    return MediaError(
        f"The document has more than {most} pages.", reason="TOO_MANY_PAGES", field=field
    )
