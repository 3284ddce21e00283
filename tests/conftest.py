import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # tests share `fakes`

settings.register_profile("turnout", deadline=None)  # no assertion on wall time
settings.load_profile("turnout")
