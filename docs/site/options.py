"""Options inside of code never break at their hyphens, on a narrow screen neither."""

from __future__ import annotations

import re
from typing import Any

CODE = re.compile(r"<code>[^<]+</code>")
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")


def on_page_content(content: str, **_: Any) -> str:
    """Mark every option in the code of a text or table."""
    return CODE.sub(lambda found: OPTION.sub(r'<span class="option">\g<0></span>', found.group()), content)
