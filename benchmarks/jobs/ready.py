"""Tell when this Python was ready, and what is in its environment. Usage: ready.py FILE."""

import time

AT = time.time()

import json  # noqa: E402 - the time of the first line is what counts
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
import scipy  # noqa: E402

versions = [np.__version__, scipy.__version__, pd.__version__, pa.__version__, sys.version, float(np.arange(9.0).sum())]
aside = Path(f"{sys.argv[1]}.part")
aside.write_text(json.dumps({"at": AT, "versions": versions, "prefix": sys.prefix}))
aside.rename(sys.argv[1])
