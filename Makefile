# The project's commands. `make demo` and `make test` set up everything they need.
PYTHON ?= python3
VENV := .venv/bin

.PHONY: help demo test terraform terraform-plan bench prove prove-mutants env clean format smoke-aws smoke-azure smoke-gcp

help:            ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST)

demo:            ## run the main job: events become jobs in a local pool and on the ECS double
	@$(PYTHON) scripts/make_env.py demo
	@$(VENV)/push-pools demo

env:             ## make the environments of the tests
	@$(PYTHON) scripts/make_env.py main prefect ministack checkov

test:            ## install what the tests need and run all of them; prints the time of each stage
	@$(PYTHON) scripts/run_tests.py

terraform:       ## check the format of terraform/, and validate and test each module and example
	@$(PYTHON) scripts/terraform.py $(ARGS)

terraform-plan:  ## write tests/terraform/plan*.json anew, after a change of terraform/
	@$(PYTHON) scripts/make_plan.py
	@$(PYTHON) scripts/terraform_pools_plan.py

bench: env       ## print the figures, as ratios and counts
	@$(VENV)/python scripts/bench.py

RUNS ?= 100000
SEED ?= $(shell date +%s)

prove: env       ## the long proofs; RUNS= and SEED= say how many runs are simulated, and from which story on
	@$(VENV)/python -m pytest -q -m prove -n 2 --timeout 3600 tests
	@$(VENV)/python -m tests.simulation --runs $(RUNS) --seed $(SEED)

prove-mutants: env ## break the code in known ways, and see that the simulation notices each
	@$(VENV)/python -m tests.simulation.mutants

smoke-aws: env   ## a trial on a real AWS account; ARGS="--cluster … --subnets … --execution-role-arn …"
	@$(VENV)/python scripts/smoke_aws.py $(ARGS)

smoke-azure: env ## a trial on a real Azure subscription; ARGS="--subscription-id … --resource-group …"
	@$(VENV)/python scripts/smoke_azure.py $(ARGS)

smoke-gcp: env   ## a trial on a real Google Cloud project; ARGS="--project … --region …"
	@$(VENV)/python scripts/smoke_gcp.py $(ARGS)

format: env      ## format the code
	@$(VENV)/ruff format . && $(VENV)/ruff check --fix .

clean:           ## remove what these commands made
	rm -rf .venv .venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
