"""The training job: `python -m pipeline.train job.json`, the same under every launcher.

The job file names a stage, its config, its input folders and where to write; rank, world size and
rendezvous come from whichever launcher started the process. The job has succeeded when `done.json`
is there. Exit codes: 0 done, 2 and 3 a mistake in config or data, 75 stopped with its state saved,
93 given up because it would fail again, 1 anything else.
"""

import faulthandler
import os
import signal
import sys
import traceback
from pathlib import Path

from pipeline import files
from pipeline.config import UserError
from pipeline.runtime import StopRequest, die_with_parent, ranks_of, rendezvous_of
from pipeline.train.rank import train


def main() -> int:
    """Run one rank; failures are left for the supervisor in `failure.json` (rank 0) and in the log."""
    die_with_parent(os.environ)
    faulthandler.register(signal.SIGUSR2)  # where a rank that is stuck stands, in its log
    stop = StopRequest()
    ranks = ranks_of(os.environ)
    os.environ.update(rendezvous_of(os.environ, ranks))
    job_files = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]
    description = files.read_json(Path(job_files[0]))
    try:
        return train(description, ranks, stop)
    except UserError as error:
        traceback.print_exc()
        failure = {"message": str(error), "exit_code": error.exit_code, "rank": ranks.rank}
        files.write_json(Path(description["out"]) / "failure.json", failure)
        return error.exit_code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter shutdown can wait for communication threads of ranks that are gone.
    os._exit(code)
