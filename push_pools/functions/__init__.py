"""The handlers of the AWS hosting: each parses an invocation, calls the services, and says what became of it.

`infra/functions.json` lists them with their triggers, sizes and policies.
"""
