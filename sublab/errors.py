"""The one exception for what a user can put right."""


class InputError(ValueError):
    """A setting or a file that the user gave is wrong.

    The message is one line that says what is wrong, where, and what would be right; the command
    line prints it and exits with status 2.
    """
