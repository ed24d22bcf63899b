"""The one exception for what cannot be carried into a static program."""


class Unsupported(Exception):
    """A construct of the author's, why it cannot be carried, and what to write instead.

    `where` is `file:line` and `excerpt` the source line with a caret under the construct, where they are known; whoever
    turns this into an error for the author finds the line otherwise.
    """

    def __init__(self, construct: str, why: str, remedy: str = "", where: str = "", excerpt: str = "") -> None:
        super().__init__(f"{construct}: {why}")
        self.construct, self.why, self.remedy, self.where, self.excerpt = construct, why, remedy, where, excerpt
