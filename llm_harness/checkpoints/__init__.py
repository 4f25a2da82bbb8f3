"""Checkpoints that others trained: read, spoken to in their own template, tuned, and handed on.

Needs the extra `llm`.
"""

from importlib.util import find_spec

from llm_harness.errors import HarnessError

if _missing := [name for name in ("tokenizers", "gguf", "jinja2") if find_spec(name) is None]:
    raise HarnessError(f"checkpoints need {', '.join(_missing)}: pip install 'subliminal-lab[llm]'")
