"""The exceptions that are no defects: what a user can mend, and a finding that is not the one on record."""


class UserError(Exception):
    """Something the user can mend: a typo, a missing file, an empty data set.

    The message is one line: what is wrong, where, and what to do about it.
    """


class VerdictsChanged(Exception):
    """Verdicts of the table are not those that the settings record: exit code 3, one line for each."""

    def __init__(self, changes: list[str]) -> None:
        super().__init__("; ".join(changes))
        self.changes = changes
