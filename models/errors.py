"""What the core refuses: every message says what is wrong, with the value, and how to mend it, in one line."""


class InvalidInput(ValueError):
    """A setting, genotype or image size the core cannot work with; the message is meant for the user."""


class Diverged(ArithmeticError):
    """A loss that is no longer a finite number; the message is meant for the user."""
