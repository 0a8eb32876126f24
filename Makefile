# Everything runs from here; `make` alone lists the targets.
SHELL := /bin/bash
DENO := node_modules/.bin/deno

.PHONY: check
check: node_modules/.package-lock.json
	$(DENO) fmt --check
	$(DENO) lint
	$(DENO) check lib
	$(DENO) test -A lib

node_modules/.package-lock.json: package.json package-lock.json
	npm ci
	@touch $@
