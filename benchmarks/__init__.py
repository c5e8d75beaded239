"""Scripts that measure. Their results state hardware, versions and date."""

from stages.plumbing.starting import end_at_once

end_at_once("benchmarks")
