"""Named errors. Each carries the exit code that the command line ends with."""


class PixaError(Exception):
    """Anything that pixa refuses or cannot do; the message is one plain sentence."""

    exit_code = 1


class UnsupportedInput(PixaError):
    """A picture that pixa cannot take as it is (16 bits a sample, an unreadable file)."""


class UsageError(PixaError, ValueError):
    """An argument out of its range or arguments that exclude each other."""

    exit_code = 2


class NotPixa(PixaError):
    """The data does not begin as a pixa file."""

    exit_code = 3


class UnsupportedVersion(PixaError):
    """A pixa file that needs a newer program: its version, a reserved bit or a critical chunk is unknown."""

    exit_code = 3


class Corrupt(PixaError):
    """The file is damaged: cut, altered, or inconsistent with itself."""

    exit_code = 4


class ModelMissing(PixaError):
    """The model that the file names is not installed, or its weights are not the ones the file needs."""

    exit_code = 5


class LimitExceeded(PixaError):
    """The picture is larger than the limits allow."""

    exit_code = 6
