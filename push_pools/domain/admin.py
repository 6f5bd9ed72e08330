"""What is asked of the `admin` function: one record of the catalogue is put or deleted."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from push_pools.domain.errors import InvalidInput
from push_pools.domain.problems import problems_of
from push_pools.domain.records import Record, UserInput
from push_pools.domain.values import JsonObject

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """The kinds of records that are written through `admin`."""

    WORK_POOL = "work-pool"
    WORK_QUEUE = "work-queue"
    BLOCK = "block"
    DEPLOYMENT = "deployment"
    VARIABLE = "variable"


class Terraform(Record):
    """What Terraform's `aws_lambda_invocation` adds to its input when it follows a resource's life."""

    action: Literal["create", "update", "delete"]
    prev_input: dict[str, Any] | None = None


class AdminRequest(UserInput):
    """One write. Sent twice, it has the effect of one."""

    version: Literal[1] = 1
    action: Literal["put", "delete"] | None = None
    """What to do; Terraform's own `tf.action` says it too."""
    kind: Kind
    name: str = Field(min_length=1, max_length=400)
    """As the record is addressed: `pool`, `pool/queue`, `type/block`, `flow/deployment`, `variable`."""
    spec: JsonObject = Field(default_factory=dict)
    """What the record is to be: as in the config file; a block's data; a variable's `value` and `tags`."""
    managed_by: str | None = Field(default=None, min_length=1, max_length=300)
    """Who owns the record from now on, such as `terraform:<module address>`; others may then not change it."""
    token: str | None = Field(default=None, min_length=1, max_length=200)
    """Comes back in the answer. By it Terraform sees whether what it keeps as its last write was really taken."""
    tf: Terraform | None = None

    @model_validator(mode="after")
    def _says_what_to_do(self) -> Self:
        if self.action is None and self.tf is None:
            raise ValueError('it does not say what to do; add "action": "put" or "action": "delete"')
        return self

    @property
    def is_delete(self) -> bool:
        """Whether the record is to be gone."""
        return self.tf.action == "delete" if self.tf is not None else self.action == "delete"

    @property
    def replaced(self) -> AdminRequest | None:
        """Return what an update of Terraform's was before, if that is another record."""
        before = self._before
        return before if before is not None and (before.kind, before.name) != (self.kind, self.name) else None

    @property
    def former_owner(self) -> str | None:
        """Return who owned the record by an update of Terraform's that only now names another owner."""
        before = self._before
        if before is None or self.replaced is not None or before.managed_by == self.managed_by:
            return None
        return before.managed_by

    @property
    def _before(self) -> AdminRequest | None:
        if self.tf is None or self.tf.action != "update" or not self.tf.prev_input:
            return None
        fields = {name: value for name, value in self.tf.prev_input.items() if name != "tf"}
        try:
            return read_request({**fields, "action": "put"})
        except InvalidInput:
            return None  # It was refused, and Terraform keeps it all the same: it has made nothing.


def read_request(value: Mapping[str, Any]) -> AdminRequest:
    """Return a request.

    Raises:
        InvalidInput: It cannot be read; every problem is named, no value of the spec is shown.
    """
    try:
        return AdminRequest.model_validate(dict(value))
    except ValidationError as error:
        problems = problems_of(AdminRequest, error, show_values=False)
        raise InvalidInput("; ".join(map(str, problems))) from None


NAMES: Final = {
    Kind.WORK_POOL: "the name of a pool",
    Kind.WORK_QUEUE: "pool/queue",
    Kind.BLOCK: "type/name, such as aws-credentials/prod",
    Kind.DEPLOYMENT: "flow/name",
    Kind.VARIABLE: "the name of a variable",
}
"""How each kind is addressed."""
