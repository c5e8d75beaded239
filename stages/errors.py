"""The two kinds of errors that end a stage, each printed as one line on stderr, and which of them an OSError is."""

from __future__ import annotations

import errno
import os
import tempfile


class UserError(Exception):
    """An error that the user can correct. The message says what is wrong, where, the value and the remedy. Exit status 2."""


class MachineError(Exception):
    """An error that another attempt may get past: no server, a full disk. A flow tries again. Exit status 1."""


# Errors of the file system that another attempt meets again, and how the user mends them.
_LASTING = {
    errno.EACCES: "; give this user the right to it",
    errno.EPERM: "; give this user the right to it",
    errno.EROFS: "; make the file system writable",
    errno.ENOENT: "; create it, or run `dvc repro`",
    errno.ENOTDIR: "; remove the file that is in the place of a folder",
    errno.EISDIR: "; remove the folder that is in the place of a file",
    errno.EEXIST: "; remove it",
    errno.ENAMETOOLONG: "; choose a shorter name",
    errno.ELOOP: "; repair the link",
}
_ALMOST_NOTHING = 2**20  # bytes left on a disk that is called full

# Errors of disks, networks and full tables, which have nothing to do with what is in a file.
_PASSING = {
    errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY,
    errno.ESTALE, errno.ENODEV, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET,
    errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTCONN,
    errno.EPIPE,
}  # fmt: skip

_FULL = ("Out of diskspace", "disk is full")  # words of git and of SQLite for a full disk


def lasting(error: OSError, where: object = None) -> UserError | None:
    """The user's error if another attempt would meet this one again. ``where``: the path, if the error names none."""
    if error.errno not in _LASTING:
        return None
    return UserError(_line(error, where) + _LASTING[error.errno])


def passing(error: OSError, where: object = None) -> MachineError | None:
    """The machine's error if this one is about a disk, a network or a full table, and not about what is in a file."""
    return MachineError(_line(error, where)) if error.errno in _PASSING else None


def of_system(error: OSError, where: object = None) -> UserError | MachineError | None:
    """Whichever of both this error is; None where its number says neither, as when a decoder finds a damaged file."""
    return lasting(error, where) or passing(error, where)


def whose(error: OSError) -> UserError | MachineError:
    """The same for an error that nobody knows more about: the machine's, unless its number says otherwise."""
    return of_system(error) or MachineError(_line(error))


def of_words(text: str) -> type[UserError | MachineError]:
    """The kind of error of another program, such as git, by the system's words in what the program says."""
    return MachineError if passes(text) else UserError


def passes(text: str) -> bool:
    """Whether another program reports, in the system's words or its own, what another attempt may get past."""
    return any(words in text for words in (*map(os.strerror, _PASSING), *_FULL))


def remedy(text: str) -> str | None:
    """How the user mends what another program reports in the system's words, if another attempt would meet it again.

    Files that are missing or in the way are left out: between two programs, either may pass.
    """
    if passes(text):
        return None
    lasting_numbers = _LASTING.keys() - {errno.ENOENT, errno.EEXIST}
    return next((_LASTING[number] for number in lasting_numbers if os.strerror(number) in text), None)


def _line(error: OSError, where: object = None) -> str:
    place = error.filename or where or (full_places() if error.errno == errno.ENOSPC else "")
    return f"{error.strerror or error}{f' ({place})' if place else ''}"


def full_places() -> str:
    """Which of the project's folder and the folder for temporary files are on a full disk.

    Whoever writes to a full disk learns that it is full, but not which one.
    """
    return ", ".join(
        place for place in dict.fromkeys((os.getcwd(), tempfile.gettempdir())) if _is_full(place)
    )


def _is_full(place: str) -> bool:
    disk = os.statvfs(place)
    return disk.f_bavail * disk.f_frsize < _ALMOST_NOTHING or (disk.f_files > 0 and disk.f_favail == 0)
