"""Reads `plan.json`: what Terraform makes of the service, with all clouds and the webhook (`make terraform-plan`)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("plan.json")
ACCOUNT: Final = "123456789012"
KEY: Final = "key/blocks"
"""The KMS key, as the plan calls it; the cloud chooses another name."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The resources of an installation, by address, and the outputs."""

    resources: dict[str, Values]
    outputs: Values

    @classmethod
    def read(cls, text: str | None = None) -> Plan:
        """Return the plan of a text, else the one that is committed."""
        return cls(**json.loads(text if text is not None else FILE.read_text(encoding="utf-8")))

    def to_json(self) -> str:
        return json.dumps({"resources": self.resources, "outputs": self.outputs})

    def renamed(self, **names: str) -> Plan:
        """Return the plan for another account, or with the key that the cloud has made."""
        text = self.to_json()
        for before, after in ((ACCOUNT, names.get("account")), (KEY, names.get("key"))):
            text = text.replace(before, after) if after is not None else text
        return Plan.read(text)

    def listed(self, type_: str) -> list[Values]:
        """Return the resources of a type."""
        return [values for values in self.resources.values() if values["type"] == type_]

    def of_type(self, type_: str) -> dict[str, Values]:
        """Return the resources of a type by the last part of their address: the key, or the name of a single one."""
        found: dict[str, Values] = {}
        for address, values in self.resources.items():
            if values["type"] == type_:
                match = re.search(r'\["(.+)"\]$', address)
                key = match[1] if match else address.rpartition(".")[2].partition("[")[0]
                assert key not in found, f"two resources of {type_} are called {key}"
                found[key] = values
        return found

    def one(self, address: str) -> Values:
        return self.resources[address]

    @property
    def functions(self) -> dict[str, Values]:
        """The functions, by their names in `functions.json`."""
        return self.of_type("aws_lambda_function")

    def environ(self, function: str) -> dict[str, str]:
        """Return the environment of a function."""
        variables: dict[str, str] = self.functions[function]["environment"][0]["variables"]
        return variables

    def function_of(self, arn: str) -> str:
        """Return the name of the function with an ARN."""
        name = arn.rpartition(":function:")[2]
        return next(each for each, values in self.functions.items() if values["function_name"] == name)

    @property
    def queues(self) -> dict[str, Values]:
        """All queues, by their ARNs."""
        region, account = self._where
        return {
            f"arn:aws:sqs:{region}:{account}:{each['name']}": each for each in self.of_type("aws_sqs_queue").values()
        }

    @property
    def mappings(self) -> dict[str, Values]:
        """The event source mappings, by the function that each of them invokes."""
        return {
            self.function_of(each["function_name"]): each for each in self.listed("aws_lambda_event_source_mapping")
        }

    def statements(self, function: str) -> list[Values]:
        """Return what the role of a function allows; its policies are found by the role that the function has."""
        role = self.functions[function]["role"].rpartition("/")[2]
        policies = [each["policy"] for each in self.listed("aws_iam_role_policy") if each["role"] == role]
        return [statement for policy in policies for statement in policy["Statement"]]

    @property
    def _where(self) -> tuple[str, str]:
        arn = next(iter(self.functions.values()))["role"]
        return str(self.outputs["region"]), str(arn.split(":")[4])
