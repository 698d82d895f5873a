"""The one exception that is the user's to mend: the command line prints it and exits with 2."""


class UserError(Exception):
    """A mistake of the user, told in one clear line: the file, the field, the fix."""
