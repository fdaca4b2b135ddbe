"""Several programs in one process, for it takes a second until one has its kernels."""

# The programs are the first argument, {name: program}; the last line of output says {name: None, or how it failed}.
EACH = """
import json, sys, traceback
told = {}
for name, program in json.loads(sys.argv[1]).items():
    try:
        exec(program, dict(globals()))
        told[name] = None
    except BaseException:
        told[name] = traceback.format_exc()
print(json.dumps(told))
"""
