"""What the commands fail with: one readable line and the way out, never a traceback."""


class CliError(Exception):
    """The message is all that the user gets to see. (What the API has to say against it is a PlumblineError.)"""
