"""Prefect over DVC: the flow, its workspaces, and what a server needs to schedule it. Stages know nothing of this room."""

from stages.plumbing.starting import end_at_once

end_at_once("pipelines")
