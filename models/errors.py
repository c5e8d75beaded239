"""Errors of the core. Every message says in one line what is wrong, the value received and the mend."""


class InvalidInput(ValueError):
    """A setting, genotype or image size that the core cannot work with. The message is meant for the user."""


class Diverged(ArithmeticError):
    """A loss that is no longer a finite number. The message is meant for the user."""
