"""What rewritten code calls is there."""

from deploypipe.compiler.helper_names import HELPER_NAMES
from deploypipe.staging.helpers import HELPERS


def test_staging_provides_each_helper_that_the_compiler_names_and_no_other() -> None:
    provided = {name for name in dir(HELPERS) if not name.startswith("__")}
    assert provided == set(HELPER_NAMES)
