"""The exception for mistakes that the user can mend: the command line prints it and exits with code 2."""


class UserError(Exception):
    """A user's mistake; its text is one line that names the file, the field and the fix."""
