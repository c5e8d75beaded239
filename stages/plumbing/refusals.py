"""Which errors another attempt may get past (MachineError, exit status 1), and which only the user can mend (UserError, 2)."""

from __future__ import annotations

import re

from mlflow.exceptions import MlflowException
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
# What SQLite says about a file that is no database of MLflow's, or that this user may not write.
_NO_DATABASE = re.compile(
    r"not a database|unable to open database file|readonly database|malformed|no such (table|column)"
    r"|can't locate revision|out-of-date database schema|can't load plugin",
    re.IGNORECASE,
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
    if isinstance(error, MlflowException) and error.error_code in _REFUSED:
        return UserError(
            f"MLflow at {where} refuses this ({text[:300]}); correct MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME or"
            " your rights there"
        )
    return MachineError(f"MLflow at {where} failed: {text[:300]}")
