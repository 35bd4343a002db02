"""Start a Jupyter kernel that may not take more than its share: `python kernel.py BYTES -f CONNECTION_FILE`.

BYTES limits the memory that each process can write to (RLIMIT_DATA); files may have 64 MB, and nothing dumps core. A kernel over the limit gets a
MemoryError like any other exception.
"""

import resource
import sys

FILE_BYTES = 64_000_000

if __name__ == "__main__":
    limit = int(sys.argv.pop(1))
    for what, most in ((resource.RLIMIT_DATA, limit), (resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    sys.path[0] = ""  # as when Python is started in the notebook's folder; this file's own folder is nobody's to import from
    from ipykernel import kernelapp
    kernelapp.launch_new_instance()
