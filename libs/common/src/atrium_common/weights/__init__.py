"""Where model files are and how they get there: fetched, checked, cached.

Engines ask `WeightStore.locate` for their files; `python -m atrium_common.weights ensure`
(which `make run` calls) fetches what is missing. The folders:

    <root>/<entry id>/<fingerprint>/              the entry's files, complete and checked
    <root>/<entry id>/<fingerprint>/manifest.json names, sizes, times and digests
    <cache>/<entry id>/<fingerprint>-<name>/      what an engine made of them, e.g. a
                                                  conversion; see `WeightStore.cache`
    <root>/.staging/                              fetches under way; never read

The fingerprint follows from the files' digests, so changed weights are another folder, and
entries of the same files share one.
A folder appears by one rename: what is there is whole.
"""

from atrium_common.weights.errors import WeightsError
from atrium_common.weights.progress import Progress, Report, silent
from atrium_common.weights.store import WeightStore

__all__ = ["Progress", "Report", "WeightStore", "WeightsError", "silent"]
