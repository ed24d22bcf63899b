"""The corpus, by id."""

from case import PublishedBug
from published_elsewhere import ELSEWHERE
from published_issues import ISSUES
from published_operators import OPERATORS
from published_wrong_files import WRONG_FILES

CASES: dict[str, PublishedBug] = {**ISSUES, **OPERATORS, **ELSEWHERE, **WRONG_FILES}
