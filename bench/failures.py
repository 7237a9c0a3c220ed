"""How a move can fail to happen."""


class Failure(RuntimeError):
    """The engine gave up, and said why."""


class Endless(Failure):
    """The move did not end within its time."""
