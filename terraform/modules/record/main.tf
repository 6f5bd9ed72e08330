# One record of the catalogue, written through the function `admin`: the same checks as those of the command line.

locals {
  request = {
    version    = 1
    kind       = var.kind
    name       = var.name
    managed_by = var.managed_by
    spec       = var.spec
  }
  # Names this request. It comes back in the answer to the write that was taken, and in no other.
  token = substr(sha256(jsonencode([local.request, var.again])), 0, 32)
}

resource "aws_lambda_invocation" "this" {
  function_name   = var.admin_function_name
  lifecycle_scope = "CRUD"
  input           = jsonencode(merge(local.request, { token = local.token }))

  # Another name is another record. By an update the old one would be forgotten if the update was refused: see below.
  triggers = { record = "${var.kind} ${var.name}" }

  lifecycle {
    # The provider keeps the input of an update that was refused as if it had been taken, and would never send it again. What it
    # keeps as the answer is that of the write before, or none.
    postcondition {
      condition     = coalesce(self.result, "none") != "none" && try(jsondecode(self.result).token, local.token) == local.token
      error_message = "The last write of ${var.kind} ${var.name} was not taken, so the ledger holds what it held before. Correct what was refused; if nothing has to be corrected, raise `again` to have it sent once more."
    }
  }
}
