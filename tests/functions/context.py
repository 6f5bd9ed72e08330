"""What Lambda hands a handler beside its event."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4


@dataclass
class Context:
    """A Lambda context that ends in so many seconds."""

    seconds: float = 60.0
    function_name: str = "submit_ecs"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:eu-west-1:123456789012:function:submit_ecs"
    aws_request_id: str = field(default_factory=lambda: str(uuid4()))
    started: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.seconds - (time.monotonic() - self.started)) * 1000)


def sqs_event(*bodies: str, receives: int = 1, arn: str = "arn:aws:sqs:eu-west-1:0:pp-submit-ecs", **more: Any) -> Any:
    """Return an SQS event whose messages are called `m0`, `m1`, …"""
    return {
        "Records": [
            {
                "messageId": f"m{number}",
                "receiptHandle": "r",
                "body": body,
                "attributes": {"ApproximateReceiveCount": str(receives)},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": arn,
                "awsRegion": "eu-west-1",
                **more,
            }
            for number, body in enumerate(bodies)
        ]
    }
