"""What goes wrong through no fault of the code."""


class HarnessError(Exception):
    """A setting, a file or a model that cannot be used; the message says what would be right."""
