"""The one exception that reaches users as a single line and exit code 2."""


class UserError(Exception):
    """Something the user can mend: a typo, a missing file, an empty data set.

    The message is one line: what is wrong, where, and what to do about it.
    """
