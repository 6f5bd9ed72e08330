"""The handlers of the AWS hosting: each parses an invocation, calls the services, and says what became of it.

`infra/functions.json` lists them with their triggers, sizes and policies.
"""

import gc
import os

if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # What loading makes stays for good: to look for garbage in it, again and again, is a tenth of a cold start.
    gc.disable()  # Until `runtime.Host` is there, which a handler makes last.
