"""The two ways a stage can fail; each becomes one line on stderr."""


class UserError(Exception):
    """A mistake that the user can correct. The message says what is wrong, where, the value and the remedy. Exit status 2."""


class MachineError(Exception):
    """What is not the input's fault, and may pass: a server that is away, a full disk. Exit status 1."""
