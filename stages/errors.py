"""The two kinds of errors that end a stage; each is printed as one line on stderr."""


class UserError(Exception):
    """An error that the user can correct. The message says what is wrong, where, the value and the remedy. Exit status 2."""


class MachineError(Exception):
    """An error that another attempt may get past: no server, a full disk. A flow tries again. Exit status 1."""
