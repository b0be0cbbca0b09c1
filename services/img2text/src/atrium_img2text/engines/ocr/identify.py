"""Which language a text is in, by py3langid (Naive Bayes over byte n-grams, 142 languages)."""

from collections.abc import Collection
from threading import Lock

from py3langid import langid  # type: ignore[import-untyped]

from atrium_img2text.languages import shortest


class LanguageIdentifier:
    """Ranks languages; shared by threads. Its model takes 80 MB, once it is needed."""

    def __init__(self) -> None:
        """Loads nothing yet."""
        self._loading = Lock()
        self._model: langid.LanguageIdentifier | None = None

    def load(self) -> None:
        """Loads the model, if that was not done."""
        with self._loading:
            if self._model is None:
                self._model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)

    def likeliest(self, text: str, among: Collection[str]) -> str | None:
        """Returns the likeliest of some languages; ``None`` if none of them is known.

        Args:
            text: What was read.
            among: ISO 639-3 codes.
        """
        self.load()
        assert self._model is not None  # noqa: S101
        codes = {shortest(code): code for code in among}
        ranked = (language for language, _ in self._model.rank(text))
        return next((codes[language] for language in ranked if language in codes), None)
