# Needs nothing but python3: nox and uv come from a private environment, and bring the rest.
.PHONY: check demo test

NOX = .venv/bin/nox $(NOXFLAGS)
THIS = $$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# Lint, types and the fast tests: what to run before each commit.
check: .venv/bin/nox
	$(NOX) --parallel 2 -s check

demo: .venv/bin/nox
	$(NOX) -s demo

# All tests, on this Python. `.venv/bin/nox -s matrix` runs them on others, and with other SDKs.
test: .venv/bin/nox
	$(NOX) --force-python $(THIS) -s tests

.venv/bin/nox: Makefile
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"asynccache needs Python 3.11 or later, and python3 is %d.%d." % sys.version_info[:2])'
	python3 -m venv .venv
	python3 tools/certificates.py .venv/bin/pip install --quiet --disable-pip-version-check \
		"nox[uv]>=2026.8.10"
	@touch $@
