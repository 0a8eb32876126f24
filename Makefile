# Everything runs from here; `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# By path, never by name: node_modules/.bin holds the pinned version.
DENO := node_modules/.bin/deno
RUN := $(DENO) run -A
MODULES := node_modules/.package-lock.json
LIBRARY := dist/libckpt.so
BINARY := dist/ckpt

.DEFAULT_GOAL := help
.PHONY: help setup build test test-long test-nfs check static demo bench interop clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' \
	  $(MAKEFILE_LIST)

setup:  ## install what is missing: system packages (as root) and node_modules
	@tools/setup.sh
	@$(MAKE) --no-print-directory $(MODULES)

$(MODULES): package.json package-lock.json
	npm ci
	@touch $@

build: $(BINARY)  ## make dist/ckpt, the one binary

test:  ## set up, build, check, and run every test
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory build static
	@tools/test.sh lib tools tests

test-long:  ## the same with the long versions of the tests
	@CKPT_LONG=1 $(MAKE) --no-print-directory test

test-nfs:  ## test with files on NFS, in a virtual machine (not part of test)
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory build
	@tests/nfs/run.sh

check: static $(LIBRARY)  ## format, lint, types, imports, unit tests
	@tools/test.sh lib

static: $(MODULES) $(GENERATED)
	$(DENO) fmt --check
	$(DENO) lint
	$(DENO) check
	$(RUN) tools/check_imports.ts

demo:  ## dump and restore a real program, from a fresh checkout
	@$(MAKE) --no-print-directory setup build
	@tools/demo.sh

bench: $(BINARY)  ## measure; CRIU=path adds criu's figures beside ours
	$(RUN) bench/main.ts

interop: $(BINARY)  ## exchange images with CRIU=path, read them with CRIT=command
	@test -n "$(CRIU)" -a -n "$(CRIT)" || \
	  { echo "usage: make interop CRIU=path CRIT=command"; exit 2; }
	CRIU="$(CRIU)" CRIT="$(CRIT)" $(RUN) tests/interop/main.ts

clean:  ## remove what was built
	rm -rf dist c/build

# The native part: c/agent becomes one position-independent image, in two
# forms (agent.bin to map into a task, agent.elf to start), which c/lib embeds;
# and so it does the program of c/enter.

CC := gcc
WARNINGS := -Wall -Wextra -Werror
CFLAGS := -std=gnu11 -O2 $(WARNINGS) -fPIC -fvisibility=hidden -pthread -MMD -MP
# No libc, no relocations, nothing that assumes a thread pointer (the stack
# protector), a red zone (it may run on a borrowed stack), or vector registers.
AGENT_CFLAGS := -std=gnu11 -O2 $(WARNINGS) -MMD -MP -ffreestanding -fPIE \
  -fvisibility=hidden -fno-stack-protector -fcf-protection=none \
  -fno-asynchronous-unwind-tables -fno-unwind-tables -mno-red-zone \
  -mgeneral-regs-only -fno-tree-loop-distribute-patterns
AGENT_LDFLAGS := -nostdlib -static -Wl,-T,c/agent/agent.ld -Wl,--emit-relocs \
  -Wl,--build-id=none -Wl,-z,noexecstack

BUILD := c/build
LIB_SOURCES := $(wildcard c/lib/*.c c/lib/*.S)
AGENT_SOURCES := $(wildcard c/agent/*.c c/agent/*.S)
ENTER_SOURCES := $(wildcard c/enter/*.c)
LIB_OBJECTS := $(LIB_SOURCES:c/%=$(BUILD)/%.o)
ENTER_OBJECTS := $(ENTER_SOURCES:c/%=$(BUILD)/%.o)
AGENT_OBJECTS := $(AGENT_SOURCES:c/%=$(BUILD)/%.o)

$(LIBRARY): $(LIB_OBJECTS) tools/check_native.sh Makefile
	@mkdir -p $(@D)
	$(CC) -shared -pthread -Wl,-z,defs -Wl,-z,now -Wl,-z,noexecstack \
	  -Wl,--build-id=none -s -o $(BUILD)/libckpt.so $(LIB_OBJECTS)
	tools/check_native.sh library $(BUILD)/libckpt.so
	cp $(BUILD)/libckpt.so $@.new && mv $@.new $@

$(BUILD)/lib/%.c.o: c/lib/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Ic/lib -Ic -c -o $@ $<

# .incbin finds agent.bin and the others in the build directory.
$(BUILD)/lib/%.S.o: c/lib/%.S $(BUILD)/agent.bin $(BUILD)/agent.elf \
  $(BUILD)/enter.elf Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Ic -Wa,-I,$(BUILD) -c -o $@ $<

$(BUILD)/agent/%.o: c/agent/% Makefile
	@mkdir -p $(@D)
	$(CC) $(AGENT_CFLAGS) -Ic/agent -Ic -c -o $@ $<

$(BUILD)/agent.linked: $(AGENT_OBJECTS) c/agent/agent.ld tools/check_native.sh
	$(CC) $(AGENT_LDFLAGS) -o $@ $(AGENT_OBJECTS)
	tools/check_native.sh agent $@

$(BUILD)/enter/%.o: c/enter/% Makefile
	@mkdir -p $(@D)
	$(CC) $(AGENT_CFLAGS) -Ic/enter -Ic -c -o $@ $<

$(BUILD)/enter.linked: $(ENTER_OBJECTS) c/enter/enter.ld tools/check_native.sh
	$(CC) -nostdlib -static -Wl,-T,c/enter/enter.ld -Wl,--emit-relocs \
	  -Wl,--build-id=none -Wl,-z,noexecstack -o $@ $(ENTER_OBJECTS)
	tools/check_native.sh agent $@

$(BUILD)/agent.elf $(BUILD)/enter.elf: $(BUILD)/%.elf: $(BUILD)/%.linked
	objcopy --strip-all $< $@

$(BUILD)/agent.bin: $(BUILD)/agent.linked
	objcopy -O binary $< $@

# The one binary.

TYPESCRIPT := main.ts $(shell find lib -name '*.ts' -not -name '*_test.ts')

VERSION := $(shell sed -n 's/^export const VERSION = "\(.*\)";/\1/p' lib/version.ts)

$(BUILD)/pack/stub.bin: tools/pack/stub.c tools/pack/stub.ld Makefile \
  tools/check_native.sh lib/version.ts
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(AGENT_CFLAGS)) \
	  -DCKPT_VERSION='"$(VERSION)"' -c \
	  -o $(BUILD)/pack/stub.o $<
	$(CC) -nostdlib -static -Wl,-T,tools/pack/stub.ld -Wl,--emit-relocs \
	  -Wl,--build-id=none -Wl,-z,noexecstack -Wl,--fatal-warnings \
	  -o $(BUILD)/pack/stub.linked $(BUILD)/pack/stub.o
	tools/check_native.sh agent $(BUILD)/pack/stub.linked
	objcopy -O binary $(BUILD)/pack/stub.linked $@

$(BUILD)/pack/trainee: tools/pack/trainee.c Makefile
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 $(WARNINGS) -pthread -o $@ $<

PACKING := build.ts bundle.ts $(addprefix pack/,pack.ts prelink.ts elf.ts \
  training.ts run_script.js code_cache.ts compile_script.js replace_data.js)

$(BINARY): $(MODULES) $(LIBRARY) $(BUILD)/pack/stub.bin $(BUILD)/pack/trainee \
  $(TYPESCRIPT) deno.json $(PACKING:%=tools/%)
	$(RUN) tools/build.ts

-include $(LIB_OBJECTS:.o=.d) $(AGENT_OBJECTS:.o=.d) \
  $(ENTER_OBJECTS:.o=.d)
