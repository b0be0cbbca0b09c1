"""The dashboards of Atrium: what an operator looks at. `../make.py` writes them as JSON.

Every metric is one of docs/metrics.md, or a recording rule of deploy/prometheus/rules.
"""

from .gpus import GPU
from .overview import OVERVIEW
from .service import SERVICE
from .tenants import TENANTS

DASHBOARDS = (OVERVIEW, SERVICE, TENANTS, GPU)
