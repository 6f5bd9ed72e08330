"""One suite of tests per port: whoever writes an adapter subclasses the suite and runs it with pytest.

Only these modules import pytest, which is not a dependency of the package.
"""
