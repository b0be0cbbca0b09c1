"""Variables whose value is in a file: ``ATRIUM_X_FILE=/run/secrets/x`` stands for ``ATRIUM_X``.

A secret in a file is in no process list and no `docker inspect`. The settings classes read
every field this way (`settings.py`), outside providers' keys come so (`openai_upstream.py`).
"""

from collections.abc import Mapping
from pathlib import Path

from atrium_common.errors import AtriumError

SUFFIX = "_FILE"


class VariableFileError(AtriumError):
    """A variable's file can't be read, or the variable is given twice.

    For the operator at start-up: the message is one line that names variable and path.
    """

    default_reason = "BAD_VARIABLE_FILE"


def read_variable(name: str, variables: Mapping[str, str | None]) -> str | None:
    """Returns a variable's value, from its file where one is named.

    Args:
        name: The variable, e.g. ``"ATRIUM_SERVICE_CREDENTIAL"``.
        variables: The environment; an empty variable counts as unset.

    Returns:
        The value, without the newline that ends the file; ``None`` if neither is set.

    Raises:
        VariableFileError: Both are set, or the file is missing, empty or no text.
    """
    value, path = variables.get(name), variables.get(name + SUFFIX)
    if not path:
        return value or None
    if value:
        raise VariableFileError(f"both {name} and {name}{SUFFIX} are set; unset one")
    return _content(name + SUFFIX, Path(path))


def _content(variable: str, path: Path) -> str:
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as err:
        raise VariableFileError(f"{variable}: {path}: {err.strerror or err}") from err
    except UnicodeDecodeError as err:
        raise VariableFileError(f"{variable}: {path}: not UTF-8 text") from err
    content = content.removesuffix("\n").removesuffix("\r")
    if not content:
        raise VariableFileError(f"{variable}: {path}: the file is empty")
    return content
