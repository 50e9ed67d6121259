# Needs nothing but python3: nox and uv come from a private environment, and bring the rest.
.PHONY: demo test

demo: .venv/bin/nox
	.venv/bin/nox -s demo

SESSIONS = tests tests_openai2 tests_frameworks tests_frameworks_openai2 tests_frameworks_autogen02
NOX = .venv/bin/nox --error-on-missing-interpreters \
	--force-python "$$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

# Environments are built two at a time; the tests themselves use all cores.
test: .venv/bin/nox
	printf '%s\n' $(SESSIONS) | xargs -P 2 -I SESSION $(NOX) --install-only -s SESSION
	$(NOX) --no-install -s $(SESSIONS)

.venv/bin/nox:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"asynccache needs Python 3.11 or later, and python3 is %d.%d." % sys.version_info[:2])'
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check "nox[uv]>=2025.5.1"
