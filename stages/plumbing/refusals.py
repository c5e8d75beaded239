"""Which errors another attempt may get past (MachineError, exit status 1), and which only the user can mend (UserError, 2)."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url
from sqlalchemy.exc import CompileError, SQLAlchemyError

from stages.errors import MachineError, UserError

_REFUSED = {  # codes with which MLflow says no, and would say no again
    "BAD_REQUEST",
    "CUSTOMER_UNAUTHORIZED",
    "ENDPOINT_NOT_FOUND",
    "FEATURE_DISABLED",
    "INVALID_PARAMETER_VALUE",
    "NOT_IMPLEMENTED",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
}
_SQLITE = b"SQLite format 3\0"  # the first bytes of a file that is not empty
# What SQLite says about a file that is no database of MLflow's, or that this user may not write.
_NO_DATABASE = re.compile(
    r"not a database|unable to open database file|readonly database|malformed|no such (table|column)"
    r"|can't locate revision|out-of-date database schema|can't load plugin",
    re.IGNORECASE,
)


def check_sqlite(uri: str) -> None:
    """Raises UserError where the address is a SQLite file that is no database: MLflow tries to open it for 100 seconds."""
    database = make_url(uri).database if uri.startswith("sqlite:") else None
    if not database or not (path := Path(database)).exists():  # MLflow makes it
        return
    trouble = "it is a folder" if path.is_dir() else None
    if trouble is None:
        try:
            with path.open("rb") as file:
                head = file.read(len(_SQLITE))
        except PermissionError:
            trouble = "this user may not read it"
        else:
            trouble = "it is not a SQLite file" if head and head != _SQLITE else None
    if trouble:
        raise UserError(
            f"MLflow cannot use the database {uri} ({trouble}); correct MLFLOW_TRACKING_URI or the rights to the file,"
            " or move the file away"
        )


def of_mlflow(error: MlflowException | SQLAlchemyError | ImportError, uri: str) -> UserError | MachineError:
    """The error that ends the stage, for an error of MLflow or of the database under it. ``uri``: of the tracking store."""
    where, text = re.sub(r"//([^:/@]+):[^@/]+@", r"//\1:***@", uri), " ".join(str(error).split())
    text = re.sub(r" (\[SQL:|\(Background on).*", "", text)  # what SQLAlchemy adds
    if isinstance(error, ImportError):
        return UserError(
            f"MLFLOW_TRACKING_URI is {where}, which needs a package that is not installed ({text}); install the"
            " package, or give the address of an MLflow server"
        )
    if isinstance(error, CompileError) or _NO_DATABASE.search(text):
        return UserError(
            f"MLflow cannot use the database {where} ({text[:200]}); correct MLFLOW_TRACKING_URI or the rights to the"
            " file, or move the file away"
        )
    if isinstance(error, MlflowException) and error.get_http_status_code() == HTTPStatus.UNAUTHORIZED:
        return UserError(
            f"MLflow at {where} asks for a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the"
            " environment, or correct them"
        )
    if isinstance(error, MlflowException) and error.error_code in _REFUSED:
        return UserError(
            f"MLflow at {where} refuses this ({text[:300]}); correct MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME or"
            " your rights there"
        )
    return MachineError(f"MLflow at {where} failed: {text[:300]}")
